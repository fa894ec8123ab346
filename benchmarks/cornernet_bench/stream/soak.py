"""Many frames through one stream: whether memory grows, and what is left when it is closed."""

from __future__ import annotations

import gc
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_bench.stream.clip import Repeated, draw_clip
from cornernet_bench.stream.report import Held, Soak
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.video.writer import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable

    from cornernet_bench.stream.report import OnProgress
    from cornernet_runtime.detector import Detector

SIZE = (144, 192)  # of a frame: what leaks does so at any size
CLIP_FRAMES = 100
WARM_UP = 200  # frames of a stream before, after which libraries hold what they keep
MOST_GROWTH_PERCENT = 2.0
PARTS = 10  # of the frames, after each of which memory is read
OBJECTS = 1000  # that Python and libraries may come to keep for other reasons
SETTLE_S = 2.0  # in which the system forgets a thread that has ended
PROCESS = Path("/proc/self")


def measure_soak(detector: Detector, folder: Path, frames: int, on_progress: OnProgress) -> tuple[Soak | None, bool]:
    """Read, detect, draw and encode small frames in one stream.

    Args:
        detector: Stays open.
        folder: Where the clips are written.
        frames: How many.
        on_progress: Told of each frame.

    Returns:
        What came of it, None without a tenth of the frames, and whether an interrupt ended it.

    Raises:
        CornerNetError: A frame cannot be detected in, or written, or the system does not tell what a process holds.
    """
    check_system()
    run = _Run(detector, draw_clip(folder / "small.mp4", CLIP_FRAMES, SIZE), folder / "soaked.mp4")
    watch, first = _Watch(frames, on_progress), min(frames, WARM_UP)
    before, interrupted = None, False
    try:
        run(first, lambda count: on_progress("soak, warming up", count, first))
        before, start = held(), time.perf_counter()
        try:
            run(frames, watch)
        finally:
            seconds = time.perf_counter() - start
    except KeyboardInterrupt:
        interrupted = True
    memory = watch.memory_mib
    if before is None or not memory:
        return None, interrupted
    return Soak(
        asked=frames,
        frames=watch.done,
        frame_size=SIZE,
        fps=watch.done / seconds,
        memory_mib=tuple(memory),
        growth_percent=100 * (memory[-1] / memory[0] - 1) if len(memory) > 1 else None,
        before=before,
        after=held(before),
    ), interrupted


def soak_failures(soak: Soak) -> list[str]:
    """Return a line for memory that grew, and for each thing that is left."""
    lines = []
    if soak.growth_percent is not None and soak.growth_percent > MOST_GROWTH_PERCENT:
        lines.append(
            f"soak: expected resident memory to grow by at most {MOST_GROWTH_PERCENT:g} %, got "
            f"{soak.growth_percent:.1f} %: {soak.memory_mib[0]:.1f} to {soak.memory_mib[-1]:.1f} MiB"
        )
    allowed = {"threads": 0, "descriptors": 0, "objects": max(OBJECTS, soak.frames)}
    for name, most in allowed.items():
        before, after = getattr(soak.before, name), getattr(soak.after, name)
        if after - before > most:
            lines.append(f"soak: expected no {name} left after closing, got {after}, and {before} before")
    return lines


class _Run:
    """Goes from file to file in one stream, of any number of frames."""

    def __init__(self, detector: Detector, clip: Path, target: Path) -> None:
        self._detector, self._clip, self._target = detector, clip, target

    def __call__(self, frames: int, watch: Callable[[int], None]) -> None:
        """Let so many frames through, telling of each by its number from 1."""
        writer = VideoWriter(self._target)
        try:
            with self._detector.stream(Repeated(self._clip, frames), "every") as stream:
                for count, result in enumerate(stream, start=1):
                    writer.write(result)
                    watch(count)
        finally:
            writer.abort()  # its file is not looked at


class _Watch:
    """Is told of each frame, and reads the memory after each tenth of them."""

    def __init__(self, frames: int, on_progress: OnProgress) -> None:
        self.done = 0
        self.memory_mib: list[float] = []
        self._frames, self._on_progress = frames, on_progress
        self._ends = {frames * part // PARTS for part in range(1, PARTS + 1)}

    def __call__(self, count: int) -> None:
        """Note that so many frames are done."""
        self.done = count
        self._on_progress("soak", count, self._frames)
        if count in self._ends:
            self.memory_mib.append(resident_mib())


def held(expected: Held | None = None) -> Held:
    """Return what this process holds now.

    Args:
        expected: Is waited for, a little: a thread that was joined is still listed for a moment.
    """
    gc.collect()
    end = time.perf_counter() + SETTLE_S
    while expected is not None and _entries("task") > expected.threads and time.perf_counter() < end:
        time.sleep(0.01)
    return Held(_entries("task"), _entries("fd"), sys.getallocatedblocks())


def resident_mib() -> float:
    """Return the memory of this process that is in RAM, MiB."""
    found = re.search(r"(?m)^VmRSS:\s*(\d+) kB$", (PROCESS / "status").read_text(errors="replace"))
    return int(found[1]) / 2**10 if found else 0.0


def check_system() -> None:
    """Raise CornerNetError unless the system tells what a process holds."""
    if not (PROCESS / "task").is_dir():
        raise CornerNetError("the soak reads /proc/self/task, which this system does not have; add --frames 0")


def _entries(folder: str) -> int:
    return sum(1 for _ in (PROCESS / folder).iterdir())
