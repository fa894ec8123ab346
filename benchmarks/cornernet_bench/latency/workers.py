"""Several detectors side by side, each in a thread of its own."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from cornernet_bench.latency.report import Workers
from cornernet_bench.measuring.timing import summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cornernet_bench.models.runs import Frame
    from cornernet_runtime.detector import Detector

WARM_UP = 2


def run_workers(
    make: Callable[[], Detector], frames_of: Callable[[int], Sequence[Frame]], count: int, calls: int
) -> tuple[Workers | None, bool]:
    """Let detectors run at the same time, beginning together.

    Args:
        make: Makes a detector; called in the thread that uses it, since a GPU is made current in a thread.
        frames_of: The frames of a call, by its number.
        count: Workers, each with a detector of its own.
        calls: Timed calls of each.

    Returns:
        What they gave, or None if nothing, and whether an interrupt ended it.

    Raises:
        CornerNetError: A detector cannot be made, or cannot run.
    """
    crew = _Crew(frames_of, count, calls)
    interrupted = False
    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(crew.work, make, first) for first in range(count)]
        try:
            wait(futures)
        except KeyboardInterrupt:
            interrupted = True
            crew.stop.set()
            crew.begin.abort()
    for future in futures:
        error = future.exception()
        # The others break off where one fails, or at an interrupt; theirs is no error of its own.
        if error is not None and not isinstance(error, threading.BrokenBarrierError):
            raise error
    if not crew.spans:
        return None, interrupted
    return workers_of(crew.spans, count, len(frames_of(0))), interrupted


class _Crew:
    """What the workers share.

    Attributes:
        begin: All wait here until the last is ready.
        stop: Set to end before the next call.
        spans: Beginning and end of each call, seconds; appending to a list is atomic.
    """

    def __init__(self, frames_of: Callable[[int], Sequence[Frame]], count: int, calls: int) -> None:
        self.begin, self.stop = threading.Barrier(count), threading.Event()
        self.spans: list[tuple[float, float]] = []
        self._frames_of, self._calls = frames_of, calls

    def work(self, make: Callable[[], Detector], first: int) -> None:
        """Make a detector and let it run, beginning with the frames of call ``first``."""
        try:
            with make() as detector:
                for number in range(WARM_UP):
                    detector.batch(self._frames_of(first + number))
                self.begin.wait()
                for number in range(self._calls):
                    if self.stop.is_set():
                        return
                    start = time.perf_counter()
                    detector.batch(self._frames_of(first + number))
                    self.spans.append((start, time.perf_counter()))
        except BaseException:
            self.begin.abort()  # or the others would wait for ever
            raise


def workers_of(spans: Sequence[tuple[float, float]], count: int, batch: int) -> Workers:
    """Return what calls, each from its beginning to its end in seconds, come to."""
    whole = max(end for _, end in spans) - min(start for start, _ in spans)
    times = summarise([(end - start) * 1000 for start, end in spans])
    return Workers(count, batch, "host", times, batch * len(spans) / whole)
