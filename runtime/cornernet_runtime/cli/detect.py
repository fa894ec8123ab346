"""``cornernet-detect``: pictures or videos in, boxes out, as annotated pictures or videos, JSON lines or a table."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cornernet_runtime.cli.common import console_for_people, run_command
from cornernet_runtime.cli.detect_cluster import CLUSTER_OPTIONS, add_cluster_options, detect_on_ray
from cornernet_runtime.cli.detect_videos import detect_in_videos
from cornernet_runtime.cli.options import add_view_options, parse_score, whole_number
from cornernet_runtime.wording import plain, printable, scales_note, too_large_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cornernet_runtime.detect.images import ImagesSummary

SHOWN_PICTURES = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.corners and arguments.output is None:
        parser.error("--corners draws pictures: name a folder with --output DIR")
    return run_command(lambda: _detect_in_what_is_given(parser, arguments))


def _detect_in_what_is_given(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    from cornernet_runtime.video.addresses import are_videos, is_live_source  # noqa: PLC0415 - keeps --help quick

    videos = are_videos(arguments.sources)
    if arguments.ray is not None:
        return _detect_on_ray(parser, arguments, videos)
    _refuse_without_ray(parser, arguments)
    if any(videos):
        if not all(videos):
            parser.error("pictures and videos take a command each")
        if arguments.corners:
            parser.error("--corners is for pictures; name pictures only")
        if arguments.show and sum(map(is_live_source, arguments.sources)) > 1:
            parser.error("--show shows one camera or stream; name one, or leave --show out to run several")
        return detect_in_videos(arguments, _print_problem)
    for option in ("every", "start", "duration", "show"):
        if getattr(arguments, option) != parser.get_default(option):
            parser.error(f"--{option} is for videos and cameras; {arguments.sources[0]} is neither")
    return _detect(arguments)


def _refuse_without_ray(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    for option in CLUSTER_OPTIONS:
        if getattr(arguments, option) is not None:
            parser.error(f"--{option.replace('_', '-')} goes with --ray ADDRESS")
    if tables := [source for source in arguments.sources if Path(source).suffix.lower() == ".parquet"]:
        parser.error(f"{tables[0]}: Parquet files are read with --ray; --ray local needs no other machine")


def _detect_on_ray(parser: argparse.ArgumentParser, arguments: argparse.Namespace, videos: list[bool]) -> int:
    from cornernet_runtime.video.addresses import is_address, is_live_source  # noqa: PLC0415 - as above

    for option in ("corners", "show", "start", "duration"):
        if getattr(arguments, option) != parser.get_default(option):
            parser.error(f"--{option} does not go with --ray, which writes the rows of whole files and draws nothing")
    if arguments.output is None:
        parser.error("--ray writes Parquet files: name a folder with --output DIR")
    for source in arguments.sources:
        if is_address(source) or (is_live_source(source) and not Path(source).exists()):
            parser.error(f"--ray takes files that all machines see; {source} is none")
    if any(videos) and not all(videos):
        parser.error("pictures and videos take a command each")
    if arguments.every != parser.get_default("every") and not any(videos):
        parser.error(f"--every is for videos; {arguments.sources[0]} is none")
    return detect_on_ray(arguments, _print_problem, videos=all(videos))


def _detect(arguments: argparse.Namespace) -> int:
    from cornernet_runtime.detect.images import DetectRequest, detect_pictures  # noqa: PLC0415 - keeps --help quick

    console = console_for_people()
    request = DetectRequest(
        model=arguments.model,
        sources=tuple(arguments.sources),
        backend=arguments.backend,
        output=arguments.output,
        json_lines=arguments.json,
        score=arguments.score,
        corners=arguments.corners,
        flip=arguments.flip,
        scales=arguments.scales,
    )
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,  # it would end with an empty line
    ) as progress:
        summary = detect_pictures(
            request, lambda pictures: progress.track(pictures, description="detecting"), _print_problem
        )
    if summary.pictures:
        _print_summary(console, summary, arguments)
    if summary.failed:
        _print_problem(f"{summary.failed} of {summary.pictures + summary.failed} pictures could not be read")
    return 1 if summary.failed else 0


def _print_problem(message: str) -> None:
    print(f"error: {plain(message)}", file=sys.stderr)  # noqa: T201 - plain on purpose: no markup, no wrapping


def _print_summary(console: Console, summary: ImagesSummary, arguments: argparse.Namespace) -> None:
    table = Table("picture", "size", "objects", box=box.SIMPLE_HEAD)
    table.add_column("best", justify="right")
    for row in summary.rows[:SHOWN_PICTURES]:
        counts = ", ".join(f"{count} {escape(name)}" for name, count in row.counts.items())
        best = f"{row.best:.2f}" if row.counts else ""
        table.add_row(printable(row.source.name), f"{row.width}x{row.height}", counts or "-", best)
    if summary.pictures > SHOWN_PICTURES:
        table.add_row(f"... and {summary.pictures - SHOWN_PICTURES} more", "", "", "")
    console.print(table)
    for note in (
        scales_note(arguments.scales, summary.scales),
        too_large_note(summary.scaled_down, summary.largest_size),
    ):
        if note:
            console.print(note, soft_wrap=True)
    stages = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in summary.stage_ms.items())
    pictures, objects = _count(summary.pictures, "picture"), _count(summary.objects, "object")
    found = f"{pictures}, {objects} of score {arguments.score:g} or more"
    console.print(f"{found}; milliseconds a picture: {stages}", soft_wrap=True)
    for written in (arguments.output, arguments.json):
        if written is not None and str(written) != "-":
            console.print(f"wrote {printable(written)}", soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cornernet-detect", description="Detect objects in pictures, videos, streams or cameras."
    )
    parser.add_argument("model", metavar="MODEL", help="a bundle folder or an .onnx file of cornernet-export")
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="an image, a folder, a glob, a video, the address of a stream (rtsp://...), or the index of a camera",
    )
    parser.add_argument("--backend", metavar="NAME", help="what runs the network (default: the best here)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write annotated pictures or videos to this folder")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write one line a picture or frame; - is standard output"
    )
    parser.add_argument("--score", type=parse_score, default=0.3, help="least score of an object, 0 to 1 (default 0.3)")
    parser.add_argument(
        "--corners",
        action="store_true",
        help="draw the heat maps of both corners and the paired corners",
    )
    add_view_options(parser)
    videos = parser.add_argument_group("videos, streams and cameras")
    videos.add_argument(
        "--every", type=whole_number, default=1, metavar="N", help="look at every Nth frame (default 1)"
    )
    videos.add_argument("--start", type=_seconds, default=0.0, metavar="SECONDS", help="leave out what comes before")
    videos.add_argument("--duration", type=_seconds, metavar="SECONDS", help="stop after so long")
    videos.add_argument("--show", action="store_true", help="in a window; q, Esc or closing it ends the run")
    add_cluster_options(parser)
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text!r}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
