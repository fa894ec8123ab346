"""Slots of memory for runs that are under way at the same time, and what those runs find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_runtime.detections import Detections
from cornernet_runtime.errors import BackendError
from cornernet_runtime.kernels.preprocess import DeviceFrame
from cornernet_runtime.pipeline.memory import DeviceBlock, PinnedBlock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.kernels.soft_nms import DetectionMemory
    from cornernet_runtime.pipeline.frames import Frame

ALIGNMENT = 256


class Pending:
    """Detections that the GPU is about to find."""

    def __init__(self, runs: Iterable[tuple[Sequence[int], Run]]) -> None:
        self._runs = list(runs)  # which frames each has
        self._found: list[Detections] | None = None

    def result(self) -> list[Detections]:
        """Wait until the frames are done, not for those submitted later, and return the detections of each.

        It may be called more than once, and after the pipeline was closed; the list is the same.

        Raises:
            BackendError: The GPU failed.
        """
        if self._found is None:
            found: dict[int, Detections] = {}
            for numbers, run in self._runs:
                found.update(zip(numbers, run.result(), strict=True))
            self._found = [found[number] for number in range(len(found))]
            self._runs.clear()
        return self._found


class Slot:
    """Memory of one run. It grows to the largest work that the slot was given, and stays.

    Args:
        device: Whose.
        copies: A stream of the device that uploads frames, beside the device's own.

    Attributes:
        places: Of the host: where frames lie and go.
        found: Of the host: detections.
        run: The one that is under way, or None.
    """

    def __init__(self, device: CudaDevice, copies: Any) -> None:  # noqa: ANN401 - cuda.core is an extra
        self._device, self._copies = device, copies
        self._pinned = PinnedBlock(device, "the host's side of frames")
        self._frames = DeviceBlock(device, "frames", copies)
        self._uploaded, self._done = device.new_event(), device.new_event()
        self._used = 0
        self.places = PinnedBlock(device, "the host's side of where frames lie")
        self.found = PinnedBlock(device, "the host's side of detections")
        self.run: Run | None = None

    def upload(self, frames: Sequence[Frame]) -> list[DeviceFrame]:
        """Enqueue the upload of frames; while one is under way the next is copied to pinned memory.

        The device's stream waits for the last of them.

        Returns:
            Where each lies, also those that were on the device.

        Raises:
            BackendError: There is not so much memory.
        """
        places, self._used = [], 0
        for frame in frames:
            places.append(self._used)
            self._used += 0 if frame.pixels is None else -(-frame.pixels.size // ALIGNMENT) * ALIGNMENT
        self._frames.reserve(self._used)
        self._pinned.reserve(self._used)
        found = []
        for frame, start in zip(frames, places, strict=True):
            lying = frame.lying
            if frame.pixels is not None:
                size = frame.pixels.size
                np.copyto(self._pinned.bytes[start : start + size].reshape(frame.pixels.shape), frame.pixels)
                self._frames.copy(self._pinned, start, size, self._copies)
                lying = DeviceFrame(self._frames.address + start, frame.size, 3 * frame.size[1])
            if lying is not None:
                found.append(lying)
        if self._used:
            self._copies.record(self._uploaded)
            self._device.stream.wait(self._uploaded)
        return found

    def upload_again(self) -> None:
        """Enqueue the upload of the same frames on the device's stream, in one copy."""
        if self._used:
            self._frames.copy(self._pinned, 0, self._used, self._device.stream)

    def begin(self, run: Run) -> None:
        """Let a run have the slot, whose end is that of what the device's stream has been given so far."""
        self._device.stream.record(self._done)
        self.run = run

    def wait(self) -> None:
        """Wait for the end of the run."""
        self._device.wait(self._done)

    def close(self) -> None:
        """Let go of all memory, which nothing may be using."""
        for memory in (self._pinned, self._frames, self.places, self.found):
            memory.close()
        self._uploaded.close()
        self._done.close()


class Run:
    """What a slot is at, and what came of it.

    Args:
        number: Of the run: a later one has a larger number.
        slot: Where it runs.
        memory: How its detections lie.
        class_names: For its detections.
        owners: What keeps frames on the device; they are let go of when it is over.
    """

    def __init__(
        self, number: int, slot: Slot, memory: DetectionMemory, class_names: tuple[str, ...], owners: Sequence[object]
    ) -> None:
        self.number, self._slot = number, slot
        self._memory, self._class_names, self._owners = memory, class_names, owners
        self._found: list[Detections] = []
        self._error: BackendError | None = None

    def collect(self) -> None:
        """Wait until it is over, keep what it found, and free its slot; if the GPU failed, keep that."""
        if self._slot.run is not self:
            return
        try:
            self._slot.wait()
        except BackendError as error:
            self._error = error
        else:
            block = self._slot.found.bytes[: self._memory.nbytes].copy()
            frames = range(self._memory.frames)
            self._found = [Detections(*self._memory.read(block, frame), self._class_names) for frame in frames]
        self._owners = ()
        self._slot.run = None

    def result(self) -> list[Detections]:
        """Return the detections of each frame.

        Raises:
            BackendError: The GPU failed.
        """
        self.collect()
        if self._error is not None:
            raise self._error
        return self._found


class Ring:
    """Slots, of which each run takes one until it is collected.

    Args:
        device: Whose.
        depth: How many.

    Raises:
        BackendError: There is none.
    """

    def __init__(self, device: CudaDevice, depth: int) -> None:
        if depth < 1:
            raise BackendError(f"depth: expected 1 or more runs that are under way at once, got {depth}; 2 is usual")
        self._device, self._copies = device, device.new_stream()
        self._slots = [Slot(device, self._copies) for _ in range(depth)]

    def take(self) -> Slot:
        """Return a slot that is free; if none is, that of the oldest run, which is collected."""
        busy = [slot.run for slot in self._slots if slot.run is not None]
        if len(busy) == len(self._slots):
            min(busy, key=lambda run: run.number).collect()
        # The first, so that one slot's memory serves whoever submits only after a result.
        return next(slot for slot in self._slots if slot.run is None)

    def collect(self) -> None:
        """Wait for all runs, and keep what they found."""
        for slot in self._slots:
            if slot.run is not None:
                slot.run.collect()

    def wait(self) -> None:
        """Wait for all uploads."""
        self._device.wait(self._copies)

    def close(self) -> None:
        """Let go of all memory, which nothing may be using."""
        for slot in self._slots:
            slot.close()
        self._copies.close()
