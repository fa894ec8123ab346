"""Calls, attributes, arguments and enums that the real bindings lack end a test, in the builder and in the backend."""

from __future__ import annotations

import inspect
import re
import textwrap

import numpy as np
import pytest
from doubles.checked import Checked, Surface, SurfaceError

from cornernet_bench.selftest import calls as selftest_calls
from cornernet_export.engine import add as engine
from cornernet_export.engine import build as engine_build
from cornernet_export.engine import cache as engine_cache
from cornernet_export.engine import network as engine_network
from cornernet_export.engine import progress as engine_progress
from cornernet_export.engine.add import EngineRequest, add_engine
from cornernet_export.engine.build import EngineOptions
from cornernet_export.torch_backend import work as torch_work
from cornernet_runtime import Detector
from cornernet_runtime.backends import cuda_device, cuda_graphs, tensorrt_engine, tensorrt_log, tensorrt_plugin
from cornernet_runtime.backends import tensorrt as tensorrt_backend
from cornernet_runtime.bundle.manifest import ENGINE_NAME, read_manifest
from cornernet_runtime.kernels import device
from cornernet_runtime.pipeline import memory, ring

Network, Backend = tensorrt_engine.TensorRTNetwork, tensorrt_backend.TensorRTBackend
PLANTS = {
    # The builder.
    "call": (engine_network.parse_network, "parse_from_file(", "parse_file("),
    "removed argument": (engine_network.parse_network, "parse_from_file(str(path))", "parse_from_file(str(path), '')"),
    "argument's type": (engine_network.parse_network, "parse_from_file(str(path))", "parse_from_file(path)"),
    "removed flag": (engine_build._configure, "trt.BuilderFlag.TF32", "trt.BuilderFlag.STRICT_TYPES"),
    "integer for an enum": (engine_build._configure, "trt.MemoryPoolType.WORKSPACE", "0"),
    "attribute": (engine_build._configure, "config.builder_optimization_level", "config.optimization_level"),
    "removed attribute": (engine_build._configure, "config.builder_optimization_level", "config.max_workspace_size"),
    "argument left out": (engine_cache.attach_cache, "set_timing_cache(cache, False)", "set_timing_cache(cache)"),
    "removed class": (engine_network.parse_network, "trt.OnnxParser", "trt.CaffeParser"),
    "argument's name": (engine_network.add_profiles, "profile.maximum)", "maximum=profile.maximum)"),
    "wrong owner": (engine_build.build_engine, "builder.create_builder_config()", "parsed.network.create_config()"),
    "removed build": (engine_build.build_engine, "build_serialized_network(", "build_engine("),
    "removed inspector": (engine_build._inspect, "trt.LayerInformationFormat.JSON", "'JSON'"),
    "callback": (engine_progress.progress_monitor, "def phase_start", "def on_phase_start"),
    "callback's arguments": (engine_progress.progress_monitor, "phase_name: str, step: int", "phase_name: str"),
    "logger": (tensorrt_log._logger, "def log(self, severity: Any, msg: str)", "def log(self, msg: str)"),
    "registry": (tensorrt_plugin._registered, "registry.get_creator(", "registry.get_plugin_creator_v3("),
    "function": (tensorrt_plugin.load_plugin, "trt.get_plugin_registry()", "trt.plugin_registry()"),
    # The backend.
    "enqueue": (tensorrt_engine.BoundNetwork.enqueue, "execute_async_v3(stream)", "execute_async_v2([], stream)"),
    "enqueue's arguments": (tensorrt_engine.BoundNetwork.enqueue, "execute_async_v3(stream)", "execute_async_v3()"),
    "stream, not its handle": (Network.bind, "self._device.handle)", "self._device.stream)"),
    "removed context": (
        Network.bind,
        "create_execution_context(strategy)",
        "create_context_without_memory()",
    ),
    "shape's type": (Network.bind, "set_input_shape(INPUT_NAME, shape)", "set_input_shape(INPUT_NAME, str(shape))"),
    "binding": (Network.bind, "set_tensor_address(name,", "set_binding_address(name,"),
    "context's attribute": (Network.bind, "context.nvtx_verbosity", "context.verbosity"),
    "runtime's attribute": (tensorrt_engine.read_plan, "engine_host_code_allowed", "host_code_allowed"),
    "removed lookup": (tensorrt_engine._check_tensors, "get_tensor_dtype(name)", "get_binding_dtype(name)"),
    "enum's name": (tensorrt_engine._check_tensors, "trt.DataType.FLOAT", "trt.DataType.FLOAT32"),
    # cuda.core.
    "stream left out": (cuda_device.CudaDevice.allocate, "size, stream=stream or self.stream", "size"),
    "positional stream": (Backend._prepare, "copy_from(source, stream=stream)", "copy_from(source, stream)"),
    "graph": (cuda_graphs.ShapeGraphs._capture_once, ".end_building()", ".end_capture()"),
    "graph's launch": (cuda_graphs.ShapeGraphs.run, "graph.launch(self._stream)", "graph.launch()"),
    "stream's wait": (cuda_device.CudaDevice.wait, "work.sync()", "work.synchronize()"),
    "driver": (cuda_device.CudaDevice.free_memory, "cuMemGetInfo()", "cuMemGetInfo_v2()"),
}
# The same, for the pipeline.
PIPELINE_PLANTS = {
    "code": (device.LoadedKernels.prepare, "object_code.from_cubin", "object_code.from_bytes"),
    "code's name": (device.LoadedKernels.prepare, "name=source", "module_name=source"),
    "kernel": (device.LoadedKernels.prepare, "code.get_kernel(symbol)", "code.get_function(symbol)"),
    "kernel's attribute": (device.LoadedKernels.prepare, "get_kernel(symbol).handle", "get_kernel(symbol).function"),
    "launch": (device.LoadedKernels.launch, "cuLaunchKernel(", "cuLaunch("),
    "launch's arguments": (device.LoadedKernels.launch, "launch.shared_bytes,", ""),
    "kernel's function": (
        device.LoadedKernels.prepare,
        "(self._driver.cuFuncLoad, function)",
        "(self._driver.cuFuncLoad)",
    ),
    "copy": (memory.DeviceBlock.copy, "copy_from(", "copy_from_host("),
    "copy's stream": (memory.DeviceBlock.copy, ", stream=stream", ""),
    "event": (ring.Slot.begin, ".record(", ".record_event("),
    "wait": (ring.Slot.upload, ".wait(self._uploaded)", ".wait_event(self._uploaded)"),
    "buffer": (memory.DeviceBlock.close, "_buffer.close(", "_buffer.free("),
}


