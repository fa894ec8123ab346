"""The reference model on a GPU inside the pipeline: PyTorch's work on a stream that others capture.

Any GPU that PyTorch supports runs it; TensorRT is not needed.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.model.network import CornerHead, CornerTensors
from cornernet_export.model.rewrite import cut_stacks, fold_batch_norms, to_half
from cornernet_export.torch_backend.work import GpuWork, give_back_pools, told, trying_algorithms
from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError, SizeError
from cornernet_runtime.kernels.decode import DeviceMaps
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps, output_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_export.model import CornerNet
    from cornernet_export.torch_backend.work import TorchWork
    from cornernet_runtime.bundle.engine_record import Shape
    from cornernet_runtime.bundle.spec import ModelSpec

CUDA, CUDA_FP32 = "torch-cuda", "torch-cuda-fp32"
MAX_BATCH = 8
PREPARING_RUNS = 2  # the second finds the memory that the first left, and takes no more


class TorchNetwork:
    """A network in PyTorch as the pipeline wants it: input, maps and all between at addresses that stay.

    Every run is the same launches on the same memory, so it can be captured, and nothing in it waits. Convolutions in
    float32 are rounded to TF32 unless ``torch.backends.cudnn`` is told otherwise, as everywhere in PyTorch.

    Args:
        model: As ``for_gpu`` gives it, its weights on the device. They are only read, so several networks may share it.
        device: Runs it, on its stream.
        spec: How to use it.
        max_batch: Largest batch; memory of input and maps is for so many at the largest size of ``spec``.
        work: Makes what says where PyTorch works.

    Raises:
        BackendError: There is too little memory.
    """

    def __init__(
        self,
        model: CornerNet,
        device: CudaDevice,
        spec: ModelSpec,
        *,
        max_batch: int = MAX_BATCH,
        work: Callable[[CudaDevice], TorchWork] | None = None,
    ) -> None:
        self._model, self._device, self._spec = model, device, spec
        self._make_work = work or GpuWork
        self.max_batch = max_batch
        self._half = next(model.stem.parameters()).dtype == torch.float16
        self._prepared = threading.local()  # PyTorch keeps by thread which algorithms it has chosen
        inside = torch.float16 if self._half else torch.float32
        largest = (max_batch, 3, *spec.largest_size)
        sizes = {name: math.prod(self._output_shape(name, largest)) for name in OUTPUT_NAMES}
        with told("memory for the network"):
            self._work = self._make_work(device)
            there = self._work.device
            with self._work.on(device.handle):
                self._input = torch.zeros(math.prod(largest), dtype=inside, device=there)
                self._outputs = [
                    torch.zeros(size, dtype=inside if name.endswith("heat") else torch.float32, device=there)
                    for name, size in sizes.items()
                ]

    def smallest_batch(self, shape: Shape) -> int:
        """Return the batch of ``shape``: any can be run up to the largest.

        Raises:
            SizeError: It is larger.
        """
        if shape[0] > self.max_batch:
            raise SizeError(f"a batch of {shape[0]}: this network was given memory for {self.max_batch}")
        return shape[0]

    def bind(self, shape: Shape) -> BoundTorchNetwork:
        """Return the network at one shape of input, after the runs that choose algorithms and take memory.

        Raises:
            SizeError: The network does not take the shape.
            BackendError: PyTorch cannot run it.
        """
        self._spec.check_input_size((shape[2], shape[3]))
        self.smallest_batch(shape)
        images = self._input[: math.prod(shape)].view(shape)
        shapes = [self._output_shape(name, shape) for name in OUTPUT_NAMES]
        outputs = CornerTensors(
            *(memory[: math.prod(own)].view(own) for memory, own in zip(self._outputs, shapes, strict=True))
        )
        maps = DeviceMaps(
            tl_heat=outputs.tl_heat.data_ptr(),
            br_heat=outputs.br_heat.data_ptr(),
            tl_embed=outputs.tl_embed.data_ptr(),
            br_embed=outputs.br_embed.data_ptr(),
            tl_offset=outputs.tl_offset.data_ptr(),
            br_offset=outputs.br_offset.data_ptr(),
            shape=shapes[0],
            heat_type="float16" if self._half else "float32",
        )
        bound = BoundTorchNetwork(images, outputs, maps, self._model, self._work)
        self._prepare(bound, shape)
        return bound

    def run(self, images: NDArray[np.float32]) -> CornerMaps:
        """Run the network on float32 [N, 3, H, W] of the host, and wait for its maps.

        Raises:
            SizeError: As ``bind``.
            BackendError: As ``bind``.
        """
        count, depth, height, width = images.shape
        bound = self.bind((count, depth, height, width))
        with told("the network's input"), self._work.on(self._device.handle):
            bound.images.copy_(torch.from_numpy(images))
        bound.enqueue(self._device.handle)
        with told("the network"), self._work.on(self._device.handle):
            return CornerMaps(*(output.to("cpu", torch.float32, copy=True).numpy() for output in bound.outputs))

    def clone(self, device: CudaDevice) -> Self:
        """Return a network of the same weights with memory of its own, on another stream of the same GPU.

        Raises:
            BackendError: There is too little memory.
        """
        return type(self)(self._model, device, self._spec, max_batch=self.max_batch, work=self._make_work)

    def close(self) -> None:
        """Let go of the weights, which clones keep, and of all memory; the stream must have nothing left to do."""
        del self._input, self._outputs, self._model, self._work
        give_back_pools()

    def _prepare(self, bound: BoundTorchNetwork, shape: Shape) -> None:
        prepared: set[Shape] = self._prepared.__dict__.setdefault("shapes", set())
        if shape in prepared:
            return
        stream = self._device.handle
        with PREPARATION:
            with told("the network"), trying_algorithms():
                trial = replace(bound, _work=self._make_work(self._device))  # some take much memory, which goes with it
                trial.enqueue(stream)
                self._device.wait(self._device.stream)
            del trial
            give_back_pools()
            for _ in range(PREPARING_RUNS):
                bound.enqueue(stream)
            self._device.wait(self._device.stream)
        prepared.add(shape)

    def _output_shape(self, name: str, shape: Shape) -> Shape:
        rows, columns = ((side + 1) // self._spec.stride for side in shape[2:])
        return shape[0], output_channels(self._spec)[name], rows, columns


@dataclass(frozen=True, slots=True)
class BoundTorchNetwork:
    """A network that is ready to run on one shape of input.

    Attributes:
        images: The input [N, 3, H, W], contiguous.
        outputs: The six maps, contiguous.
        maps: The same as the kernels of decode read them.
    """

    images: torch.Tensor
    outputs: CornerTensors
    maps: DeviceMaps
    _model: CornerNet
    _work: TorchWork

    @property
    def input(self) -> int:
        """Address of the input."""
        return self.images.data_ptr()

    @property
    def half(self) -> bool:
        """Whether the input is float16."""
        return self.images.dtype == torch.float16

    def enqueue(self, stream: int) -> None:
        """Enqueue one run on a stream (``CUstream``), which may be one that is captured.

        Raises:
            BackendError: PyTorch refuses.
        """
        with told("the network"), self._work.on(stream), torch.inference_mode():
            found = self._model(self.images.contiguous(memory_format=torch.channels_last))
            for output, one in zip(self.outputs, found, strict=True):
                output.copy_(one)


class TorchGpuBackend:
    """The reference model on a GPU, NumPy arrays in and out.

    Args:
        network: Is the backend's to close.
        device: Runs it.
        name: Says in which precision.

    Attributes:
        device: Runs it.
        network: The same, for a pipeline on the device.
    """

    def __init__(self, network: TorchNetwork, device: CudaDevice, name: str = CUDA) -> None:
        self.network, self.device, self.name = network, device, name
        self.max_batch = network.max_batch

    def __call__(self, images: NDArray[np.float32]) -> CornerMaps:
        """Run the network on float32 [N, 3, H, W].

        Raises:
            SizeError: The network does not take the size.
            BackendError: PyTorch cannot run it.
        """
        self.device.make_current()
        return self.network.run(images)

    def clone(self) -> Self:
        """Return a backend of the same weights, on a stream and in memory of its own, for another thread.

        Raises:
            BackendError: There is too little memory.
        """
        device = CudaDevice(self.device.number)
        return type(self)(self.network.clone(device), device, self.name)

    def close(self) -> None:
        """Let go of the network, which clones keep, and of its memory."""
        self.device.wait(self.device.stream)
        self.network.close()


def open_on_gpu(
    path: Path,
    *,
    half: bool = True,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    stacks: int | None = None,
    max_batch: int = MAX_BATCH,
) -> Detector:
    """Open a checkpoint as a detector that PyTorch and our kernels run on the GPU from frame to detections.

    Args:
        path: The checkpoint.
        half: Whether to compute in float16, as ``--precision fp16`` does.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        stacks: Hourglasses to keep; None keeps all.
        max_batch: Views that the network looks at together, at most.

    Raises:
        BackendError: There is no GPU, PyTorch cannot use it, or its memory is too small.
        CheckpointError: As ``load_checkpoint``.
        ModelError: There are fewer stacks.
        SizeError: As ``Detector``.
    """
    if torch.version.cuda is None:
        raise BackendError(
            f"{CUDA}: PyTorch {torch.__version__} is built without CUDA; "
            "pip install --force-reinstall torch, or leave --backend away to use the CPU"
        )
    device = CudaDevice()
    if not torch.cuda.is_available():
        raise BackendError(
            f"{CUDA}: PyTorch {torch.__version__} is built for CUDA {torch.version.cuda} and cannot use {device.name}; "
            "update the NVIDIA driver"
        )
    checkpoint = load_checkpoint(path)
    model = checkpoint.model if stacks is None else cut_stacks(checkpoint.model, stacks)
    with PREPARATION, told("memory for the weights"):
        rewritten = for_gpu(model, half=half).to(torch.device("cuda", device.number))
        torch.cuda.synchronize(device.number)  # the network's stream does not wait for the one that copied them
    network = TorchNetwork(rewritten, device, checkpoint.spec, max_batch=max_batch)
    backend = TorchGpuBackend(network, device, CUDA if half else CUDA_FP32)
    return Detector.around(backend, checkpoint.spec, flip=flip, scales=scales)


def for_gpu(model: CornerNet, *, half: bool) -> CornerNet:
    """Return the network rewritten for tensor cores: batch norms folded away, channels last, and float16 with ``half``.

    Then the maps of heat are float16; those of embedding and offset are float32, as ``to_half`` computes them.
    """
    rewritten = fold_batch_norms(model)
    if half:
        rewritten = to_half(rewritten)
        for head in rewritten.modules():
            if isinstance(head, CornerHead):
                head.heat = nn.Sequential(*list(head.heat)[:-1])  # all but the cast to float32
    for parameter in rewritten.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return rewritten
