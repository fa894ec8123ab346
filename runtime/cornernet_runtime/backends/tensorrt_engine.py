"""A TensorRT engine: checked against the machine, read, and bound to device memory.

Nothing here touches the host's memory or waits for the GPU, so a pipeline that stays on the device uses the same class
as the backend for NumPy arrays.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.backends.tensorrt_log import Remarks, import_tensorrt
from cornernet_runtime.backends.tensorrt_plugin import load_plugin, same_plugin, search_plugin
from cornernet_runtime.bundle.engine_record import EngineMachine, EngineProfile, Shape, why_not_here
from cornernet_runtime.errors import BackendError, ModelError, SizeError
from cornernet_runtime.kernels.decode import DeviceMaps
from cornernet_runtime.processing.maps import INPUT_NAME, OUTPUT_NAMES, check_output_names, output_channels

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.bundle.engine_record import EngineRecord
    from cornernet_runtime.bundle.spec import ModelSpec

FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class BoundNetwork:
    """A network that is ready to run on one shape of input.

    Attributes:
        shape: Of the input.
        output_shapes: Of the outputs, by name, [N, C, h, w] each.
        input: Address of the input.
        maps: The outputs as the kernels of decode read them.
        half: Whether the input is float16: never.
    """

    shape: Shape
    output_shapes: dict[str, Shape]
    input: int
    maps: DeviceMaps
    _context: Any
    half: bool = False

    def enqueue(self, stream: int) -> None:
        """Enqueue one run on a stream (``CUstream``), which may be one that is captured.

        Raises:
            BackendError: TensorRT refuses.
        """
        if not self._context.execute_async_v3(stream):
            raise BackendError(f"TensorRT could not enqueue the network at {'x'.join(map(str, self.shape))}")


class TensorRTNetwork:
    """An engine, its input and outputs in device memory, all allocated when it is opened.

    Every shape has an execution context of its own, for a captured graph is void once its context is changed; they
    share one block of activations, so two shapes must not run at the same time.

    Args:
        path: The plan.
        spec: How to use it.
        record: What it needs.
        device: Runs it. Its stream is used to prepare shapes.
        allow_code: Whether a portable plan, which carries executable code, may be opened.
        plugin: Library of the plugin; None looks at the usual places.
        rebuild: Command that builds the engine again here, for errors.

    Attributes:
        input: Device memory of the input, float32 [N, 3, H, W], contiguous, large enough for every profile.
        outputs: Device memory of the outputs, by name, float32 [N, C, h, w].
        profiles: Shapes that the engine accepts.

    Raises:
        BackendError: TensorRT is not installed, the engine cannot run on this machine, or there is too little memory.
        ModelError: The plan is no CornerNet of ours.
        PluginError: The plugin that it needs is none.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        record: EngineRecord,
        device: CudaDevice,
        *,
        allow_code: bool,
        plugin: Path | None,
        rebuild: str,
    ) -> None:
        self._trt = trt = import_tensorrt()
        self._spec, self._device = spec, device
        problem = _problem(trt, path, record, device, allow_code=allow_code, plugin=plugin)
        if problem is not None:
            raise BackendError(f"{path}: {problem}; build it again here: {rebuild}")
        self._remarks = Remarks(trt)
        self._runtime = self._remarks.construct(trt.Runtime, self._remarks.logger)
        self._engine = read_plan(self._runtime, path.read_bytes(), self._remarks, str(path), allow_code=record.portable)
        _check_tensors(trt, self._engine, spec, str(path))
        self.profiles = tuple(
            _profile(self._engine, number) for number in range(self._engine.num_optimization_profiles)
        )
        self._allocate()

    @property
    def max_batch(self) -> int:
        """Largest batch of any profile."""
        return max(profile.maximum[0] for profile in self.profiles)

    def smallest_batch(self, shape: Shape) -> int:
        """Return the smallest batch that is not below that of ``shape`` and that the engine accepts at its size.

        Raises:
            SizeError: No profile has this size and batch.
        """
        batches = [max(shape[0], profile.minimum[0]) for profile in self.profiles]
        fitting = [
            batch for batch, profile in zip(batches, self.profiles, strict=True) if profile.accepts((batch, *shape[1:]))
        ]
        if not fitting:
            raise SizeError(
                f"input {'x'.join(map(str, shape))}: this engine takes {' or '.join(map(str, self.profiles))}; "
                "build it with another --size or --batch"
            )
        return min(fitting)

    def bind(self, shape: Shape) -> BoundNetwork:
        """Return the network at one shape of input, float32 [N, 3, H, W].

        Raises:
            BackendError: TensorRT refuses.
            SizeError: No profile accepts the shape.
        """
        number = self._profile_for(shape)
        what = f"TensorRT cannot prepare {'x'.join(map(str, shape))}"
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with PREPARATION:  # clones share the engine
            context = self._remarks.made(self._engine.create_execution_context(strategy), what)
        context.nvtx_verbosity = self._trt.ProfilingVerbosity.NONE  # the plan has all details, for the layer report
        outputs = {name: self._output_shape(name, shape) for name in OUTPUT_NAMES}
        addresses = {name: int(buffer.handle) for name, buffer in self.outputs.items()}
        start = int(self.input.handle)
        try:
            done = (
                context.set_optimization_profile_async(number, self._device.handle)
                and context.set_input_shape(INPUT_NAME, shape)
                and context.set_tensor_address(INPUT_NAME, start)
                and all(context.set_tensor_address(name, address) for name, address in addresses.items())
                and not context.infer_shapes()
            )
        except RuntimeError as error:
            raise BackendError(f"{what}: {error}") from error
        if not done:
            raise BackendError(f"{what}: {self._remarks.reason()}")
        context.set_device_memory(int(self._activations.handle), self._activation_bytes)
        for name, expected in outputs.items():
            if tuple(context.get_tensor_shape(name)) != expected:
                raise ModelError(f"{name}: expected {expected}, got {tuple(context.get_tensor_shape(name))}")
        maps = DeviceMaps(
            tl_heat=addresses["tl_heat"],
            br_heat=addresses["br_heat"],
            tl_embed=addresses["tl_embed"],
            br_embed=addresses["br_embed"],
            tl_offset=addresses["tl_offset"],
            br_offset=addresses["br_offset"],
            shape=outputs["tl_heat"],
        )
        return BoundNetwork(shape, outputs, start, maps, context)

    def clone(self, device: CudaDevice) -> Self:
        """Return the same engine with memory and execution contexts of its own, for a stream of the same GPU.

        Raises:
            BackendError: There is too little memory.
        """
        other = copy.copy(self)
        other._device = device  # noqa: SLF001 - of this class
        other._allocate()  # noqa: SLF001
        return other

    def close(self) -> None:
        """Let go of the engine, which clones keep, and of its memory; bound networks cannot be used afterwards."""
        for buffer in (self.input, *self.outputs.values(), self._activations):
            buffer.close(self._device.stream)
        with PREPARATION:  # the last clone's engine goes with it
            del self._engine, self._runtime

    def _allocate(self) -> None:
        largest = [profile.maximum for profile in self.profiles]
        self.input: Any = self._device.allocate(max(map(_bytes, largest)), "the network's input")
        self.outputs: dict[str, Any] = {
            name: self._device.allocate(max(_bytes(self._output_shape(name, shape)) for shape in largest), name)
            for name in OUTPUT_NAMES
        }
        self._activation_bytes = int(self._engine.device_memory_size_v2)
        self._activations = self._device.allocate(max(1, self._activation_bytes), "the network's activations")

    def _profile_for(self, shape: Shape) -> int:
        """Return the number of the profile that is tuned closest to a shape."""
        fitting = [number for number, profile in enumerate(self.profiles) if profile.accepts(shape)]
        if not fitting:
            self.smallest_batch(shape)  # says which sizes there are
            raise SizeError(f"a batch of {shape[0]}: this engine takes {' or '.join(map(str, self.profiles))}")
        wanted = math.prod(shape)
        return min(fitting, key=lambda number: abs(math.prod(self.profiles[number].optimum) - wanted))

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        rows, columns = ((side + 1) // self._spec.stride for side in shape[2:])
        return shape[0], output_channels(self._spec)[name], rows, columns


def read_plan(runtime: Any, plan: Any, remarks: Remarks, source: str, *, allow_code: bool) -> Any:  # noqa: ANN401
    """Return the ``tensorrt.ICudaEngine`` of a plan.

    Raises:
        BackendError: TensorRT cannot read it; the reason is the one that it logged.
    """
    if allow_code:
        runtime.engine_host_code_allowed = True
    with PREPARATION:
        return remarks.made(runtime.deserialize_cuda_engine(plan), f"{source}: TensorRT cannot read the engine")


def _problem(
    trt: Any,  # noqa: ANN401
    path: Path,
    record: EngineRecord,
    device: CudaDevice,
    *,
    allow_code: bool,
    plugin: Path | None,
) -> str | None:
    """Return why the engine cannot run here; if it can, register its plugin and return None."""
    machine = EngineMachine(str(trt.__version__), device.name, device.compute_capability)
    problem = why_not_here(record, machine)
    if problem is None and record.portable:
        if not allow_code:
            raise BackendError(
                f"{path}: a portable engine carries executable code; open it with Detector.open(..., "
                "allow_engine_code=True) if you trust where it comes from"
            )
    elif problem is None and record.plugin is not None:
        library = search_plugin(plugin)
        problem = same_plugin(record.plugin, library)
        if problem is None and library is not None:
            load_plugin(trt, library)
    return problem


def _check_tensors(trt: Any, engine: Any, spec: ModelSpec, source: str) -> None:  # noqa: ANN401
    """Raise ModelError unless inputs and outputs are those of the spec, float32 on the device."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    check_output_names([name for name in names if name not in inputs], source)
    if inputs != [INPUT_NAME]:
        raise ModelError(f"{source}: expected one input {INPUT_NAME}, got {', '.join(inputs) or 'none'}")
    for name in names:
        if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
            raise ModelError(f"{source}: {name} is {engine.get_tensor_dtype(name)}, not float32")
    for name, channels in output_channels(spec).items():
        shape = tuple(engine.get_tensor_shape(name))
        if len(shape) != 4 or shape[1] != channels:
            raise ModelError(f"{source}: output {name} has shape {list(shape)}, its side-car says {channels} channels")


def _profile(engine: Any, number: int) -> EngineProfile:  # noqa: ANN401
    fixed: Any = tuple(engine.get_tensor_shape(INPUT_NAME))
    if min(fixed) > 0:  # a profile says something of free dimensions only
        return EngineProfile(fixed, fixed, fixed)
    return EngineProfile(*(tuple(shape) for shape in engine.get_tensor_profile_shape(INPUT_NAME, number)))


def _bytes(shape: Shape) -> int:
    return math.prod(shape) * FLOAT_BYTES
