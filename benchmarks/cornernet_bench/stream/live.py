"""A live source whose frames come by a clock: how far the results lag, and whether every frame is accounted for."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

from cornernet_bench.measuring.timing import summarise
from cornernet_bench.stream.report import Live
from cornernet_runtime.video.sources import Frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from cornernet_bench.stream.report import OnProgress
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.video.frame import VideoFrame
    from cornernet_runtime.video.stream import FrameResult


class Clocked:
    """Pictures that come by a clock, whether anyone takes them or not.

    Args:
        images: Given over and over.
        count: Frames in all.
        fps: Frames a second.

    Attributes:
        late_ms: How long after its time each frame was given.
    """

    def __init__(self, images: Sequence[Any], count: int, fps: float) -> None:
        self._images, self._count, self._fps = images, count, fps
        self.late_ms: list[float] = []

    def __iter__(self) -> Iterator[Any]:
        """Yield each picture at its time, or as soon as it is asked for after that."""
        start = time.perf_counter()
        for index in range(self._count):
            due = start + index / self._fps
            time.sleep(max(0.0, due - time.perf_counter()))
            self.late_ms.append((time.perf_counter() - due) * 1000)
            yield self._images[index % len(self._images)]


def measure_live(
    detector: Detector, frames: Sequence[VideoFrame], fps: float, count: int, on_progress: OnProgress
) -> tuple[Live | None, bool]:
    """Detect in the newest frame of a source that gives ``count`` frames at a rate.

    Args:
        detector: Stays open.
        frames: Their pictures are given, over and over.
        fps: Frames a second of the source.
        count: Frames that it gives.
        on_progress: Told of each result.

    Returns:
        What came of it, None without a result, and whether an interrupt ended it.

    Raises:
        CornerNetError: A frame cannot be detected in.
    """
    source = Clocked([frame.image for frame in frames], count, fps)
    results: list[tuple[int, float, float]] = []  # index, lag and time of detecting in milliseconds
    interrupted = False
    with detector.stream(Frames(source, live=True), "newest") as stream:
        try:
            for result in stream:
                results.append(_of(result))
                on_progress(f"live, {fps:g} frames a second", result.index, count)
        except KeyboardInterrupt:
            interrupted = True
    if not results:
        return None, interrupted
    told = stream.statistics
    indices, lags, detecting = zip(*results, strict=True)
    lag, took = summarise(lags), summarise(detecting)
    return Live(
        source_fps=fps,
        made=len(source.late_ms),
        read=told.read,
        given=len(results),
        dropped=told.dropped,
        in_order=all(before < after for before, after in pairwise(indices)),
        fps=len(results) / told.elapsed_s,
        lag=lag,
        detecting=took,
        lag_ratio=lag.p99_ms / took.p50_ms,
        late=summarise(source.late_ms),
    ), interrupted


def _of(result: FrameResult) -> tuple[int, float, float]:
    return result.index, 1000 * result.lag_s, 1000 * result.detecting_s


def live_failures(live: Live) -> list[str]:
    """Return a line for each frame or order that is not accounted for."""
    lines = []
    if not live.made == live.read == live.given + live.dropped:
        lines.append(
            f"live: expected every frame given or dropped, got {live.made} of the source, {live.read} read, "
            f"{live.given} given and {live.dropped} dropped"
        )
    if not live.in_order:
        lines.append("live: expected frames in order and each once, got one again or an older one")
    return lines
