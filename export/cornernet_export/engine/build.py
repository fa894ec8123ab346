"""From the ONNX file of a bundle to a TensorRT plan in memory, with the record of what was built."""

from __future__ import annotations

import shlex
import warnings
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from cornernet_export.engine.cache import attach_cache, default_cache, keep_cache
from cornernet_export.engine.network import add_profiles, count_plugin_layers, count_pools, parse_network, profiles_of
from cornernet_export.engine.progress import progress_monitor, run_watched
from cornernet_export.engine.report import LayerReport, check_precision, read_report
from cornernet_runtime.backends.cuda_device import MIB, CudaDevice
from cornernet_runtime.backends.tensorrt_engine import read_plan
from cornernet_runtime.backends.tensorrt_log import Remarks, import_tensorrt
from cornernet_runtime.backends.tensorrt_plugin import load_plugin, no_plugin_message, search_plugin
from cornernet_runtime.bundle.engine_record import EngineRecord
from cornernet_runtime.errors import BackendError, CornerNetWarning, EngineError
from cornernet_runtime.processing.maps import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cornernet_runtime.bundle.engine_record import Compatibility, EngineProfile, PluginRecord
    from cornernet_runtime.bundle.spec import ModelSpec

WORKSPACE_PART = 0.8  # of the free memory; weights and tensors need the rest


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to build an engine.

    Attributes:
        plugin: Library of the plugin; None looks at the usual places.
        require_plugin: Whether to fail where the plugin does not compute corner pooling.
        portable: Whether the plan also runs on later TensorRT versions; it then carries code.
        timing_cache: File; None takes the one in the user's cache folder.
        optimization_level: 0 to 5: from fastest to build to fastest to run.
        hardware_compatibility: On which other GPUs the plan runs; any but ``none`` costs speed.
        tf32: Whether float32 may be rounded to TF32 inside: faster, 10 bits of mantissa instead of 23.
        keep_failed: Whether to go on with an engine whose precision or results are not what was asked for.
    """

    plugin: Path | None = None
    require_plugin: bool = False
    portable: bool = False
    timing_cache: Path | None = None
    optimization_level: int = 3
    hardware_compatibility: Compatibility = "none"
    tf32: bool = False
    keep_failed: bool = False

    def command(self, bundle: Path) -> str:
        """Return the command that builds an engine for a bundle with these options."""
        words = ["cornernet-export", str(bundle), "--engine"]
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                flag = "--force" if one.name == "keep_failed" else f"--{one.name.replace('_', '-')}"
                words += [flag] if value is True else [flag, str(value)]
        return shlex.join(words)


@dataclass(frozen=True, slots=True)
class BuiltEngine:
    """A plan, and what it needs to run."""

    plan: bytes
    record: EngineRecord


def why_no_engine() -> str | None:
    """Return why no engine can be built on this machine, or None if nothing is missing."""
    try:
        import_tensorrt()
        CudaDevice()
    except BackendError as error:
        return str(error)
    return None


def build_engine(path: Path, spec: ModelSpec, options: EngineOptions, on_stage: Callable[[str], None]) -> BuiltEngine:
    """Build the engine of an ONNX file for this machine.

    Args:
        path: The file.
        spec: How to use it; names sizes, batches and precision.
        options: How to build.
        on_stage: Told what is being done, several times a second at most.

    Raises:
        BackendError: TensorRT or cuda.core is not installed, there is no GPU, or its driver is too old.
        EngineError: TensorRT cannot build the engine, or not as asked.
        PluginError: What is named as plugin is not ours, or does not fit.
        KeyboardInterrupt: The user interrupted; what was measured until then is in the timing cache.
    """
    trt, device = import_tensorrt(), CudaDevice()
    on_stage("reading the model into TensorRT")
    library = search_plugin(options.plugin)
    plugin = None if library is None else load_plugin(trt, library)
    remarks = Remarks(trt)
    builder = remarks.construct(trt.Builder, remarks.logger)
    parsed = parse_network(trt, builder, path, remarks)
    plugin = _check_plugin(trt, parsed.network, count_pools(path), plugin, options)
    profiles = profiles_of(spec)
    config = remarks.made(builder.create_builder_config(), "TensorRT cannot make a configuration")
    _configure(trt, config, options, device)
    if options.portable and plugin is not None:
        config.plugins_to_serialize = [str(library)]
    add_profiles(builder, config, profiles)
    cache = options.timing_cache or default_cache(trt.__version__, device.name)
    attach_cache(config, cache)
    config.progress_monitor = monitor = progress_monitor(trt)
    try:
        plan = run_watched(lambda: builder.build_serialized_network(parsed.network, config), monitor, on_stage)
    finally:
        keep_cache(config, cache)
    if plan is None:
        raise EngineError(_why_no_plan(remarks, device))
    content = bytes(plan)
    on_stage("looking at the layers of the engine")
    report = _inspect(trt, content, profiles, device, portable=options.portable)
    try:
        check_precision(report, spec.precision)
    except EngineError as error:
        if not options.keep_failed:
            raise
        warnings.warn(f"{error}; kept because of --force", CornerNetWarning, stacklevel=2)
    record = EngineRecord(
        tensorrt=str(trt.__version__),
        gpu=device.name,
        compute_capability=device.compute_capability,
        profiles=profiles,
        plugin=plugin,
        portable=options.portable,
        hardware_compatibility=options.hardware_compatibility,
        tf32=options.tf32,
        precisions=report.precisions,
        layers=report.layers,
        plugin_layers=report.plugin_layers,
        reformat_layers=report.reformat_layers,
    )
    return BuiltEngine(content, record)


def _check_plugin(
    trt: Any,  # noqa: ANN401 - an extra
    network: Any,  # noqa: ANN401
    pools: int,
    plugin: PluginRecord | None,
    options: EngineOptions,
) -> PluginRecord | None:
    """Return the plugin if it computes every corner pool of the network, None if it computes none."""
    layers = count_plugin_layers(trt, network)
    if plugin is not None and layers == pools > 0:
        return plugin
    if layers:
        raise EngineError(f"TensorRT takes the plugin for {layers} of {pools} corner pools; expected all or none")
    why = no_plugin_message()
    if plugin is not None:
        why = f"TensorRT {trt.__version__} does not take the plugin {plugin.version} for them; 10.7 or later does"
    if options.require_plugin:
        raise EngineError(f"--require-plugin: none of {pools} corner pools is computed by the plugin: {why}")
    warnings.warn(
        f"corner pooling is built from standard operators, a dozen layers a pool instead of one kernel: {why}",
        CornerNetWarning,
        stacklevel=3,
    )
    return None


def _configure(trt: Any, config: Any, options: EngineOptions, device: CudaDevice) -> None:  # noqa: ANN401
    workspace = int(device.free_memory() * WORKSPACE_PART)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else the inspector tells names only
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)  # TensorRT's default is on
    if options.portable:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    levels = trt.HardwareCompatibilityLevel
    config.hardware_compatibility_level = {
        "none": levels.NONE,
        "ampere_plus": levels.AMPERE_PLUS,
        "same_compute_capability": levels.SAME_COMPUTE_CAPABILITY,
    }[options.hardware_compatibility]


def _inspect(
    trt: Any,  # noqa: ANN401
    plan: bytes,
    profiles: tuple[EngineProfile, ...],
    device: CudaDevice,
    *,
    portable: bool,
) -> LayerReport:
    """Return what the layers of a plan are, for each profile at the shape it was tuned for.

    Without a context whose shapes are set, the inspector answers "N/A due to dynamic shapes".
    """
    remarks = Remarks(trt)
    runtime = remarks.construct(trt.Runtime, remarks.logger)
    engine = read_plan(runtime, plan, remarks, "the new engine", allow_code=portable)
    texts = []
    for number, profile in enumerate(profiles):
        what = f"TensorRT cannot prepare {profile}"
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED  # it will not run, so it needs no memory
        context = remarks.made(engine.create_execution_context(strategy), what)
        if not context.set_optimization_profile_async(number, device.handle):
            raise EngineError(f"{what}: {remarks.reason()}")
        device.stream.sync()
        if not context.set_input_shape(INPUT_NAME, profile.optimum):
            raise EngineError(f"{what}: {remarks.reason()}")
        inspector = engine.create_engine_inspector()
        inspector.execution_context = context
        texts.append(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return read_report(texts)


def _why_no_plan(remarks: Remarks, device: CudaDevice) -> str:
    reason = next((text for text in remarks.errors if "implementation for node" in text), remarks.reason())
    everything = " ".join(remarks.errors).lower()
    if "implementation for node" in everything or "out of memory" in everything or "outofmemory" in everything:
        return (
            f"TensorRT found no way to compute a layer in the memory that it has, {device.free_memory() / MIB:.0f} MiB "
            f"of {device.name} are free: close what else uses the GPU, or export with a smaller --batch or --size "
            f"({reason})"
        )
    return f"TensorRT built no engine: {reason}"