@pytest.fixture
def plant(monkeypatch):
    """Return a function that changes one piece of a function's source, wherever the function is used from."""

    def change(function, old, new):
        source = textwrap.dedent(inspect.getsource(function))
        assert old in source, f"{function.__qualname__} no longer holds {old!r}"
        names = dict(function.__globals__)
        exec(compile(source.replace(old, new), inspect.getsourcefile(function), "exec"), names)  # noqa: S102 - ours
        monkeypatch.setattr(function, "__code__", names[function.__name__].__code__)

    return change


def build_and_run(bundle, plugin_library):
    """Build a portable engine, open it, and run it three times: first, captured, replayed."""
    manifest = add_engine(EngineRequest(bundle, EngineOptions(plugin=plugin_library, portable=True)))
    assert read_manifest(bundle) == manifest
    backend = Backend(bundle / ENGINE_NAME, manifest.spec, manifest.engine, allow_code=True)
    for _ in range(3):
        backend(np.zeros((1, 3, *manifest.spec.input_size), np.float32))
    backend.close()


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("tensorrt")
def test_nothing_is_found_where_nothing_is_planted(bundle, plugin_library):
    build_and_run(bundle, plugin_library)


@pytest.mark.parametrize("name", PLANTS)
@pytest.mark.usefixtures("tensorrt")
def test_what_the_real_library_lacks_is_found(bundle, plugin_library, plant, name):
    plant(*PLANTS[name])
    with pytest.raises(SurfaceError):
        build_and_run(bundle, plugin_library)


def detect_and_close(bundle, plugin_library):
    """Build an engine, and detect through the pipeline around it: first, captured, replayed."""
    add_engine(EngineRequest(bundle, EngineOptions(plugin=plugin_library, portable=True)))
    with Detector.open(bundle, allow_engine_code=True) as detector:
        for _ in range(3):
            detector(np.zeros((126, 190, 3), np.uint8))


@pytest.mark.filterwarnings("error")
@pytest.mark.usefixtures("tensorrt")
def test_nothing_is_found_in_a_pipeline_where_nothing_is_planted(bundle, plugin_library):
    detect_and_close(bundle, plugin_library)


@pytest.mark.parametrize("name", PIPELINE_PLANTS)
@pytest.mark.usefixtures("tensorrt")
def test_what_the_real_library_lacks_is_found_in_the_pipeline(bundle, plugin_library, plant, name):
    plant(*PIPELINE_PLANTS[name])
    with pytest.raises(SurfaceError):
        detect_and_close(bundle, plugin_library)


def test_every_call_of_the_doubles_is_one_of_the_real_classes(surface_descriptions):
    class Invented:
        def fly(self):
            pass

    with pytest.raises(SurfaceError, match="the double of Builder invents fly"):
        Checked(Surface(surface_descriptions[0]), "Builder", Invented())


