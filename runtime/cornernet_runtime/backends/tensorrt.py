"""TensorRT: runs the engine of a bundle, NumPy arrays in and out."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any, Self

from cornernet_runtime.backends.cuda_device import CudaDevice, host_floats
from cornernet_runtime.backends.cuda_graphs import ShapeGraphs
from cornernet_runtime.backends.tensorrt_engine import FLOAT_BYTES, TensorRTNetwork
from cornernet_runtime.backends.tensorrt_log import import_tensorrt
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps, output_channels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.engine_record import EngineRecord, Shape
    from cornernet_runtime.bundle.spec import ModelSpec


class TensorRTBackend:
    """An engine with one stream, and with buffers on the device and in pinned memory that are allocated once.

    Upload, network and download are one CUDA graph for each shape. One backend serves one thread.

    Args:
        path: The plan.
        spec: How to use it.
        record: What it needs.
        allow_code: Whether a portable plan, which carries executable code, may be opened.
        plugin: Library of the plugin; None looks at the usual places.

    Attributes:
        device: Runs it.
        network: The engine, for a pipeline on the same device that needs no pictures or maps on the host.

    Raises:
        BackendError: TensorRT or cuda.core is not installed, or the engine cannot run on this machine.
        ModelError: The plan is no CornerNet of ours.
        PluginError: The plugin that it needs is none.
    """

    name = "tensorrt"

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        record: EngineRecord,
        *,
        allow_code: bool = False,
        plugin: Path | None = None,
    ) -> None:
        import_tensorrt()  # what is missing first is named first
        self.spec = spec
        self.device = CudaDevice()
        self.network = TensorRTNetwork(
            path,
            spec,
            record,
            self.device,
            allow_code=allow_code,
            plugin=plugin,
            rebuild=rebuild_command(path.parent, record),
        )
        self.max_batch = self.network.max_batch
        self._allocate()

    def __call__(self, images: NDArray[np.float32]) -> CornerMaps:
        """Run the network on float32 [N, 3, H, W]; the maps are views of pinned memory, valid until the next call.

        Raises:
            SizeError: No profile of the engine takes this shape.
            BackendError: TensorRT refuses.
        """
        self.device.make_current()
        count, depth, height, width = images.shape
        self.spec.check_input_size((height, width))
        batch = self.network.smallest_batch((count, depth, height, width))
        host_floats(self._host_input, images.size)[:] = images.reshape(-1)
        self._graphs.run((batch, depth, height, width))
        self.device.wait(self.device.stream)
        rows, columns = (height + 1) // self.spec.stride, (width + 1) // self.spec.stride
        maps = []
        for name, channels in output_channels(self.spec).items():
            shape = (count, channels, rows, columns)
            maps.append(host_floats(self._host_outputs[name], math.prod(shape)).reshape(shape))
        return CornerMaps(*maps)

    def clone(self) -> Self:
        """Return a backend of the same engine, on a stream and in memory of its own, for another thread.

        Raises:
            BackendError: There is too little memory.
        """
        other = copy.copy(self)
        other.device = CudaDevice(self.device.number)
        other.network = self.network.clone(other.device)
        other._allocate()  # noqa: SLF001 - of this class
        return other

    def close(self) -> None:
        """Let go of graphs, engine and memory."""
        self.device.wait(self.device.stream)
        self._graphs.close()
        self.network.close()
        for buffer in (self._host_input, *self._host_outputs.values()):
            buffer.close()

    def _allocate(self) -> None:
        self._host_input = self._pinned(self.network.input)
        self._host_outputs = {name: self._pinned(buffer) for name, buffer in self.network.outputs.items()}
        self._graphs: ShapeGraphs[Shape] = ShapeGraphs(self.device.stream, self._prepare)

    def _pinned(self, buffer: Any) -> Any:  # noqa: ANN401 - cuda.core is an extra
        return self.device.allocate_pinned(int(buffer.size), "the host's side of the network's input and outputs")

    def _prepare(self, shape: Shape) -> Callable[[], None]:
        """Return what enqueues upload, network and download of one shape."""
        bound = self.network.bind(shape)
        pairs = [(self._host_input, self.network.input, shape)]
        pairs += [
            (self.network.outputs[name], self._host_outputs[name], bound.output_shapes[name]) for name in OUTPUT_NAMES
        ]
        parts = [
            (self.device.part(source, size), self.device.part(target, size))
            for source, target, own in pairs
            for size in [math.prod(own) * FLOAT_BYTES]
        ]
        upload, downloads = parts[0], parts[1:]
        stream = self.device.stream

        def enqueue() -> None:
            source, target = upload
            target.copy_from(source, stream=stream)
            bound.enqueue(self.device.handle)
            for source, target in downloads:
                target.copy_from(source, stream=stream)

        return enqueue


def rebuild_command(folder: Path, record: EngineRecord) -> str:
    """Return the command that builds a bundle's engine again on the machine it is typed on, from its ONNX file."""
    flags = ["--require-plugin"] if record.plugin is not None else []
    flags += ["--portable"] if record.portable else []
    flags += ["--tf32"] if record.tf32 else []
    if record.hardware_compatibility != "none":
        flags.append(f"--hardware-compatibility {record.hardware_compatibility}")
    return " ".join(["cornernet-export", str(folder), "--engine", *flags])
