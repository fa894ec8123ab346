"""OpenVINO: runs the exported file on the CPU, corner pooling as OpenVINO's own pooling.

OpenVINO does not know the functions that an ONNX file carries. Its reader is told what the two custom operators are,
instead of having the functions inlined: that needs no further package, leaves external weights where they are, and is
faster, for their gathers take longer in OpenVINO than the pooling that they stand for.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal, Self

from cornernet_runtime.backends.onnx_file import METADATA_KEY, OnnxFile, Port, first_line
from cornernet_runtime.backends.threads import check_threads
from cornernet_runtime.errors import BackendError, ModelError
from cornernet_runtime.processing.maps import INPUT_NAME, OUTPUT_NAMES, CornerMaps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import ModelSpec, Size

CpuPrecision = Literal["fp32", "bf16"]
TELEMETRY = "openvino_telemetry"
_CORE_LOCK = threading.Lock()
KEPT_OPERATORS = "1000"  # prepared for the input sizes used last: eight sizes of cornernet-tiny


class OpenVinoBackend:
    """An ``.onnx`` file in OpenVINO on the CPU.

    Nothing is written to disk: OpenVINO's cache of compiled models stays off.

    Args:
        path: The file.
        spec: How to use it, from the bundle; by default what stands in the file's metadata.
        threads: Threads inside one operator; by default one for each core that this process may use.
        precision: Of the arithmetic. ``bf16`` is faster, and computes the maps to two digits.

    Raises:
        BackendError: OpenVINO is not installed, this CPU lacks that arithmetic, or ``threads`` is below one.
        ModelError: The file cannot be loaded, or is not a CornerNet of ours.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec | None = None,
        threads: int | None = None,
        precision: CpuPrecision = "fp32",
    ) -> None:
        openvino = import_openvino()
        self.name = "openvino" if precision == "fp32" else f"openvino-{precision}"
        options = _options(precision, check_threads(threads))
        core = _core()
        _check_precision(core, precision)
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        if spec is None:
            spec = _describe(_read(openvino, path, (1, 1)), str(path)).own_spec()
        height, width = spec.largest_size
        model = _read(openvino, path, ((height + 1) // spec.stride, (width + 1) // spec.stride))
        file = _describe(model, str(path))
        file.check(spec)
        self.spec = spec
        self.max_batch = file.largest_batch(spec)
        try:
            self._compiled = core.compile_model(model, "CPU", options)
        except Exception as error:
            raise ModelError(f"{path}: OpenVINO cannot compile it: {_reason(error)}") from error
        self._request = self._compiled.create_infer_request()

    def __call__(self, images: NDArray[np.float32]) -> CornerMaps:
        """Run the network on float32 [N, 3, H, W]; the maps are OpenVINO's memory, valid until the next call.

        Raises:
            SizeError: H and W are no size that the file computes correctly.
        """
        self.spec.check_input_size((images.shape[2], images.shape[3]))
        results = self._request.infer({INPUT_NAME: images}, share_inputs=True, share_outputs=True)
        return CornerMaps(*(results[name] for name in OUTPUT_NAMES))

    def clone(self) -> Self:
        """Return another of the same compiled model, for another thread; their runs take turns."""
        other = copy.copy(self)
        other._request = self._compiled.create_infer_request()  # noqa: SLF001 - of the same class
        return other

    def close(self) -> None:
        """Let go of the model, which its clones keep."""
        del self._request, self._compiled


def import_openvino() -> Any:  # noqa: ANN401 - openvino is an extra
    """Import OpenVINO, which would tell its maker of each import otherwise.

    Raises:
        BackendError: It is not installed, or does not load.
    """
    try:
        with _hidden(TELEMETRY):
            import openvino  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BackendError("OpenVINO is not installed; pip install openvino") from error
    return openvino


def _core() -> Any:  # noqa: ANN401
    """Return the only core, whichever threads ask at the same time."""
    with _CORE_LOCK:
        return _only_core()


@functools.cache
def _only_core() -> Any:  # noqa: ANN401
    """Return OpenVINO with its part for CPUs loaded and set: one for the process, and until its end.

    That part gives the thread that loads it a stack for signals, and takes its memory back when it is let go of, in
    whatever thread that happens. The next signal, such as Ctrl-C, would then end the process (seen with 2026.4).
    """
    core = import_openvino().Core()
    with contextlib.suppress(RuntimeError):  # unpublished; without it a file of many sizes takes more memory
        core.set_property("CPU", {"CPU_RUNTIME_CACHE_CAPACITY": KEPT_OPERATORS})
    return core


def _check_precision(core: Any, precision: CpuPrecision) -> None:  # noqa: ANN401
    """Raise BackendError if the CPU lacks the precision."""
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise BackendError("this CPU does not compute in bfloat16; use the backend openvino")


def _options(precision: CpuPrecision, threads: int) -> dict[str, str | int | bool]:
    """Return what a model is compiled with; docs/cpu.md has the figures."""
    return {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",  # by default the fastest that the CPU has
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # pinned, every process of one thread would run on the first core
    }


@contextlib.contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make a module look as if it were not installed, unless it has been imported."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] # what Python takes as: cannot be imported
    try:
        yield
    finally:
        del sys.modules[module]


def _read(openvino: Any, path: Path, largest_map: Size) -> Any:  # noqa: ANN401
    """Return the model of a file, whose maps are at most of this height and width where the file leaves them free."""
    from openvino.frontend.onnx import ConversionExtension  # noqa: PLC0415

    frontend = openvino.frontend.FrontEndManager().load_by_framework("onnx")
    for operator, forward in (("TopLeftPool", True), ("BottomRightPool", False)):
        frontend.add_extension(
            ConversionExtension(operator, "cornernet", _corner_pool(openvino, largest_map, forward=forward))
        )
    try:
        return frontend.convert(frontend.load(str(path)))
    except Exception as error:
        raise ModelError(f"{path}: OpenVINO cannot load it: {_reason(error)}") from error


def _corner_pool(openvino: Any, largest_map: Size, *, forward: bool) -> Callable[[Any], list[Any]]:  # noqa: ANN401
    """Return what turns a node of corner pooling into OpenVINO's operators.

    A running maximum is that of a window that spans the map and begins, or ends, at the cell. It takes a step for each
    cell, and is still ahead of doubling at 256 cells a side.

    Args:
        openvino: The module.
        largest_map: Height and width of the window where the file leaves a map's free.
        forward: Whether the window begins at the cell.
    """
    ops = openvino.opset8

    def running_maximum(source: Any, axis: int) -> Any:  # noqa: ANN401
        side = source.get_partial_shape()[2 + axis]
        window, border = [1, 1], [0, 0]
        window[axis] = side.get_length() if side.is_static else largest_map[axis]
        border[axis] = window[axis] - 1
        begin, end = ([0, 0], border) if forward else (border, [0, 0])
        return ops.max_pool(source, [1, 1], [1, 1], begin, end, window).output(0)

    def convert(node: Any) -> list[Any]:  # noqa: ANN401
        vertical, horizontal = node.get_input(0), node.get_input(1)
        return [ops.add(running_maximum(vertical, 0), running_maximum(horizontal, 1)).output(0)]

    return convert


def _describe(model: Any, source: str) -> OnnxFile:  # noqa: ANN401
    """Return what a model says of itself."""
    inputs, outputs = ({port.get_any_name(): _port(port) for port in ports} for ports in (model.inputs, model.outputs))
    place = ["framework", METADATA_KEY]
    return OnnxFile(source, inputs, outputs, model.get_rt_info(place).value if model.has_rt_info(place) else None)


def _port(port: Any) -> Port:  # noqa: ANN401
    element = port.get_element_type().get_type_name()
    shape = port.get_partial_shape()
    sides = [side.get_length() if side.is_static else None for side in shape] if shape.rank.is_static else []
    return Port(tuple(sides), "float32" if element == "f32" else element)


def _reason(error: Exception) -> str:
    """Return the line of OpenVINO's report that says what is wrong, not where in its source."""
    places = ("Exception from ", "Check '", "FrontEnd API failed", "Loading input model")
    lines = [line for line in str(error).splitlines() if line and not line.startswith(places)]
    unknown = [line for line in lines if line.startswith("-- No conversion rule found")]  # stands last, says most
    return (unknown + lines)[0].removeprefix("-- ") if lines else first_line(error)
