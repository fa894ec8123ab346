"""``cornernet-detect`` on videos, streams and cameras: progress while it runs, a summary at the end."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cornernet_runtime.cli.common import INTERRUPTED, console_for_people
from cornernet_runtime.wording import count_of, plain, printable, scales_note

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from cornernet_runtime.detect.videos import VideosSummary, Watched
    from cornernet_runtime.video.stream import FrameResult

REFRESH = 0.2  # seconds
SHOWN_CLASSES = 4
SOURCE_WIDTH = 28  # columns at least, where a name needs them


def detect_in_videos(arguments: argparse.Namespace, print_problem: Callable[[str], None]) -> int:
    """Do the work and print what came of it; return the exit status."""
    from cornernet_runtime.detect.videos import VideoRequest, detect_videos  # noqa: PLC0415 - keeps --help quick
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
        _Figures(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # it would end with an empty line
    )
    with Window() if arguments.show else contextlib.nullcontext() as window, progress, _telling():
        lines = _Lines(progress)

        def watch(stream: Watched, result: FrameResult) -> None:
            lines.show(stream, result)
            if window is not None and not window.show(result):
                raise KeyboardInterrupt

        summary = detect_videos(request, watch, print_problem, lines.begin)
    if summary.rows:
        _print_summary(console, summary, arguments)
    if summary.interrupted:
        print_problem("interrupted: what was done until then is kept")
        return INTERRUPTED
    return 1 if summary.failed else 0


class _Lines:
    """A line of progress for each stream at hand, which says how it fares."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lines: dict[Watched, _Line] = {}

    def begin(self, *streams: Watched) -> None:
        """Show streams, which may not have a result for long, in place of those before."""
        for line in self._lines.values():
            self._progress.remove_task(line.task)
        self._lines = {stream: _Line(self._task_of(stream)) for stream in streams}

    def show(self, stream: Watched, result: FrameResult) -> None:
        """Take note of a result."""
        line, now = self._lines[stream], time.perf_counter()
        if line.first is None:
            line.first = result.seconds
        line.objects += len(result.detections)
        if now - line.shown_at >= REFRESH:
            line.shown_at = now
            self._progress.update(line.task, completed=result.seconds - line.first, objects=line.objects)

    def _task_of(self, stream: Watched) -> TaskID:
        total = getattr(stream.source, "duration", None)
        return self._progress.add_task(printable(stream.name), total=total, stream=stream, objects=0)


@dataclass(slots=True)
class _Line:
    task: TaskID
    objects: int = 0
    first: float | None = None  # seconds
    shown_at: float = -math.inf


class _Figures(ProgressColumn):
    """How a stream fares, at each refresh, whether results come or not."""

    def render(self, task: Task) -> Text:
        """Return its state if that is worth a word, its rate, lag and drops, and the objects."""
        stream: Watched = task.fields["stream"]
        told = stream.statistics
        state = "" if told.state in (None, "live") else f"{told.state}, "
        dropped = f", {told.dropped} dropped" if told.dropped else ""
        objects = count_of(task.fields["objects"], "object")
        return Text(f"{state}{told.fps:.1f} fps, lag {told.lag_ms:.0f} ms{dropped}, {objects}")


class _Teller(logging.Handler):
    """Prints what live sources log, on a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        kind = "warning" if record.levelno >= logging.WARNING else "note"
        print(f"{kind}: {plain(record.getMessage())}", file=sys.stderr)  # noqa: T201 - plain on purpose: no markup, no wrapping


@contextlib.contextmanager
def _telling() -> Iterator[None]:
    """Let people know of each change in the state of a live source."""
    log, teller = logging.getLogger("cornernet_runtime.video"), _Teller()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(teller)
    try:
        yield
    finally:
        log.removeHandler(teller)
        log.setLevel(level)


def _print_summary(console: Console, summary: VideosSummary, arguments: argparse.Namespace) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    longest = max(len(printable(row.source)) for row in summary.rows)
    table.add_column("source", overflow="fold", min_width=min(longest, SOURCE_WIDTH))  # addresses differ at their end
    table.add_column("objects")
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
