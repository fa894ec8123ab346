"""``cornernet-detect`` on videos and cameras: progress while it runs, a summary at the end."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cornernet_runtime.cli.common import console_for_people, count_of, printable, scales_note

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import Console

    from cornernet_runtime.video.detect import VideosSummary
    from cornernet_runtime.video.stream import DetectionStream, FrameResult

REFRESH = 0.2  # seconds
SHOWN_CLASSES = 4


def detect_in_videos(arguments: argparse.Namespace, print_problem: Callable[[str], None]) -> int:
    """Do the work and print what came of it; return the exit status."""
    from cornernet_runtime.video.detect import VideoRequest, detect_videos  # noqa: PLC0415 - keeps --help quick
    from cornernet_runtime.video.window import Window  # noqa: PLC0415

    console = console_for_people()
    request = VideoRequest(
        model=arguments.model,
        sources=tuple(arguments.sources),
        backend=arguments.backend,
        output=arguments.output,
        json_lines=arguments.json,
        score=arguments.score,
        flip=arguments.flip,
        scales=arguments.scales,
        every=arguments.every,
        start=arguments.start,
        duration=arguments.duration,
    )
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # it would end with an empty line
    )
    with Window() if arguments.show else contextlib.nullcontext() as window, progress:
        line = _Line(progress)

        def watch(stream: DetectionStream, result: FrameResult) -> None:
            line.show(stream, result)
            if window is not None and not window.show(result):
                raise KeyboardInterrupt

        summary = detect_videos(request, watch, print_problem)
    if summary.rows:
        _print_summary(console, summary, arguments)
    if summary.interrupted:
        print_problem("interrupted: what was done until then is kept")
        return 130
    return 1 if summary.failed else 0


class _Line:
    """One line of progress, which says how the stream at hand fares."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", state="", visible=False)
        self._stream: DetectionStream | None = None
        self._objects, self._first, self._shown_at = 0, 0.0, 0.0

    def show(self, stream: DetectionStream, result: FrameResult) -> None:
        """Take note of a result."""
        if stream is not self._stream:
            self._stream, self._objects, self._first = stream, 0, result.seconds
            total = getattr(stream.source, "duration", None)
            self._progress.reset(self._task, total=total, description=printable(stream.source.name), visible=True)
        self._objects += len(result.detections)
        now = time.perf_counter()
        if now - self._shown_at < REFRESH:
            return
        self._shown_at, told = now, stream.statistics
        dropped = f", {told.dropped} dropped" if told.dropped else ""
        state = f"{told.fps:.1f} fps, lag {told.lag_ms:.0f} ms{dropped}, {count_of(self._objects, 'object')}"
        self._progress.update(self._task, completed=result.seconds - self._first, state=state)


def _print_summary(console: Console, summary: VideosSummary, arguments: argparse.Namespace) -> None:
    table = Table("source", "objects", box=box.SIMPLE_HEAD)
    for heading in ("frames", "dropped", "fps", "lag ms"):
        table.add_column(heading, justify="right")
    for row in summary.rows:
        told = row.statistics
        objects = ", ".join(f"{count} {escape(name)}" for name, count in row.counts.most_common(SHOWN_CLASSES))
        more = ", ..." if len(row.counts) > SHOWN_CLASSES else ""
        # Frames that were on their way when a run was ended are no ones that the detector was too slow for.
        dropped = "" if summary.interrupted else str(told.dropped)
        rate = told.given / told.elapsed_s
        numbers = (str(told.given), dropped, f"{rate:.1f}", f"{told.lag_ms:.0f}")
        table.add_row(printable(row.source), (objects or "-") + more, *numbers)
    console.print(table)
    if note := scales_note(arguments.scales, summary.scales):
        console.print(note, soft_wrap=True)
    frames = sum(row.statistics.given for row in summary.rows)
    found = sum(sum(row.counts.values()) for row in summary.rows)
    words = f"{count_of(frames, 'frame')}, {count_of(found, 'object')} of score {arguments.score:g} or more"
    console.print(f"{words}; milliseconds a frame: {_stages(summary)}", soft_wrap=True)
    written = [row.written for row in summary.rows if row.written is not None]
    if arguments.json is not None and str(arguments.json) != "-":
        written.append(arguments.json)
    for path in written:
        console.print(f"wrote {printable(path)}", soft_wrap=True)


def _stages(summary: VideosSummary) -> str:
    """Return the mean of each stage over all frames, which may overlap."""
    spent: dict[str, float] = {}
    frames = max(1, sum(row.statistics.given for row in summary.rows))
    for row in summary.rows:
        for stage, milliseconds in row.statistics.stage_ms.items():
            name = "drawing and writing" if stage == "consumer" else stage
            spent[name] = spent.get(name, 0.0) + milliseconds * row.statistics.given / frames
    return ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in spent.items())
