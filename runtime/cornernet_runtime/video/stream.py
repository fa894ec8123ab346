"""Detection while frames flow: reading, detecting and what the caller does with results happen at the same time."""

from __future__ import annotations

import abc
import time
import warnings
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.errors import CornerNetError, CornerNetWarning, VideoError
from cornernet_runtime.video.lane import Done
from cornernet_runtime.video.pool import Crew
from cornernet_runtime.video.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from cornernet_runtime.detections import Detections
    from cornernet_runtime.video.detecting import FrameDetector
    from cornernet_runtime.video.frame import VideoFrame
    from cornernet_runtime.video.lane import Ended
    from cornernet_runtime.video.statistics import StreamStatistics

Policy = Literal["every", "newest"]

LARGEST_BATCH = 8  # frames that are made to wait for one another


@dataclass(frozen=True, slots=True, eq=False)
class FrameResult:
    """What was found in a frame of a stream.

    Attributes:
        frame: The frame, with its picture, index, time and source.
        detections: In pixels of the frame.
        detecting_s: Seconds from the begin of preprocessing to the boxes.
        lag_s: Seconds from reading the frame to giving this result.
    """

    frame: VideoFrame
    detections: Detections
    detecting_s: float
    lag_s: float

    @property
    def image(self) -> Any:  # noqa: ANN401 - as in VideoFrame
        """The frame's picture, uint8 [H, W, 3], BGR."""
        return self.frame.image

    @property
    def index(self) -> int:
        """Of the frame among those that its source read, from 0."""
        return self.frame.index

    @property
    def seconds(self) -> float:
        """Time of the frame on the clock of its source."""
        return self.frame.seconds


class ResultStream(abc.ABC):
    """Iterator over results, whose threads end with it, however it ends.

    Args:
        crew: Reads and detects.
        name: For errors that are not this project's.
    """

    def __init__(self, crew: Crew, name: str) -> None:
        self._crew, self._name = crew, name
        self._stop = weakref.finalize(self, crew.stop)
        self._given: tuple[Done, float] | None = None  # the last result, and when

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FrameResult:
        if self._given is not None:
            done, at = self._given
            done.lane.meter.add("consumer", time.perf_counter() - at)
            self._given = None
        try:
            while (item := self._crew.line.next()) is not None:
                if isinstance(item, Done):
                    return self._give(item)
                self._end_lane(item)
        except BaseException as error:  # an interrupt as well
            self.close()
            if isinstance(error, CornerNetError) or not isinstance(error, Exception):
                raise
            raise VideoError(f"{self._name}: {type(error).__name__}: {error}") from error
        first = self._stop.alive
        self.close()
        if first:
            self._end()
        raise StopIteration

    def close(self) -> None:
        """End the stream and wait for its threads; what is on its way is dropped."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _give(self, done: Done) -> FrameResult:
        now = time.perf_counter()
        self._given = done, now
        done.lane.meter.give(now, now - done.arrived)
        return FrameResult(done.frame, done.detections, done.finished - done.started, now - done.arrived)

    @abc.abstractmethod
    def _end_lane(self, ended: Ended) -> None:
        """Take note of the end of a source."""

    @abc.abstractmethod
    def _end(self) -> None:
        """Say at the end, once, what is to be said."""


class DetectionStream(ResultStream):
    """Iterator over the results of a source's frames, in their order.

    A thread reads. On the CPU each worker is a thread with a clone of the detector, so that one frame is prepared or
    decoded while another is in the network. A GPU has one worker, which uploads the next frames during a run; the
    detector serves the stream alone until its end.

    The stream ends with its source, and on an error in any thread, which is raised here after all results of before:
    a ``CornerNetError`` as it is, another as the cause of a ``VideoError``. It also ends by ``close``, at the end of a
    ``with`` block, on an interrupt while it waits, and when nobody refers to it any more. Then its threads have ended
    and the source is closed.

    Args:
        detector: Finds the objects; it stays open.
        source: As for ``open_source``; the stream closes it.
        policy: "every": no frame is dropped, and the source waits. "newest": a frame that no worker has taken when the
            next comes is dropped, so that results lag by what detecting one takes. By default the latter for sources
            that are live.
        workers: Threads that detect on the CPU; by default two, and one for "newest" or on one core.
        batch: Frames that one run of the network takes at most; by default what it can take, up to 8. One for "newest".

    Raises:
        VideoError: The source cannot be opened, or the policy or a number is none.
        BackendError: There is no memory for the workers' clones.
    """

    def __init__(
        self,
        detector: FrameDetector,
        source: object,
        policy: Policy | None = None,
        *,
        workers: int | None = None,
        batch: int | None = None,
    ) -> None:
        check_options(policy, workers=workers, batch=batch)
        self.source = open_source(source)
        self.policy: Policy = policy or ("newest" if self.source.live else "every")
        newest = self.policy == "newest"
        batch = 1 if newest else min(batch or LARGEST_BATCH, detector.backend.max_batch)
        lead = 0 if newest else 1
        count = workers or min(1 + lead, default_threads())
        try:
            crew = Crew(detector, batch=batch, workers=count, lead=lead)
            super().__init__(crew, self.source.name)
            self._lane = crew.read(self.source, newest=newest)
        except BaseException:
            self.source.close()
            raise
        try:
            crew.start()
        except BaseException:  # the thread that reads closes the source
            self.close()
            raise

    @property
    def name(self) -> str:
        """Of the source."""
        return self.source.name

    @property
    def statistics(self) -> StreamStatistics:
        """How the stream fares, at any time and from any thread."""
        return self._crew.statistics(self._lane)

    def close(self) -> None:
        """End the stream and wait for its threads; what is on its way is dropped."""
        super().close()
        self._lane.meter.end()

    def _end_lane(self, ended: Ended) -> None:
        if ended.error is not None:
            raise ended.error

    def _end(self) -> None:
        warn_of(self.source.problems)


def check_options(policy: str | None, **numbers: int | None) -> None:
    """Check the policy of a stream, and its numbers, which are 1 or more where they are given.

    Raises:
        VideoError: One of them is none.
    """
    if policy not in (None, "every", "newest"):
        raise VideoError(f'policy: expected "every" or "newest", got {policy!r}')
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise VideoError(f"{name}: expected 1 or more, got {value}")


def warn_of(problems: Sequence[str]) -> None:
    """Warn of what was wrong with a source's input without ending it."""
    for problem in problems:
        warnings.warn(problem, CornerNetWarning, stacklevel=4)  # the caller's loop
