"""The way of frames from the reader through the workers to the consumer: bounded, in order, and stopped as one."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.video.frame import VideoFrame


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame that was read, and when (``time.perf_counter``)."""

    frame: VideoFrame
    arrived: float


@dataclass(frozen=True, slots=True)
class Work:
    """Frames that a worker took, the number of the first, and when."""

    first: int
    waiting: list[Waiting]
    started: float


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a frame, when a worker took it, and when that was done."""

    frame: VideoFrame
    detections: Detections
    arrived: float
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames that were read, of these dropped, and given to the consumer."""

    read: int
    dropped: int
    given: int


class Line:
    """Frames on their way; each method is for the threads of one station, and all may be called at once.

    A frame that a worker takes gets the next number, and results leave by number. An error has a number too, so that
    what came before it is given first. After ``stop`` every method returns at once.

    Args:
        room: Frames that may wait for a worker.
        ahead: Frames that may be with workers or done, and not yet given.
        newest: Whether a frame that finds no room pushes the oldest out, instead of waiting itself.
    """

    def __init__(self, room: int, ahead: int, *, newest: bool) -> None:
        self._room, self._ahead, self._newest = room, ahead, newest
        self._changed = threading.Condition()
        self._waiting: deque[Waiting] = deque()
        self._done: dict[int, Done | BaseException] = {}
        self._read = self._dropped = self._taken = self._given = 0
        self._reading, self._stopped = True, False
        self._failed = False  # some worker; no frame is taken any more
        self._reader_error: BaseException | None = None

    # For the reader.

    def put(self, frame: VideoFrame) -> bool:
        """Let a frame wait; return whether more are wanted."""
        arrived = time.perf_counter()
        with self._changed:
            self._read += 1
            if self._newest and len(self._waiting) >= self._room:
                self._waiting.popleft()
                self._dropped += 1
            self._changed.wait_for(lambda: len(self._waiting) < self._room or self._over)
            if self._over:
                self._dropped += 1
                return False
            self._waiting.append(Waiting(frame, arrived))
            self._changed.notify_all()
            return True

    def end(self, error: BaseException | None = None) -> None:
        """Say that no frame comes any more, for a reason that the consumer is told after the last result."""
        with self._changed:
            self._reading, self._reader_error = False, error
            self._changed.notify_all()

    # For workers.

    def take(self, limit: int, *, wait: bool = True) -> Work | None:
        """Return up to ``limit`` frames as soon as one waits; None where there is none, now or any more."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._can_take or self._over or self._exhausted)
            if self._over or not self._can_take:
                return None
            count = min(limit, len(self._waiting), self._ahead - (self._taken - self._given))
            taken = [self._waiting.popleft() for _ in range(count)]
            first, self._taken = self._taken, self._taken + count
            self._changed.notify_all()
            return Work(first, taken, time.perf_counter())

    def finish(self, work: Work, found: list[Detections]) -> None:
        """Hand in what was found in the frames of some work."""
        now = time.perf_counter()
        with self._changed:
            if self._stopped:
                return
            for number, (waiting, detections) in enumerate(zip(work.waiting, found, strict=True), start=work.first):
                self._done[number] = Done(waiting.frame, detections, waiting.arrived, work.started, now)
            self._changed.notify_all()

    def fail(self, work: Work | None, error: BaseException) -> None:
        """Say that some work failed, or that a worker did before it took any."""
        with self._changed:
            self._failed = True
            self._done.setdefault(self._taken if work is None else work.first, error)
            self._changed.notify_all()

    # For the consumer.

    def next(self) -> Done | None:
        """Wait for the next result and return it, or None at the end.

        Raises:
            BaseException: What ended the line, once.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._given in self._done or self._stopped or self._all_given)
            if self._stopped:
                return None
            item = self._done.pop(self._given, None)
            if isinstance(item, Done):
                self._given += 1
                self._changed.notify_all()
                return item
            error, self._reader_error = item or self._reader_error, None
        if error is not None:
            raise error
        return None

    def stop(self) -> None:
        """Let every thread end, and drop what is on its way."""
        with self._changed:
            if not self._stopped:
                self._dropped += self._taken - self._given + len(self._waiting)
                self._stopped = True
                self._waiting.clear()
                self._done.clear()
                self._changed.notify_all()

    def counts(self) -> Counts:
        """Return how many frames went where so far."""
        with self._changed:
            return Counts(self._read, self._dropped, self._given)

    @property
    def _over(self) -> bool:
        return self._stopped or self._failed

    @property
    def _can_take(self) -> bool:
        return bool(self._waiting) and self._taken - self._given < self._ahead

    @property
    def _exhausted(self) -> bool:
        return not self._reading and not self._waiting

    @property
    def _all_given(self) -> bool:
        return self._exhausted and self._taken == self._given
