"""``cornernet-bench latency``: how long a model takes from frame to boxes, and where the time goes."""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_bench.options import AS_OBJECT, check_cpu_time, count_text, progress_bar
from cornernet_bench.reports.outputs import check_outputs, check_page, console_for_report, write_json
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.cli.common import INTERRUPTED, console_for_people
from cornernet_runtime.cli.options import add_view_options, parse_size
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from cornernet_bench.latency.report import LatencyReport

SCHEMA_VERSION = 1  # of the JSON; schemas/latency.schema.json


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    parser = commands.add_parser(
        "latency",
        help="time from frame to boxes, stage by stage",
        description="Time a model from frames in memory to boxes, stage by stage, beside the published pipeline with "
        "--baseline. Reading and decoding of image files is in no figure.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a bundle, an .onnx file or a checkpoint")
    parser.add_argument("--backend", metavar="NAME", help="what runs the network (default: the best here)")
    parser.add_argument(
        "--size", type=parse_size, metavar="HxW", help="input that every frame is fitted into (default: the model's)"
    )
    parser.add_argument("--batch", type=_counts, default=(1,), metavar="N,N,...", help="frames a call (default 1)")
    parser.add_argument(
        "--iterations", type=count_text, default=50, metavar="N", help="timed calls of each (default 50)"
    )
    parser.add_argument("--warm-up", type=count_text, default=5, metavar="N", help="calls before that (default 5)")
    parser.add_argument(
        "--threads", type=count_text, default=0, metavar="N", help="of the CPU (default: the libraries')"
    )
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure the CPU time of the process, on a machine that others use too; needs --threads 1",
    )
    parser.add_argument(
        "--workers",
        type=count_text,
        default=1,
        metavar="N",
        help="also run N detectors side by side (default 1: none)",
    )
    frames = parser.add_mutually_exclusive_group()
    frames.add_argument("--images", type=Path, metavar="DIR", help="measure on pictures of a folder (default: drawn)")
    frames.add_argument(
        "--frame", type=_frame_size, default=(480, 640), metavar="HxW", help="size of drawn frames (default 480x640)"
    )
    parser.add_argument("--baseline", action="store_true", help="let the published pipeline take turns with the model")
    parser.add_argument(
        "--baseline-checkpoint",
        type=Path,
        metavar="FILE",
        help="its weights (default: the model's own, else random ones); takes --baseline for granted",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write the figures {AS_OBJECT}")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a report that stands alone")
    add_view_options(parser)
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> int:
    from cornernet_bench.latency.measure import measure  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.latency.request import LatencyRequest  # noqa: PLC0415 - as above
    from cornernet_bench.latency.tables import print_report  # noqa: PLC0415 - as above
    from cornernet_bench.models.subject import Subject  # noqa: PLC0415 - as above

    check_cpu_time(arguments)
    check_page(arguments.html)
    check_outputs(arguments.json, arguments.html)
    request = LatencyRequest(
        Subject(
            model=arguments.model,
            backend=arguments.backend,
            size=arguments.size,
            flip=arguments.flip,
            scales=arguments.scales,
            threads=arguments.threads,
        ),
        batches=arguments.batch,
        iterations=arguments.iterations,
        warm_up=arguments.warm_up,
        cpu_time=arguments.cpu_time,
        workers=arguments.workers,
        images=arguments.images,
        frame_size=arguments.frame,
        baseline=arguments.baseline or arguments.baseline_checkpoint is not None,
        baseline_checkpoint=arguments.baseline_checkpoint,
    )
    with progress_bar(console_for_people()) as say:
        report = measure(request, say)
    try:  # files first: whoever reads the tables may stop in the midst of them
        content = as_json(report)
        write_json(arguments.json, content)
        if arguments.html:
            from cornernet_bench.latency.page import latency_page  # noqa: PLC0415 - an extra

            write_atomically(arguments.html, latency_page(report, content["date"], content["command"]))
    finally:
        print_report(console_for_report(arguments.json), report)
    return INTERRUPTED if report.partial else 0


def as_json(report: LatencyReport) -> dict[str, Any]:
    """Return what ``--json`` writes: the report, when it was made and with which command."""
    return {
        "schema_version": SCHEMA_VERSION,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["cornernet-bench", *sys.argv[1:]]),
        **to_json(report),
    }


def _frame_size(text: str) -> tuple[int, int]:
    height, width = parse_size(text)
    if not height or not width:
        raise argparse.ArgumentTypeError(f"expected a height and width of at least 1, such as 480x640, got {text!r}")
    return height, width


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(count_text(part) for part in text.split(","))
    if len(set(counts)) < len(counts):
        raise argparse.ArgumentTypeError(f"expected distinct numbers such as 1,2,4, got {text!r}")
    return counts
