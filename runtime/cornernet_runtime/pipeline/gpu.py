"""Frames to detections on a GPU: one captured graph for each set of input sizes and number of frames."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.backends.cuda_graphs import ShapeGraphs
from cornernet_runtime.detections import Detections
from cornernet_runtime.geometry import place, usable_scales
from cornernet_runtime.kernels import decode, preprocess, soft_nms
from cornernet_runtime.kernels.candidates import CandidateMemory
from cornernet_runtime.kernels.decode import DeviceMaps, ViewPlacement
from cornernet_runtime.kernels.device import LoadedKernels
from cornernet_runtime.kernels.preprocess import DeviceFrame, View
from cornernet_runtime.kernels.soft_nms import DetectionMemory
from cornernet_runtime.maps import OUTPUT_NAMES
from cornernet_runtime.pipeline.frames import take_frame
from cornernet_runtime.pipeline.memory import DeviceBlock, Mirror
from cornernet_runtime.pipeline.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.backends.device_network import DeviceNetwork
    from cornernet_runtime.geometry import Placement
    from cornernet_runtime.kernels.launch import Launch
    from cornernet_runtime.pipeline.frames import Frame
    from cornernet_runtime.pipeline.plan import Batch
    from cornernet_runtime.spec import ModelSpec

SOURCES = ("preprocess", "decode", "soft_nms")
VIEW_BYTES, PLACEMENT_BYTES = ctypes.sizeof(View), ctypes.sizeof(ViewPlacement)
ALIGNMENT = 256
ANYWHERE = ALIGNMENT  # an address, where only sizes are asked for


class GpuPipeline:
    """A network with preprocessing, decode and suppression around it, all on one stream of a GPU.

    Frames are copied to pinned memory and from there to the device. All that follows is one CUDA graph for each set of
    input sizes and number of frames: where the frames lie is uploaded, the network's input is written, the network
    runs, its maps become detections, and these are copied back. Memory grows to the largest work and stays; nothing is
    allocated for a frame after the first of its kind. One pipeline serves one thread.

    Args:
        device: Runs everything.
        network: Runs between the kernels. It remains the caller's, and its stream is the device's.
        spec: How to use it.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        kernels: Of the device; by default they are compiled or found in the usual cache.

    Raises:
        BackendError: The decode or suppression of ``spec`` exceeds what the kernels keep, or there is no memory.
        KernelError: The kernels cannot be compiled or loaded.
        SizeError: The scales are no distinct positive numbers.
    """

    def __init__(
        self,
        device: CudaDevice,
        network: DeviceNetwork,
        spec: ModelSpec,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        kernels: LoadedKernels | None = None,
    ) -> None:
        self._device, self._network, self._spec = device, network, spec
        self._flip, self._scales = flip, usable_scales(scales, spec)
        self._largest = network.max_batch
        self._kernels = kernels or LoadedKernels(device)
        views = len(self._scales) * (2 if flip else 1)
        self._room_for(Plan((spec.input_size,) * views, 1))  # what the kernels cannot keep is told before frames come
        self._kernels.prepare(SOURCES)
        self._frames = Mirror(device, "frames")
        self._places = Mirror(device, "where frames lie")
        self._found = Mirror(device, "detections")
        self._candidates = DeviceBlock(device, "candidates")
        self._workspace = DeviceBlock(device, "the workspace of decode and suppression")
        self._table = Mirror(device, "normalised levels")
        self._fill_table()
        self._graphs: ShapeGraphs[Plan] = ShapeGraphs(device.stream, self._prepare)
        self._fitting: set[Plan] = set()

    def __call__(self, frames: Sequence[object]) -> list[Detections]:
        """Detect the objects of several frames, of any sizes, in as few runs as possible.

        Args:
            frames: uint8 [H, W, 3], BGR, as for ``frames.take_frame``: NumPy arrays, which are uploaded, or arrays of
                other libraries on this device, which are read where they lie, and not kept.

        Returns:
            The detections of each, in pixels of it, best first, at most ``spec.nms.max_detections``.

        Raises:
            FrameError: A frame has another shape or type; nothing was run.
            SizeError: The network does not take the input size that a frame needs.
            BackendError: The network or a kernel cannot be run, or there is too little memory.
        """
        taken = [take_frame(frame, self._device) for frame in frames]
        views = [place(frame.size, self._spec, self._scales, flip=self._flip) for frame in taken]
        alike: dict[tuple[tuple[int, int], ...], list[int]] = {}
        for number, own in enumerate(views):
            alike.setdefault(tuple(view.input_size for view in own), []).append(number)
        found: dict[int, Detections] = {}
        for sizes, numbers in alike.items():
            for size in sizes:
                self._spec.check_input_size(size)
            together = max(1, self._largest // len(sizes))
            for start in range(0, len(numbers), together):
                some = numbers[start : start + together]
                plan = Plan(sizes, len(some))
                results = self._run(plan, [taken[number] for number in some], [views[number] for number in some])
                found.update(zip(some, results, strict=True))
        return [found[number] for number in range(len(taken))]

    def close(self) -> None:
        """Let go of graphs and memory; the network remains."""
        self._device.stream.sync()
        self._graphs.close()
        for memory in (self._frames, self._places, self._found, self._candidates, self._workspace, self._table):
            memory.close()

    def _run(self, plan: Plan, frames: Sequence[Frame], views: Sequence[Sequence[Placement]]) -> list[Detections]:
        self._make_room(plan)
        self._write_places(plan, self._upload(frames), views)
        self._graphs.run(plan)
        self._device.stream.sync()
        memory = self._detections(plan)
        block = self._found.host.bytes[: memory.nbytes].copy()
        return [Detections(*memory.read(block, frame), self._spec.class_names) for frame in range(plan.frames)]

    def _upload(self, frames: Sequence[Frame]) -> list[DeviceFrame]:
        """Enqueue the upload of frames; while one is under way the next is copied to pinned memory.

        Returns:
            Where each lies, also those that were on the device.
        """
        places, end = [], 0
        for frame in frames:
            places.append(end)
            end += 0 if frame.pixels is None else -(-frame.pixels.size // ALIGNMENT) * ALIGNMENT
        self._frames.reserve(end)
        found = []
        for frame, start in zip(frames, places, strict=True):
            lying = frame.lying
            if frame.pixels is not None:
                size = frame.pixels.size
                np.copyto(self._frames.host.bytes[start : start + size].reshape(frame.pixels.shape), frame.pixels)
                self._frames.upload(start, size)
                lying = DeviceFrame(self._frames.device.address + start, frame.size, 3 * frame.size[1])
            if lying is not None:
                found.append(lying)
        return found

    def _write_places(self, plan: Plan, frames: Sequence[DeviceFrame], views: Sequence[Sequence[Placement]]) -> None:
        """Write to pinned memory what the kernels have to know of each view, in the order of the batches."""
        start = self._places.host.address
        of_preprocess = (View * plan.views).from_address(start)
        of_decode = (ViewPlacement * plan.views).from_address(start + plan.views * VIEW_BYTES)
        numbers = (number for batch in plan.batches(self._largest) for number in batch.views)
        for index, number in enumerate(numbers):
            frame, view = divmod(number, len(plan.sizes))
            placement = views[frame][view]
            of_preprocess[index] = preprocess.describe(frames[frame], placement, self._spec.normalisation)
            of_decode[index] = decode.describe(placement, self._spec.stride)

    def _prepare(self, plan: Plan) -> Callable[[], None]:
        """Return what enqueues everything behind the upload of the frames."""
        steps = [self._look(plan, batch) for batch in plan.batches(self._largest)]
        detections = self._detections(plan)
        suppression = soft_nms.soft_nms(
            self._candidate_memory(plan),
            len(self._spec.class_names),
            self._spec.nms,
            detections,
            self._workspace.address,
            self._workspace.size,
            merging=len(self._scales) > 1,
        )
        stream = self._device.handle

        def enqueue() -> None:
            self._places.upload(0, plan.views * (VIEW_BYTES + PLACEMENT_BYTES))
            for step in steps:
                self._kernels.launch(step.before, stream)
                step.network(stream)
                self._kernels.launch(step.after, stream)
            self._kernels.launch(suppression, stream)
            self._found.download(0, detections.nbytes)

        return enqueue

    def _look(self, plan: Plan, batch: Batch) -> _Step:
        """Return what turns a batch of views into candidates."""
        images = len(batch.views)
        bound = self._network.bind((self._network.smallest_batch((images, 3, *batch.size)), 3, *batch.size))
        views = self._places.device.address + batch.first * VIEW_BYTES
        placements = self._places.device.address + plan.views * VIEW_BYTES + batch.first * PLACEMENT_BYTES
        before = preprocess.preprocess(
            views, self._table.device.address, bound.input, (images, 3, *batch.size), half=bound.half
        )
        after: list[Launch] = []
        for first, view, length in batch.runs():
            after += decode.decode(
                _part(bound.maps, first, length),
                self._spec.decode,
                placements + first * PLACEMENT_BYTES,
                self._candidate_memory(plan),
                self._workspace.address,
                self._workspace.size,
                view,
            )
        return _Step(before, bound.enqueue, after)

    def _make_room(self, plan: Plan) -> None:
        """Grow memory that graphs know to what a plan needs; graphs of before are void then."""
        if plan in self._fitting:
            return
        room = self._room_for(plan)
        blocks: tuple[Mirror | DeviceBlock, ...] = (self._places, self._found, self._candidates, self._workspace)
        if any(size > block.size for block, size in zip(blocks, room, strict=True)):
            self._device.stream.sync()
            self._graphs.close()
            self._fitting.clear()
            for block, size in zip(blocks, room, strict=True):
                block.reserve(size)
        self._fitting.add(plan)

    def _room_for(self, plan: Plan) -> tuple[int, int, int, int]:
        """Return bytes of places, detections, candidates and workspace.

        Raises:
            BackendError: The kernels cannot keep so much.
        """
        classes = len(self._spec.class_names)
        candidates = CandidateMemory(ANYWHERE, plan.views, self._spec.decode.candidates)
        detections = DetectionMemory(ANYWHERE, plan.frames, self._spec.nms.max_detections)
        workspace = soft_nms.workspace_bytes(candidates, plan.frames, classes, self._spec.nms)
        for batch in plan.batches(self._largest):
            rows, columns = ((side + 1) // self._spec.stride for side in batch.size)
            maps = (len(batch.views), classes, rows, columns)
            workspace = max(workspace, decode.workspace_bytes(maps, self._spec.decode))
        return plan.views * (VIEW_BYTES + PLACEMENT_BYTES), detections.nbytes, candidates.nbytes, workspace

    def _candidate_memory(self, plan: Plan) -> CandidateMemory:
        return CandidateMemory(self._candidates.address, plan.views, self._spec.decode.candidates)

    def _detections(self, plan: Plan) -> DetectionMemory:
        return DetectionMemory(self._found.device.address, plan.frames, self._spec.nms.max_detections)

    def _fill_table(self) -> None:
        table = preprocess.level_table(self._spec.normalisation)
        self._table.reserve(table.nbytes)
        self._table.host.bytes[:] = np.ascontiguousarray(table).view(np.uint8).reshape(-1)
        self._table.upload(0, table.nbytes)
        self._device.stream.sync()


@dataclass(frozen=True, slots=True)
class _Step:
    """A batch of views: launches, the network, launches."""

    before: list[Launch]
    network: Callable[[int], None]
    after: list[Launch]


def _part(maps: DeviceMaps, first: int, images: int) -> DeviceMaps:
    """Return the maps of some images of a batch."""
    _, classes, height, width = maps.shape
    channels = {"heat": classes, "embed": 1, "offset": 2}
    addresses = {}
    for name in OUTPUT_NAMES:
        kind = name.split("_")[1]
        element = np.dtype(maps.heat_type if kind == "heat" else maps.place_type).itemsize
        addresses[name] = getattr(maps, name) + first * channels[kind] * height * width * element
    return replace(maps, **addresses, shape=(images, classes, height, width))
