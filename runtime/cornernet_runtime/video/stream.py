"""Detection while frames flow: reading, detecting and what the caller does with results happen at the same time."""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.errors import CornerNetError, CornerNetWarning, VideoError
from cornernet_runtime.video.frame import state_of, stop
from cornernet_runtime.video.line import Line
from cornernet_runtime.video.sources import open_source
from cornernet_runtime.video.statistics import Meter

if TYPE_CHECKING:
    from types import TracebackType

    from cornernet_runtime.detections import Detections
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.pipeline import GpuPipeline
    from cornernet_runtime.pipeline.ring import Pending
    from cornernet_runtime.video.frame import Source, VideoFrame
    from cornernet_runtime.video.line import Done, Work
    from cornernet_runtime.video.statistics import StreamStatistics

Policy = Literal["every", "newest"]

LARGEST_BATCH = 8  # frames that are made to wait for one another
PATIENCE = 5.0  # seconds that ``close`` waits for a thread


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


class DetectionStream:
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
        detector: Detector,
        source: object,
        policy: Policy | None = None,
        *,
        workers: int | None = None,
        batch: int | None = None,
    ) -> None:
        if policy not in (None, "every", "newest"):
            raise VideoError(f'policy: expected "every" or "newest", got {policy!r}')
        for name, value in (("workers", workers), ("batch", batch)):
            if value is not None and value < 1:
                raise VideoError(f"{name}: expected 1 or more, got {value}")
        self.source = open_source(source)
        self.policy: Policy = policy or ("newest" if self.source.live else "every")
        newest = self.policy == "newest"
        batch = 1 if newest else min(batch or LARGEST_BATCH, detector.backend.max_batch)
        lead = 0 if newest else 1
        count = workers or min(1 + lead, default_threads())
        under_way = count if detector.pipeline is None else 1 + lead
        self._meter = Meter()
        self._line = Line(batch, (under_way + 1) * batch, newest=newest)
        self._returned: float | None = None  # when the consumer was given the last result
        threads = [_thread(_read, self.source, self._line, self._meter)]
        # Threads refer to what they work with and never to the stream, which can therefore be collected.
        self._stop = weakref.finalize(self, _stop, self.source, self._line, threads)
        try:
            if detector.pipeline is not None:
                threads.append(_thread(_detect_on_gpu, self._line, self._meter, detector.pipeline, batch, lead))
            else:
                clones = [detector.clone() for _ in range(count)]
                threads += [_thread(_detect, self._line, self._meter, clone, batch) for clone in clones]
            for thread in threads:
                thread.start()
        except BaseException:
            self._stop()
            self.source.close()
            raise

    @property
    def statistics(self) -> StreamStatistics:
        """How the stream fares, at any time and from any thread."""
        counts = self._line.counts()
        return self._meter.read((counts.read, counts.dropped, counts.given), state_of(self.source))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FrameResult:
        if self._returned is not None:
            self._meter.add("consumer", time.perf_counter() - self._returned)
            self._returned = None
        try:
            done = self._line.next()
        except Exception as error:
            self.close()
            if isinstance(error, CornerNetError):
                raise
            raise VideoError(f"{self.source.name}: {type(error).__name__}: {error}") from error
        except BaseException:  # an interrupt
            self.close()
            raise
        if done is None:
            first = self._stop.alive
            self.close()
            if first:
                self._tell_problems()
            raise StopIteration
        return self._give(done)

    def close(self) -> None:
        """End the stream and wait for its threads; what is on its way is dropped."""
        self._stop()
        self._meter.end()

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
        self._returned = time.perf_counter()
        lag = self._returned - done.arrived
        self._meter.give(self._returned, lag)
        return FrameResult(done.frame, done.detections, done.finished - done.started, lag)

    def _tell_problems(self) -> None:
        for problem in self.source.problems:
            warnings.warn(problem, CornerNetWarning, stacklevel=3)


def _thread(function: Any, *arguments: object) -> threading.Thread:  # noqa: ANN401
    # A daemon, for the interpreter waits for other threads before it lets go of what would end them.
    name = f"cornernet{function.__name__}"
    return threading.Thread(target=function, args=arguments, name=name, daemon=True)


def _read(source: Source, line: Line, meter: Meter) -> None:
    """Bring frames from the source into the line, and close the source."""
    error: BaseException | None = None
    try:
        frames = iter(source)
        while True:
            with meter.stage("reading"):
                frame = next(frames, None)
            if frame is None or not line.put(frame):
                break
    except BaseException as problem:  # noqa: BLE001 - the consumer raises it
        error = problem
    try:
        source.close()
    except BaseException as problem:  # noqa: BLE001 - the consumer raises it
        error = error or problem
    line.end(error)


def _detect(line: Line, meter: Meter, detector: Detector, batch: int) -> None:
    """Detect on the CPU what waits in the line, with a detector of this thread's own."""
    work: Work | None = None
    detector.stages = meter.stage
    try:
        with detector:
            while (work := line.take(batch)) is not None:
                line.finish(work, detector.batch([waiting.frame.image for waiting in work.waiting]))
    except BaseException as error:  # noqa: BLE001 - the consumer raises it
        line.fail(work, error)


def _detect_on_gpu(line: Line, meter: Meter, pipeline: GpuPipeline, batch: int, lead: int) -> None:
    """Detect on a GPU what waits in the line, with ``lead`` runs submitted beyond the one that is waited for."""
    running: deque[tuple[Work, Pending]] = deque()
    while True:
        # While a run is under way, its results are not to wait for frames that come later.
        work = line.take(batch, wait=not running)
        if work is None and not running:
            return
        if work is not None:
            try:
                running.append((work, pipeline.submit([waiting.frame.image for waiting in work.waiting])))
            except BaseException as error:  # noqa: BLE001 - the consumer raises it
                line.fail(work, error)
        if running and (work is None or len(running) > lead):
            oldest, pending = running.popleft()
            try:
                line.finish(oldest, pending.result())
            except BaseException as error:  # noqa: BLE001 - the consumer raises it
                line.fail(oldest, error)
            meter.add("detecting", time.perf_counter() - oldest.started)


def _stop(source: Source, line: Line, threads: list[threading.Thread]) -> None:
    """End the threads, and wait for them, unless the garbage collector runs in one of them."""
    line.stop()
    stop(source)
    for thread in threads:
        if thread is threading.current_thread() or thread.ident is None:
            continue
        thread.join(PATIENCE)
        if thread.is_alive():
            message = f"{thread.name} is still busy after {PATIENCE:g} s; it ends by itself when its source answers"
            warnings.warn(message, CornerNetWarning, stacklevel=2)
