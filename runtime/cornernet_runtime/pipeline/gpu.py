"""Frames to detections on a GPU: uploads beside the runs, one captured graph for each set of input sizes."""

from __future__ import annotations

import contextlib
from functools import partial
from itertools import count, pairwise
from typing import TYPE_CHECKING

from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.errors import BackendError
from cornernet_runtime.kernels.device import LoadedKernels
from cornernet_runtime.pipeline.frames import take_frame
from cornernet_runtime.pipeline.plan import Plan
from cornernet_runtime.pipeline.ring import Pending, Ring, Run
from cornernet_runtime.pipeline.work import PlanWork
from cornernet_runtime.processing.geometry import place, usable_scales

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.backends.device_network import DeviceNetwork
    from cornernet_runtime.bundle.spec import ModelSpec, Size
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.pipeline.frames import Frame
    from cornernet_runtime.pipeline.ring import Slot
    from cornernet_runtime.pipeline.work import Stage
    from cornernet_runtime.processing.geometry import Placement

    Looks = Sequence[tuple[Frame, Sequence[Placement]]]  # a frame, and its views

STAGES = ("upload", "preprocess", "network", "decode", "soft_nms", "download")
LEAD = 4  # runs that keep the GPU busy while one is enqueued piece by piece, to be timed


class GpuPipeline:
    """A network with preprocessing, decode and suppression around it, on a GPU.

    Frames are copied to pinned memory and from there to the device, on a stream of their own: while the GPU is at one
    run, the frames of the next are uploaded. All else is on the device's stream: where the frames lie is uploaded, one
    CUDA graph for each set of input sizes and number of frames makes the network's input, its maps and the detections,
    and these are copied back. Memory grows to the largest work and stays; nothing is allocated for a frame after the
    first of its kind. One pipeline serves one thread at a time.

    Args:
        device: Runs everything.
        network: Runs between the kernels. It remains the caller's, and its stream is the device's.
        spec: How to use it.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        kernels: Of the device; by default they are compiled or found in the usual cache.
        depth: How many runs can be under way. Each has memory of its own for frames and detections; the network's is
            that of one.

    Attributes:
        kernels: Of the device; another pipeline on it may share them.
        depth: As given.

    Raises:
        BackendError: The decode or suppression of ``spec`` exceeds what the kernels keep, there is no memory, or
            ``depth`` is below 1.
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
        depth: int = 2,
    ) -> None:
        device.make_current()
        self._device, self._spec = device, spec
        self._flip, self._scales = flip, usable_scales(scales, spec)
        self._largest = network.max_batch
        self.kernels = kernels or LoadedKernels(device)
        views = len(self._scales) * (2 if flip else 1)
        merging = len(self._scales) > 1
        self.depth = depth
        self._ring = Ring(device, depth)
        self._work = PlanWork(device, network, spec, views, self.kernels, merging=merging)
        self._numbers = count()

    def __call__(self, frames: Sequence[object]) -> list[Detections]:
        """Detect the objects of several frames, and wait for them; as ``submit`` and ``Pending.result``."""
        return self.submit(frames).result()

    def submit(self, frames: Sequence[object]) -> Pending:
        """Let the GPU detect the objects of several frames, of any sizes, in as few runs as possible.

        If as many runs are under way as there may be, the oldest is waited for first; its ``Pending`` has its
        detections then. The first run of a set of input sizes and number of frames is waited for as well.

        Args:
            frames: uint8 [H, W, 3], BGR, as for ``frames.take_frame``: NumPy arrays, which are uploaded and may be
                overwritten at once, or arrays of other libraries on this device, which are read where they lie, until
                there is a result; they are kept as long.

        Returns:
            What gives the detections of each, in pixels of it, best first, at most ``spec.nms.max_detections``.

        Raises:
            FrameError: A frame has another shape or type; nothing was run.
            SizeError: The network does not take the input size that a frame needs.
            BackendError: The network or a kernel cannot be run, or there is too little memory. What was submitted
                before is not affected.
        """
        self._device.make_current()
        plans = self._plans(frames)
        return Pending([(numbers, self._start(plan, looks, self._ring.take())) for plan, numbers, looks in plans])

    def time_stages(self, frames: Sequence[object]) -> dict[str, float]:
        """Return how long the GPU is at each stage of detecting, if the stages follow on one another.

        The plans of the frames are run once each outside of a graph, with events between the stages, on one stream.
        Runs of before keep the GPU busy while that is enqueued, so that times hold no gaps between launches, unless the
        network takes longer to enqueue than to run them.

        Args:
            frames: As for ``submit``.

        Returns:
            Milliseconds of upload, preprocess, network, decode, soft_nms and download, in this order, all views and
            batches summed up.

        Raises:
            CornerNetError: As ``submit``, and as ``Pending.result``.
        """
        self._device.make_current()
        spent = dict.fromkeys(STAGES, 0.0)
        for plan, _, looks in self._plans(frames):
            slot = self._ring.take()
            self._start(plan, looks, slot).result()
            for stage, milliseconds in self._time(plan, slot):
                spent[stage] += milliseconds
        return spent

    def close(self) -> None:
        """Wait for what is under way, which keeps its detections, and let go of graphs and memory, not the network."""
        self._device.make_current()
        self._ring.collect()
        self._device.wait(self._device.stream)
        self._work.close()
        self._ring.close()

    def _plans(self, frames: Sequence[object]) -> list[tuple[Plan, list[int], Looks]]:
        """Return what runs are needed, and of which frames."""
        taken = [take_frame(frame, self._device) for frame in frames]
        looks = [(frame, place(frame.size, self._spec, self._scales, flip=self._flip)) for frame in taken]
        alike: dict[tuple[Size, ...], list[int]] = {}
        for number, (_, views) in enumerate(looks):
            alike.setdefault(tuple(view.input_size for view in views), []).append(number)
        found: list[tuple[Plan, list[int], Looks]] = []
        for sizes, numbers in alike.items():
            for size in sizes:
                self._spec.check_input_size(size)
            together = max(1, self._largest // len(sizes))
            for start in range(0, len(numbers), together):
                some = numbers[start : start + together]
                found.append((Plan(sizes, len(some)), some, [looks[number] for number in some]))
        return found

    def _start(self, plan: Plan, looks: Looks, slot: Slot) -> Run:
        """Enqueue a run; the slot has it until it is collected."""
        self._work.make_room(plan)
        with self._settled():
            lying = slot.upload([frame for frame, _ in looks])
            self._work.describe(plan, lying, [views for _, views in looks], slot.places)
            self._work.upload(plan, slot.places)
            self._work.run(plan)
            self._work.download(plan, slot.found)
            owners = [frame.owner for frame, _ in looks]
            memory = self._work.detections(plan)
            run = Run(next(self._numbers), slot, memory, self._spec.class_names, owners)
            slot.begin(run)
        return run

    def _time(self, plan: Plan, slot: Slot) -> list[tuple[str, float]]:
        """Return the stages of a plan whose frames the slot holds, and milliseconds."""

        def upload() -> None:
            slot.upload_again()
            self._work.upload(plan, slot.places)

        stages: list[Stage] = [("upload", upload), *self._work.stages(plan)]
        stages.append(("download", partial(self._work.download, plan, slot.found)))
        marks = [self._device.new_event(timed=True) for _ in range(len(stages) + 1)]
        with self._settled():
            with PREPARATION:
                for _, enqueue in stages:  # the first run of a network that was bound prepares it
                    enqueue()
                self._device.wait(self._device.stream)
            for _ in range(LEAD):
                self._work.run(plan)
            self._device.stream.record(marks[0])
            for (_, enqueue), mark in zip(stages, marks[1:], strict=True):
                enqueue()
                self._device.stream.record(mark)
            self._device.wait(marks[-1])
        return [(name, end - start) for (name, _), (start, end) in zip(stages, pairwise(marks), strict=True)]

    @contextlib.contextmanager
    def _settled(self) -> Iterator[None]:
        """Before an error goes on, wait for what was enqueued: it uses the slot's memory and the caller's frames."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(BackendError):  # the error that goes on is the first
                self._ring.wait()
                self._device.wait(self._device.stream)
            raise
