"""What the GPU does behind the upload of frames: one captured graph for each plan, on memory that all plans share."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.backends.cuda_graphs import ShapeGraphs
from cornernet_runtime.kernels import decode, preprocess, soft_nms
from cornernet_runtime.kernels.candidates import CandidateMemory
from cornernet_runtime.kernels.decode import DeviceMaps, ViewPlacement
from cornernet_runtime.kernels.preprocess import View
from cornernet_runtime.kernels.soft_nms import DetectionMemory
from cornernet_runtime.pipeline.memory import DeviceBlock, PinnedBlock
from cornernet_runtime.pipeline.plan import Plan
from cornernet_runtime.processing.maps import OUTPUT_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.backends.device_network import DeviceNetwork
    from cornernet_runtime.bundle.spec import ModelSpec
    from cornernet_runtime.kernels.device import LoadedKernels
    from cornernet_runtime.kernels.launch import Launch
    from cornernet_runtime.kernels.preprocess import DeviceFrame
    from cornernet_runtime.pipeline.plan import Batch
    from cornernet_runtime.processing.geometry import Placement

    Stage = tuple[str, Callable[[], None]]

VIEW_BYTES, PLACEMENT_BYTES = ctypes.sizeof(View), ctypes.sizeof(ViewPlacement)
ANYWHERE = 256  # an address, where only sizes are asked for


class PlanWork:
    """Preprocessing, network, decode and suppression, enqueued on the device's stream.

    A graph reads where frames lie from one place of the device, and leaves detections at another, whichever frames it
    is for: the two small copies from and to the host, whose memory is another for each run under way, stand outside of
    it. They cost two calls of the driver, some microseconds of the host, while the GPU is at the run before. Inside,
    they would need a graph for each plan and each such memory: as many first runs that are waited for, captures of
    hundreds of launches, and instances in the GPU's memory, and half the plans kept.

    Args:
        device: Runs it.
        network: Runs between the kernels.
        spec: How to use it.
        views: Of a frame.
        merging: Whether the boxes of several views are merged.
        kernels: Of the device.

    Raises:
        BackendError: The decode or suppression of ``spec`` exceeds what the kernels keep, or there is no memory.
        KernelError: The kernels cannot be compiled or loaded.
    """

    def __init__(
        self,
        device: CudaDevice,
        network: DeviceNetwork,
        spec: ModelSpec,
        views: int,
        kernels: LoadedKernels,
        *,
        merging: bool,
    ) -> None:
        self._device, self._network, self._spec = device, network, spec
        self._merging, self._kernels = merging, kernels
        self._largest = network.max_batch
        self._room_for(Plan((spec.input_size,) * views, 1))  # what the kernels cannot keep is told before frames come
        kernels.prepare(("preprocess", "decode", "soft_nms"))
        self._places = DeviceBlock(device, "where frames lie")
        self._found = DeviceBlock(device, "detections")
        self._candidates = DeviceBlock(device, "candidates")
        self._workspace = DeviceBlock(device, "the workspace of decode and suppression")
        self._table = DeviceBlock(device, "normalised levels")
        self._fill_table()
        self._graphs: ShapeGraphs[Plan] = ShapeGraphs(device.stream, self._prepare, what="the GPU pipeline")
        self._fitting: set[Plan] = set()

    def make_room(self, plan: Plan) -> None:
        """Grow memory that graphs know to what a plan needs; graphs of before are void then, and are waited for.

        Raises:
            BackendError: There is no memory, or the kernels cannot keep so much.
        """
        if plan in self._fitting:
            return
        room = self._room_for(plan)
        blocks = (self._places, self._found, self._candidates, self._workspace)
        if any(size > block.size for block, size in zip(blocks, room, strict=True)):
            self._device.wait(self._device.stream)
            self._graphs.close()
            self._fitting.clear()
            for block, size in zip(blocks, room, strict=True):
                block.reserve(size)
        self._fitting.add(plan)

    def describe(
        self, plan: Plan, frames: Sequence[DeviceFrame], views: Sequence[Sequence[Placement]], pinned: PinnedBlock
    ) -> None:
        """Write what the kernels have to know of each view, in the order of the batches, for ``upload``."""
        pinned.reserve(_places_bytes(plan))
        of_preprocess = (View * plan.views).from_address(pinned.address)
        of_decode = (ViewPlacement * plan.views).from_address(pinned.address + plan.views * VIEW_BYTES)
        numbers = (number for batch in plan.batches(self._largest) for number in batch.views)
        for index, number in enumerate(numbers):
            frame, view = divmod(number, len(plan.sizes))
            placement = views[frame][view]
            of_preprocess[index] = preprocess.describe(frames[frame], placement, self._spec.normalisation)
            of_decode[index] = decode.describe(placement, self._spec.stride)

    def upload(self, plan: Plan, pinned: PinnedBlock) -> None:
        """Enqueue the copy of what was described, for ``run``."""
        self._places.copy(pinned, 0, _places_bytes(plan), self._device.stream)

    def run(self, plan: Plan) -> None:
        """Enqueue the work of a plan for which there is room; wait only for its first run, which is captured then."""
        self._graphs.run(plan)

    def download(self, plan: Plan, pinned: PinnedBlock) -> None:
        """Enqueue the copy of what ``run`` found, which lies as ``detections`` says."""
        size = self.detections(plan).nbytes
        pinned.reserve(size)
        pinned.copy(self._found, 0, size, self._device.stream)

    def stages(self, plan: Plan) -> list[Stage]:
        """Return the work of a plan, in order: a stage's name and what enqueues it; a name may come again."""
        found: list[Stage] = []
        for batch in plan.batches(self._largest):
            found += self._look(plan, batch)
        suppression = soft_nms.soft_nms(
            self._candidate_memory(plan),
            len(self._spec.class_names),
            self._spec.nms,
            self.detections(plan),
            self._workspace.address,
            self._workspace.size,
            merging=self._merging,
        )
        return [*found, ("soft_nms", self._launching(suppression))]

    def detections(self, plan: Plan) -> DetectionMemory:
        """Return how detections lie on the device, and in the block that they are copied to."""
        return DetectionMemory(self._found.address, plan.frames, self._spec.nms.max_detections)

    def close(self) -> None:
        """Let go of graphs and memory; the stream must have nothing left to do."""
        self._graphs.close()
        for memory in (self._places, self._found, self._candidates, self._workspace, self._table):
            memory.close()

    def _prepare(self, plan: Plan) -> Callable[[], None]:
        stages = self.stages(plan)

        def enqueue() -> None:
            for _, stage in stages:
                stage()

        return enqueue

    def _look(self, plan: Plan, batch: Batch) -> list[Stage]:
        """Return what turns a batch of views into candidates."""
        images = len(batch.views)
        bound = self._network.bind((self._network.smallest_batch((images, 3, *batch.size)), 3, *batch.size))
        views = self._places.address + batch.first * VIEW_BYTES
        placements = self._places.address + plan.views * VIEW_BYTES + batch.first * PLACEMENT_BYTES
        before = preprocess.preprocess(
            views, self._table.address, bound.input, (images, 3, *batch.size), half=bound.half
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
        return [
            ("preprocess", self._launching(before)),
            ("network", partial(bound.enqueue, self._device.handle)),
            ("decode", self._launching(after)),
        ]

    def _launching(self, launches: list[Launch]) -> Callable[[], None]:
        return partial(self._kernels.launch, launches, self._device.handle)

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
        return _places_bytes(plan), detections.nbytes, candidates.nbytes, workspace

    def _candidate_memory(self, plan: Plan) -> CandidateMemory:
        return CandidateMemory(self._candidates.address, plan.views, self._spec.decode.candidates)

    def _fill_table(self) -> None:
        table = preprocess.level_table(self._spec.normalisation)
        self._table.reserve(table.nbytes)
        pinned = PinnedBlock(self._device, "normalised levels")
        pinned.reserve(table.nbytes)
        pinned.bytes[:] = np.ascontiguousarray(table).view(np.uint8).reshape(-1)
        self._table.copy(pinned, 0, table.nbytes, self._device.stream)
        self._device.wait(self._device.stream)
        pinned.close()


def _places_bytes(plan: Plan) -> int:
    return plan.views * (VIEW_BYTES + PLACEMENT_BYTES)


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
