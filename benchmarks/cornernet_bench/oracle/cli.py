"""``cornernet-bench oracle``: where AP is lost, by true maps or those of a better model in place of a model's own."""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from cornernet_bench.options import AS_OBJECT
from cornernet_bench.reports.blocks import print_table
from cornernet_bench.reports.outputs import check_outputs, check_picture, console_for_report, write_json
from cornernet_runtime.cli.common import INTERRUPTED, console_for_people
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from cornernet_bench.measuring.intervals import Difference
    from cornernet_bench.oracle.analyse import OracleReport
    from cornernet_runtime.detector import Detector

HEADINGS = {
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "small",
    "ap_medium": "medium",
    "ap_large": "large",
}


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    parser = commands.add_parser("oracle", help="where AP is lost: true maps, or a better model's, in place of its own")
    parser.add_argument(
        "model", metavar="MODEL", help="a bundle, an .onnx file or a checkpoint; flip and scales are off"
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="COCO instances file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its pictures")
    parser.add_argument("--backend", metavar="NAME", help="what runs MODEL, as for accuracy (default: the best here)")
    parser.add_argument(
        "--against",
        metavar="REFERENCE",
        help="also say which head or wiring costs the AP that is lost against this model, such as the one in FP32",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write the numbers {AS_OBJECT}")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also draw them (.png, .svg, .pdf)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    progress = console_for_people()
    check_picture(arguments.picture)
    check_outputs(arguments.json, arguments.picture)
    from cornernet_bench.models.open import open_model  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.oracle.analyse import analyse  # noqa: PLC0415

    def show(items: Any, what: str) -> Any:  # noqa: ANN401 - a sequence in, an iterable of the same out
        return track(items, description=what, console=progress, transient=True, disable=not progress.is_terminal)

    with contextlib.ExitStack() as stack:
        detector = stack.enter_context(open_model(arguments.model, arguments.backend))
        reference = stack.enter_context(open_model(arguments.against)) if arguments.against else None
        report = analyse(detector, arguments.annotations, arguments.images, reference, track=show)
    try:  # files first: whoever reads the tables may stop in the midst of them
        write_json(arguments.json, _content(arguments, detector, reference, report))
        if arguments.picture:
            from cornernet_bench.oracle.picture import draw_oracle  # noqa: PLC0415 - an extra

            draw_oracle(report, f"{Path(arguments.model).name} in {detector.backend.name}", arguments.picture)
    finally:
        _print(console_for_report(arguments.json), arguments, detector, report)
    return 0 if report.complete else INTERRUPTED


def _print(console: Console, arguments: argparse.Namespace, detector: Detector, report: OracleReport) -> None:
    for line in report.notes:
        console.print(f"note: {arguments.annotations}: {line}", soft_wrap=True, markup=False)
    _print_exchanges(console, arguments.model, detector, report)
    if report.comparison:
        _print_comparison(console, arguments.against, report)


def _print_exchanges(console: Console, model: str, detector: Detector, report: OracleReport) -> None:
    say = functools.partial(console.print, soft_wrap=True, markup=False)
    extent = f"{count_of(report.pictures, 'picture')}, {count_of(report.objects, 'object')}"
    say(f"{model} in {detector.backend.name}: {extent}; COCO metrics, points of 100")
    if not report.complete:
        say(
            f"interrupted: {report.pictures} of {report.listed} pictures were seen, and these figures are of them alone"
        )
    table = Table("true", box=box.SIMPLE_HEAD, pad_edge=False)  # so it fits 80 columns
    for heading in (*HEADINGS.values(), "gain"):
        table.add_column(heading, justify="right", no_wrap=True)
    before = report.exchanges[()]["ap"]
    for kinds, metrics in report.exchanges.items():
        gain = _points(metrics["ap"] - before, "+") if kinds else ""
        table.add_row(report.title(kinds), *(_points(metrics[name]) for name in HEADINGS), gain)
    print_table(console, table)
    if report.shared:
        verb = "shares" if report.shared == 1 else "share"
        say(
            f"{count_of(report.shared, 'object')} {verb} the cell of a corner with another; "
            "a cell holds one embedding and one offset, so that true maps may stay below 100"
        )


def _print_comparison(console: Console, against: str, report: OracleReport) -> None:
    from cornernet_bench.measuring.intervals import resampling_note  # noqa: PLC0415 - imports NumPy

    comparison = report.comparison
    if comparison is None:
        return
    console.print(f"against {against}: AP {_points(comparison.reference['ap'])}", soft_wrap=True, markup=False)
    table = Table("exchanged", "with", box=box.SIMPLE_HEAD)
    for heading in ("AP", "gain", "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for effect in comparison.effects:
        gain = effect.gain
        partner = "its own" if effect.repair.part == "wiring" else "reference"
        cells = _points(effect.ap), _points(gain.points, "+"), f"{_points(gain.low, '+')} to {_points(gain.high, '+')}"
        style = "bold" if effect.repair.name == comparison.finding.cause else None
        table.add_row(escape(effect.repair.title), partner, *cells, style=style)
    print_table(console, table)
    console.print(resampling_note(report.pictures), soft_wrap=True, markup=False)
    console.print(comparison.finding.text, soft_wrap=True, markup=False)


def _content(
    arguments: argparse.Namespace, detector: Detector, reference: Detector | None, report: OracleReport
) -> dict[str, Any]:
    content: dict[str, Any] = {
        "model": arguments.model,
        "backend": detector.backend.name,
        "complete": report.complete,
        "pictures": report.pictures,
        "listed": report.listed,
        "objects": report.objects,
        "objects_sharing_a_cell": report.shared,
        "oracle": [
            {"true": list(kinds), **{name: _number(value) for name, value in metrics.items()}}
            for kinds, metrics in report.exchanges.items()
        ],
    }
    if report.comparison and reference:
        found = report.comparison
        content["against"] = {
            "model": arguments.against,
            "backend": reference.backend.name,
            **{name: _number(value) for name, value in found.reference.items()},
            "loss": _interval(found.loss),
            "repairs": [
                {"name": one.repair.name, "part": one.repair.part, "ap": _number(one.ap), "gain": _interval(one.gain)}
                for one in found.effects
            ],
            "cause": found.finding.cause,
            "finding": found.finding.text,
        }
    return content


def _interval(difference: Difference) -> dict[str, float | None]:
    return {name: _number(getattr(difference, name)) for name in ("points", "low", "high")}


def _points(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
