"""``cornernet-detect --ray``: progress while a cluster works, a summary at the end."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from cornernet_runtime.cli.common import INTERRUPTED, console_for_people
from cornernet_runtime.cli.options import RAY_OPTIONS, add_ray_options, whole_number
from cornernet_runtime.wording import count_of, printable, scales_note, too_large_note

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from rich.console import Console

    from cornernet_runtime.cluster.rows import PartSummary
    from cornernet_runtime.cluster.run import ClusterSummary

SHOWN = 20  # pictures or videos
SHOWN_CLASSES = 4


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--ray`` and the options that go with it."""
    group = parser.add_argument_group("many machines (--output then takes Parquet files; docs/scaling.md)")
    add_ray_options(group)
    group.add_argument(
        "--part-size",
        type=whole_number,
        metavar="N",
        help="pictures or frames a file (default: a share, up to 256)",
    )
    group.add_argument(
        "--image-column", metavar="NAME", help="of Parquet files: encoded pictures (default: image.bytes, bytes, ...)"
    )
    group.add_argument("--name-column", metavar="NAME", help="of Parquet files: names (default: image.path, path, ...)")


CLUSTER_OPTIONS = (*RAY_OPTIONS, "part_size", "image_column", "name_column")


def detect_on_ray(arguments: argparse.Namespace, print_problem: Callable[[str], None], *, videos: bool) -> int:
    """Do the work and print what came of it; return the exit status."""
    from cornernet_runtime.cluster.json_lines import write_json_lines  # noqa: PLC0415 - keeps --help quick
    from cornernet_runtime.cluster.request import ClusterRequest  # noqa: PLC0415
    from cornernet_runtime.cluster.run import detect_on_cluster  # noqa: PLC0415
    from cornernet_runtime.cluster.tables import Columns  # noqa: PLC0415

    console = console_for_people()
    request = ClusterRequest(
        model=arguments.model,
        sources=tuple(arguments.sources),
        output=arguments.output,
        address=arguments.ray,
        workers=arguments.workers,
        worker_cpus=arguments.worker_cpus or 1,
        worker_gpus=arguments.worker_gpus or 0.0,
        backend=arguments.backend,
        score=arguments.score,
        flip=arguments.flip,
        scales=arguments.scales,
        every=arguments.every,
        part_size=arguments.part_size,
        columns=Columns(arguments.image_column, arguments.name_column),
    )
    began = time.perf_counter()
    try:
        with _progress(console) as progress:
            summary = detect_on_cluster(request, _Shown(progress).show, print_problem)
        if arguments.json is not None and summary.folder is not None:
            write_json_lines(arguments.json, summary.read_rows())
    except KeyboardInterrupt:
        kept = f"finished parts are kept in {arguments.output}; the same command goes on from there"
        print_problem(f"interrupted: {kept if any(arguments.output.glob('parts/*')) else 'no part was finished'}")
        return INTERRUPTED
    _print_summary(console, summary, arguments, time.perf_counter() - began, videos=videos)
    totals = summary.totals
    if totals.failed:
        of = f"{totals.failed} of {totals.pictures + totals.failed} pictures"
        print_problem(f"{count_of(totals.failed, 'video') if videos else of} could not be read")
    return 1 if totals.failed else 0


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts, {task.fields[rate]:.1f} pictures/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # it would end with an empty line
    )


class _Shown:
    """A line of progress, over the parts."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("starting", total=None, rate=0.0)
        self._begun: float | None = None
        self._pictures = 0

    def show(self, done: int, total: int, part: PartSummary | None) -> None:
        """Take note of what is done."""
        rate = 0.0
        if part is not None:
            self._begun = part.begun if self._begun is None else min(self._begun, part.begun)
            self._pictures += part.pictures
            rate = self._pictures / max(part.ended - self._begun, 1e-3)
        words = "detecting" if total else "starting"
        self._progress.update(self._task, completed=done, total=total or None, rate=rate, description=words)


def _print_summary(
    console: Console, summary: ClusterSummary, arguments: argparse.Namespace, seconds: float, *, videos: bool
) -> None:
    console.print(_table_of_videos(summary) if videos else _table_of_pictures(summary))
    totals = summary.totals
    scaled_down = sum(part.scaled_down for part in summary.parts)
    notes = scales_note(arguments.scales, summary.scales), too_large_note(scaled_down, summary.spec.largest_size)
    for note in notes:
        if note:
            console.print(note, soft_wrap=True)
    noun = "frame" if videos else "picture"
    found = (
        f"{count_of(totals.pictures, noun)}, {count_of(totals.objects, 'object')} of score {arguments.score:g} or more"
    )
    console.print(f"{found}; {_speed(summary, seconds, noun)}", soft_wrap=True)
    console.print(f"wrote {printable(arguments.output)}: {count_of(totals.parts, 'part')}", soft_wrap=True)
    if arguments.json is not None and str(arguments.json) != "-":
        console.print(f"wrote {printable(arguments.json)}", soft_wrap=True)


def _speed(summary: ClusterSummary, seconds: float, noun: str) -> str:
    """Say how fast it went; the start of Ray and of the workers is apart from their work."""
    computed = summary.computed
    kept = len(summary.parts) - len(computed)
    earlier = f"{kept} of {count_of(len(summary.parts), 'part')} kept from an earlier run"
    if not computed:
        return earlier
    working = sum(part.pictures for part in computed) / summary.rate if summary.rate else 0.0
    detecting = 1000 * sum(part.detecting_s for part in computed) / max(1, sum(part.pictures for part in computed))
    words = (
        f"{summary.rate:.1f} {noun}s/s by {count_of(summary.workers, 'worker')}, {detecting:.1f} ms a {noun} in each; "
        f"{working:.1f} s of work, {seconds - working:.1f} s to start and end"
    )
    return f"{words}; {earlier}" if kept else words


def _table_of_pictures(summary: ClusterSummary) -> Table:
    table = Table("picture", "size", "objects", box=box.SIMPLE_HEAD)
    table.add_column("best", justify="right")
    for row in itertools.islice((row for row in summary.read_rows() if row.detections is not None), SHOWN):
        found = row.detections
        if found is None or row.size is None:
            continue
        counts = Counter(name for _, _, name in found)
        objects = ", ".join(f"{count} {escape(name)}" for name, count in counts.most_common())
        name = row.source.rpartition("/")[2] if row.index == 0 and row.name is None else f"{row.name or row.index}"
        best = f"{found.scores[0]:.2f}" if len(found) else ""
        table.add_row(printable(name), f"{row.size[1]}x{row.size[0]}", objects or "-", best)
    if summary.totals.pictures > SHOWN:
        table.add_row(f"... and {summary.totals.pictures - SHOWN} more", "", "", "")
    return table


def _table_of_videos(summary: ClusterSummary) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("source", overflow="fold")  # paths differ at their end
    table.add_column("objects")
    for heading in ("frames", "parts"):
        table.add_column(heading, justify="right")
    by_source = [(source, list(parts)) for source, parts in itertools.groupby(summary.parts, lambda part: part.source)]
    for source, parts in by_source[:SHOWN]:
        counts = sum((Counter(part.counts) for part in parts), Counter[str]())
        objects = ", ".join(f"{count} {escape(name)}" for name, count in counts.most_common(SHOWN_CLASSES))
        more = ", ..." if len(counts) > SHOWN_CLASSES else ""
        frames = sum(part.pictures for part in parts)
        table.add_row(printable(source), (objects or "-") + more, str(frames), str(len(parts)))
    if len(by_source) > SHOWN:
        table.add_row(f"... and {len(by_source) - SHOWN} more", "", "", "")
    return table