@pytest.mark.parametrize(
    ("kind", "method", "names"),
    [
        ("IBuilderConfig", "set_timing_cache", ["cache", "ignore_mismatch"]),
        ("IExecutionContext", "set_optimization_profile_async", ["profile_index", "stream_handle"]),
        ("IOptimizationProfile", "set_shape", ["input", "min", "opt", "max"]),
        ("IPluginRegistry", "get_creator", ["type", "version", "plugin_namespace"]),
    ],
)
def test_arguments_are_read_from_docstrings(surface_descriptions, kind, method, names):
    (parameters,) = surface_descriptions[0]["classes"][kind]["methods"][method]
    assert [one["name"] for one in parameters] == names


def test_overloads_and_defaults_are_read_from_docstrings(surface_descriptions):
    classes = surface_descriptions[0]["classes"]
    shapes = classes["IExecutionContext"]["methods"]["set_input_shape"]
    assert [[one["type"] for one in parameters] for parameters in shapes] == [
        ["str", "tuple"],
        ["str", "list"],
        ["str", "Dims"],
    ]
    first, _ = classes["ICudaEngine"]["methods"]["create_execution_context"]
    assert (first[0]["type"], first[0]["optional"]) == ("ExecutionContextAllocationStrategy", True)


def test_what_can_be_set_is_told_from_what_can_be_read(surface_descriptions):
    properties = surface_descriptions[0]["classes"]["IBuilderConfig"]["properties"]
    assert properties["builder_optimization_level"] is True
    assert properties["num_optimization_profiles"] is False


@pytest.mark.parametrize("library", ["TensorRT", "CUDA"])
def test_what_is_called_is_held_against_installed_versions_too(bundle, plugin_library, tensorrt, library):
    detect_and_close(bundle, plugin_library)
    build_and_run(bundle, plugin_library)
    surface, uses = {
        "TensorRT": (tensorrt.surface, selftest_calls.TENSORRT_USES),
        "CUDA": (tensorrt.gpu.surface, selftest_calls.CUDA_USES),
    }[library]
    assert surface.uses - set(uses) == set(), "add these to cornernet_bench/selftest/calls.py"


def test_enums_and_classes_that_the_sources_name_are_held_against_installed_versions_too():
    modules = [tensorrt_backend, tensorrt_engine, tensorrt_log, tensorrt_plugin, engine]
    modules += [engine_build, engine_cache, engine_network, engine_progress]
    text = "\n".join(inspect.getsource(one) for one in modules)
    named = set(re.findall(r"\btrt\.([A-Z]\w+\.[A-Z]\w*)\b", text)) - {"ILogger.Severity"}
    assert {"BuilderFlag.TF32", "TensorIOMode.INPUT"} <= named
    assert named - set(selftest_calls.TENSORRT_USES) == set(), "add these to cornernet_bench/selftest/calls.py"


def test_calls_of_the_driver_that_the_sources_name_are_held_against_installed_versions_too():
    modules = [cuda_device, cuda_graphs, device, torch_work]
    named = set(re.findall(r"driver\.(cu[A-Z]\w+)\b", "\n".join(inspect.getsource(one) for one in modules)))
    assert {"cuMemGetInfo", "cuLaunchKernel", "cuThreadExchangeStreamCaptureMode"} <= named
    held = {use.partition("(")[0] for use in selftest_calls.CUDA_USES}
    assert named - held == set(), "add these to cornernet_bench/selftest/calls.py"


def test_the_real_libraries_have_all_that_is_used(surface_descriptions):
    of_tensorrt, of_cuda = surface_descriptions
    assert selftest_calls.lacking(of_tensorrt, selftest_calls.TENSORRT_USES) == []
    assert selftest_calls.lacking(of_cuda, selftest_calls.CUDA_USES) == []


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("CaffeParser.parse(1)", "CaffeParser.parse(1): there is no CaffeParser"),
        ("BuilderFlag.FP16", "BuilderFlag.FP16 is not there"),
        ("IBuilderConfig.max_workspace_size", "IBuilderConfig.max_workspace_size is not there"),
        ("IExecutionContext.execute_async_v2(2)", "IExecutionContext.execute_async_v2(2) is not there"),
        ("IBuilderConfig.set_flag()", "IBuilderConfig.set_flag(): takes (flag)"),
        ("IBuilderConfig.set_flag(2)", "IBuilderConfig.set_flag(2): takes (flag)"),
        ("IBuilderConfig.set_flag(1, flag)", "IBuilderConfig.set_flag(1, flag): takes (flag)"),
        ("OnnxParser.parse_from_file(path)", "OnnxParser.parse_from_file(path): takes (model)"),
        ("plugin_registry()", "plugin_registry() is not there"),
    ],
)
def test_what_an_installed_version_lacks_is_told(surface_descriptions, use, said):
    assert selftest_calls.lacking(surface_descriptions[0], [use]) == [said]


def test_an_argument_by_name_may_be_one_by_position_too(surface_descriptions):
    assert selftest_calls.lacking(surface_descriptions[0], ["OnnxParser.parse_from_file(model)"]) == []
    assert selftest_calls.lacking(surface_descriptions[1], ["Buffer.copy_from(1)"]) != []  # stream is needed
