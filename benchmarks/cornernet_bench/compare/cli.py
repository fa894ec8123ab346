"""``cornernet-bench compare``: models side by side on the same pictures."""

from __future__ import annotations

import datetime as dt
import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_bench.compare.contestant import FORM, parse_contestant
from cornernet_bench.options import AS_OBJECT, check_cpu_time, count_text, progress_bar
from cornernet_bench.reports.outputs import check_outputs, check_page, check_picture, console_for_report, write_json
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.cli.common import INTERRUPTED, console_for_people
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    import argparse

    from cornernet_bench.compare.report import CompareReport, Result

SCHEMA_VERSION = 1  # of the JSON; schemas/compare.schema.json


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    parser = commands.add_parser(
        "compare",
        help="models side by side: AP, latency, memory, size, agreement, and where they differ",
        description="Measure models on the same pictures, in turns, and hold the others against the first: AP, latency "
        "from frame to boxes, memory, size on disk, agreement of detections, and the head or stage that differs.",
    )
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        type=parse_contestant,
        help=f"{FORM}: a bundle, an .onnx file or a checkpoint, and how it runs; "
        "such as build/tiny build/tiny:flip model.safetensors@torch-fp16:stacks=1",
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="COCO instances file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its pictures")
    parser.add_argument("--iterations", type=count_text, default=50, metavar="N", help="timed calls (default 50)")
    parser.add_argument("--warm-up", type=count_text, default=5, metavar="N", help="calls before that (default 5)")
    parser.add_argument("--threads", type=count_text, default=0, metavar="N", help="as for latency")
    parser.add_argument("--cpu-time", action="store_true", help="as for latency, and is none; needs --threads 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write the figures {AS_OBJECT}")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a report that stands alone")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw AP over latency (.png, .svg, .pdf)")
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> int:
    from cornernet_bench.compare.compare import compare  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.compare.request import CompareRequest  # noqa: PLC0415 - as above
    from cornernet_bench.compare.tables import blocks  # noqa: PLC0415 - as above
    from cornernet_bench.reports.blocks import print_blocks  # noqa: PLC0415 - as above

    console = console_for_people()
    if len(arguments.models) < 2:
        arguments.usage_error("compare takes two models or more; cornernet-bench accuracy and latency take one")
    check_cpu_time(arguments)
    check_picture(arguments.picture)
    check_page(arguments.html)
    check_outputs(arguments.json, arguments.html, arguments.picture)
    request = CompareRequest(
        contestants=tuple(arguments.models),
        annotations=arguments.annotations,
        images=arguments.images,
        iterations=arguments.iterations,
        warm_up=arguments.warm_up,
        threads=arguments.threads,
        cpu_time=arguments.cpu_time,
    )
    with progress_bar(console) as say:
        report = compare(
            request, say, lambda text: console.print(text, style="red", soft_wrap=True, markup=False, highlight=False)
        )
    try:  # files first: whoever reads the tables may stop in the midst of them
        _write(arguments, report)
    finally:
        print_blocks(console_for_report(arguments.json), blocks(report))
    if report.partial:
        return INTERRUPTED
    return 1 if report.failures else 0


def _write(arguments: argparse.Namespace, report: CompareReport) -> None:
    content = as_json(report)
    write_json(arguments.json, content)
    if arguments.html:
        from cornernet_bench.compare.page import compare_page  # noqa: PLC0415 - an extra

        write_atomically(arguments.html, compare_page(report, content["date"], content["command"]))
    if arguments.picture:
        from cornernet_bench.compare.picture import draw_front  # noqa: PLC0415 - an extra

        draw_front(report, arguments.picture)


def as_json(report: CompareReport) -> dict[str, Any]:
    """Return what ``--json`` writes: the report, when it was made and with which command; null for what is NaN."""
    content = to_json(report)
    content["results"] = [_result(result) for result in report.results]
    content["failures"] = [
        {"number": failure.number, "contestant": failure.contestant.text, "error": failure.error}
        for failure in report.failures
    ]
    head = {
        "schema_version": SCHEMA_VERSION,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["cornernet-bench", *sys.argv[1:]]),
    }
    found: dict[str, Any] = _without_nan({**head, **content})
    return found


def _result(result: Result) -> dict[str, Any]:
    content: dict[str, Any] = to_json(result)
    content |= {"contestant": result.contestant.text, "stacks": result.contestant.stacks}
    if result.against is not None and result.against.agreement is not None:
        content["against"]["agreement"]["percent"] = result.against.agreement.percent
    return content


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - JSON is any of six types
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
