"""``cornernet-bench stream``: a model in video streams: frames a second, lag, and what they leave behind."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_bench.options import AS_OBJECT, count_text, progress_bar
from cornernet_bench.reports.outputs import check_outputs, console_for_report, write_json
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.cli.common import INTERRUPTED, console_for_people
from cornernet_runtime.cli.options import add_view_options, parse_size

if TYPE_CHECKING:
    from cornernet_bench.stream.report import StreamReport

SCHEMA_VERSION = 1  # of the JSON; schemas/stream.schema.json
FASTEST = 1000.0  # frames a second of a live source
MOST_SOURCES = 256
LARGEST_SIDE = 4320  # pixels of a drawn frame


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    parser = commands.add_parser(
        "stream",
        help="frames a second, lag and leaks of video streams",
        description="Measure a model in video streams: many small frames, after which nothing may be left (exit status "
        "1 if it is), with --live a live source, of which the newest frame is taken, with "
        "--sources many sources into one model, and a clip from file to file, "
        "beside what its stages allow.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a bundle, an .onnx file or a checkpoint")
    parser.add_argument(
        "video", type=Path, nargs="?", metavar="VIDEO", help="whose first frames are the clip (default: drawn)"
    )
    parser.add_argument("--backend", metavar="NAME", help="what runs the network (default: the best here)")
    parser.add_argument(
        "--threads", type=count_text, default=0, metavar="N", help="of the CPU (default: the libraries')"
    )
    parser.add_argument("--workers", type=count_text, metavar="N", help="threads that detect (default: the stream's)")
    parser.add_argument("--batch", type=count_text, metavar="N", help="frames run together (default: the stream's)")
    clip = parser.add_argument_group("throughput")
    clip.add_argument(
        "--rounds", type=count_or_none, default=5, metavar="N", help="in turns of all (default 5; 0 leaves it out)"
    )
    clip.add_argument("--clip", type=count_text, default=120, metavar="N", help="frames of the clip (default 120)")
    clip.add_argument(
        "--frame", type=_frame_size, default=(720, 1280), metavar="HxW", help="of a drawn one (default 720x1280)"
    )
    clip.add_argument("--folder", type=Path, metavar="DIR", help="where clips are written (default: a temporary one)")
    soak = parser.add_argument_group("soak")
    soak.add_argument(
        "--frames", type=count_or_none, default=500, metavar="N", help="small ones (default 500; 0 leaves it out)"
    )
    live = parser.add_argument_group("live source")
    live.add_argument("--live", type=_rate, metavar="FPS", help="measure one of this rate (default: none)")
    live.add_argument("--live-frames", type=count_text, default=600, metavar="N", help="that it gives (default 600)")
    sources = parser.add_argument_group("many sources")
    sources.add_argument(
        "--sources",
        type=_source_count,
        default=0,
        metavar="N",
        help="into one model at once, beside one (default: none)",
    )
    sources.add_argument(
        "--source-frames", type=count_text, default=40, metavar="N", help="that each gives in a round (default 40)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write the figures {AS_OBJECT}")
    add_view_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from cornernet_bench.models.subject import Subject  # noqa: PLC0415 - as above
    from cornernet_bench.stream.measure import measure  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.stream.report import StreamRequest  # noqa: PLC0415 - as above
    from cornernet_bench.stream.tables import print_report  # noqa: PLC0415 - as above

    check_outputs(arguments.json)
    request = StreamRequest(
        Subject(
            model=arguments.model,
            backend=arguments.backend,
            flip=arguments.flip,
            scales=arguments.scales,
            threads=arguments.threads,
        ),
        video=arguments.video,
        workers=arguments.workers,
        batch=arguments.batch,
        rounds=arguments.rounds,
        clip_frames=arguments.clip,
        frame_size=arguments.frame,
        soak_frames=arguments.frames,
        live_fps=arguments.live,
        live_frames=arguments.live_frames,
        sources=arguments.sources,
        source_frames=arguments.source_frames,
        folder=arguments.folder,
    )
    with progress_bar(console_for_people()) as say:
        report = measure(request, say)
    try:  # the file first: whoever reads the tables may stop in the midst of them
        write_json(arguments.json, as_json(report))
    finally:
        print_report(console_for_report(arguments.json), report)
    return INTERRUPTED if report.partial else 1 if report.failures else 0


def as_json(report: StreamReport) -> dict[str, Any]:
    """Return what ``--json`` writes: the report, when it was made and with which command."""
    return {
        "schema_version": SCHEMA_VERSION,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["cornernet-bench", *sys.argv[1:]]),
        **to_json(report),
    }


def count_or_none(text: str) -> int:
    """Return the whole number of an option that counts something, of which there may be none."""
    return 0 if text == "0" else count_text(text)


def _source_count(text: str) -> int:
    count = count_text(text)
    if not 2 <= count <= MOST_SOURCES:
        raise argparse.ArgumentTypeError(f"expected 2 to {MOST_SOURCES} sources, got {text!r}")
    return count


def _frame_size(text: str) -> tuple[int, int]:
    size = parse_size(text)
    if not 16 <= min(size) <= max(size) <= LARGEST_SIDE:
        raise argparse.ArgumentTypeError(f"expected sides of 16 to {LARGEST_SIDE}, such as 720x1280, got {text!r}")
    return size


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 1 <= rate <= FASTEST:
        raise argparse.ArgumentTypeError(f"expected 1 to {FASTEST:g} frames a second, got {text!r}")
    return rate
