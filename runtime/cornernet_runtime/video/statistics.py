"""How a stream fares: rates, lag, and what each stage takes."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RECENT = 120  # results


@dataclass(frozen=True, slots=True)
class Counts:
    """Frames that were read, of these dropped, and given to the consumer."""

    read: int
    dropped: int
    given: int


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """How a stream fares so far.

    Attributes:
        read: Frames that the source gave.
        dropped: Of these, those that were given up: for newer ones, or because the stream was stopped.
        given: Results that the consumer got.
        elapsed_s: Since the stream began, until its end.
        fps: Results a second, on average over the last 120.
        lag_ms: From reading a frame to giving its result, median of the last 120.
        worst_lag_ms: The same, the largest of all.
        stage_ms: What a result took on average in each stage on the wall clock: reading; preprocess, network, decode
            and soft_nms, or detecting where a GPU does all four; and the consumer. Stages overlap, so that a result
            takes less than their sum.
        state: Of a source that is connected again when it fails: "connecting", "live", "stalled" or "lost"; among many
            sources "ended" or "failed" for each that is over; else None.
    """

    read: int
    dropped: int
    given: int
    elapsed_s: float
    fps: float
    lag_ms: float
    worst_lag_ms: float
    stage_ms: dict[str, float]
    state: str | None = None


class Meter:
    """Times of a source and its results, or of the workers, taken by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent: dict[str, float] = {}
        self._given_at: deque[float] = deque(maxlen=RECENT + 1)
        self._lags: deque[float] = deque(maxlen=RECENT)
        self._worst_lag = 0.0
        self._start = time.perf_counter()
        self._end: float | None = None

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count some time to a stage."""
        with self._lock:
            self._spent[name] = self._spent.get(name, 0.0) + seconds

    def give(self, at: float, lag: float) -> None:
        """Note that a result was given at a time, so long after its frame was read, seconds."""
        with self._lock:
            self._given_at.append(at)
            self._lags.append(lag)
            self._worst_lag = max(self._worst_lag, lag)

    def end(self) -> None:
        """Stop the clock; later calls change nothing."""
        self._end = self._end or time.perf_counter()

    def stage_ms(self, results: int) -> dict[str, float]:
        """Return what each of so many results took in each stage, on average."""
        with self._lock:
            return {name: 1000 * seconds / max(results, 1) for name, seconds in self._spent.items()}

    def read(self, counts: Counts, shared: dict[str, float], state: str | None) -> StreamStatistics:
        """Return the statistics.

        Args:
            counts: Of the source's frames.
            shared: What a result took in the stages that sources share, milliseconds.
            state: Of the source, if it has one.
        """
        with self._lock:
            times, lags = list(self._given_at), list(self._lags)
        elapsed = (self._end or time.perf_counter()) - self._start
        since, results = (times[0], len(times) - 1) if len(times) > 1 else (self._start, len(times))
        last = times[-1] if times else since
        return StreamStatistics(
            read=counts.read,
            dropped=counts.dropped,
            given=counts.given,
            elapsed_s=elapsed,
            fps=results / (last - since) if last > since else 0.0,
            lag_ms=1000 * statistics.median(lags) if lags else 0.0,
            worst_lag_ms=1000 * self._worst_lag,
            # The first stage first, the last one last.
            stage_ms={"reading": 0.0} | shared | self.stage_ms(counts.given),
            state=state,
        )
