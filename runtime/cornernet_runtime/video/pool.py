"""The threads of a stream: readers that bring frames into a line, and workers that detect what waits there."""

from __future__ import annotations

import threading
import time
import warnings
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import CornerNetWarning, VideoError
from cornernet_runtime.video.frame import state_of, stop
from cornernet_runtime.video.line import Line
from cornernet_runtime.video.statistics import Meter

if TYPE_CHECKING:
    from cornernet_runtime.pipeline import GpuPipeline
    from cornernet_runtime.pipeline.ring import Pending
    from cornernet_runtime.video.detecting import FrameDetector
    from cornernet_runtime.video.frame import Source
    from cornernet_runtime.video.lane import Lane, Work
    from cornernet_runtime.video.statistics import StreamStatistics

PATIENCE = 5.0  # seconds that ``stop`` waits for the threads


class Crew:
    """Workers around a line, which ``start`` lets begin, and a reader for each source that ``read`` is given.

    On the CPU each worker is a thread with a clone of the detector. A GPU has one, which serves its pipeline alone.
    Threads refer to what they work with and never to a stream, which can therefore be collected.

    Args:
        detector: Finds the objects; it stays open.
        batch: Frames that one run of the network takes at most.
        workers: Threads that detect on the CPU.
        lead: Runs that are submitted on a GPU beyond the one that is waited for.
        latency: As for ``Line``.

    Attributes:
        line: What the threads work on.

    Raises:
        BackendError: There is no memory for the workers' clones.
    """

    def __init__(self, detector: FrameDetector, *, batch: int, workers: int, lead: int, latency: float = 0.0) -> None:
        under_way = workers if detector.pipeline is None else 1 + lead
        self.line, self._meter = Line(batch, (under_way + 1) * batch, latency), Meter()
        if detector.pipeline is not None:
            self._workers = [_thread(_detect_on_gpu, self.line, self._meter, detector.pipeline, lead)]
        else:
            clones = [detector.clone() for _ in range(workers)]
            self._workers = [_thread(_detect, self.line, self._meter, clone) for clone in clones]
        self._readers: list[tuple[threading.Thread, Lane]] = []

    def start(self) -> None:
        """Let the workers begin."""
        for thread in self._workers:
            thread.start()

    def read(self, source: Source, *, newest: bool, name: str | None = None) -> Lane:
        """Start a thread that reads a source and closes it, and return the source's lane.

        Args:
            source: Whose frames.
            newest: As for ``Line.open``.
            name: That frames are given in place of the source's.

        Raises:
            VideoError: The stream has ended.
        """
        lane = self.line.open(source, newest=newest)
        if lane is None:
            raise VideoError(f"{source.name}: the stream has ended and takes no more sources; open another one")
        thread = _thread(_read, self.line, lane, name)
        try:
            thread.start()
        except BaseException:
            self.line.remove(lane)
            raise
        self._readers = [*(reader for reader in self._readers if reader[0].is_alive()), (thread, lane)]
        if lane.over:  # somebody has stopped all meanwhile, and may not have seen this one
            stop(source)
        return lane

    def remove(self, lane: Lane) -> None:
        """Give no more results of a source, and close it as soon as it answers."""
        self.line.remove(lane)
        stop(lane.source)

    def statistics(self, lane: Lane) -> StreamStatistics:
        """Return how a source fares."""
        return lane.meter.read(self.line.counts(lane), self._meter.stage_ms(self.line.given), state_of(lane.source))

    def stop(self) -> None:
        """End the threads, and wait for them, unless the garbage collector runs in one of them.

        What collects may hold the lock that the others need to end.
        """
        self.line.stop()
        for _, lane in self._readers:
            stop(lane.source)
        deadline = time.perf_counter() + PATIENCE
        threads = [thread for thread, _ in self._readers] + self._workers
        if threading.current_thread() in threads:
            return
        for thread in threads:
            if thread.ident is None:
                continue
            thread.join(max(0.0, deadline - time.perf_counter()))
            if thread.is_alive():
                message = f"{thread.name} is still busy after {PATIENCE:g} s; it ends by itself when its source answers"
                warnings.warn(message, CornerNetWarning, stacklevel=2)


def _thread(function: Any, *arguments: object) -> threading.Thread:  # noqa: ANN401
    # A daemon, for the interpreter waits for other threads before it lets go of what would end them.
    name = f"cornernet{function.__name__}"
    return threading.Thread(target=function, args=arguments, name=name, daemon=True)


def _read(line: Line, lane: Lane, name: str | None) -> None:
    """Bring frames from a source into its lane, and close the source."""
    error: BaseException | None = None
    try:
        frames = iter(lane.source)
        while True:
            with lane.meter.stage("reading"):
                frame = next(frames, None)
            if frame is None:
                break
            if name is not None and frame.source != name:
                frame = replace(frame, source=name)
            if not line.put(lane, frame):
                break
    except BaseException as problem:  # noqa: BLE001 - the consumer raises it
        error = problem
    try:
        lane.source.close()
    except BaseException as problem:  # noqa: BLE001 - the consumer raises it
        error = error or problem
    line.end(lane, error)


def _detect(line: Line, meter: Meter, detector: FrameDetector) -> None:
    """Detect on the CPU what waits in the line, with a detector of this thread's own."""
    detector.stages = meter.stage
    try:
        with detector:
            while (work := line.take()) is not None:
                try:
                    found = detector.batch([entry.frame.image for entry in work.entries])
                except BaseException as error:  # noqa: BLE001 - the consumer raises it
                    line.fail(work, error)
                else:
                    line.finish(work, found)
    except BaseException as error:  # noqa: BLE001 - the consumer raises it
        line.fail(None, error)


def _detect_on_gpu(line: Line, meter: Meter, pipeline: GpuPipeline, lead: int) -> None:
    """Detect on a GPU what waits in the line, with ``lead`` runs submitted beyond the one that is waited for."""
    running: deque[tuple[Work, Pending]] = deque()
    while True:
        # While a run is under way, its results are not to wait for frames that come later.
        work = line.take(wait=not running)
        if work is None and not running:
            return
        if work is not None:
            try:
                running.append((work, pipeline.submit([entry.frame.image for entry in work.entries])))
            except BaseException as error:  # noqa: BLE001 - the consumer raises it
                line.fail(work, error)
        if running and (work is None or len(running) > lead):
            oldest, pending = running.popleft()
            try:
                line.finish(oldest, pending.result())
            except BaseException as error:  # noqa: BLE001 - the consumer raises it
                line.fail(oldest, error)
            meter.add("detecting", time.perf_counter() - oldest.started)
