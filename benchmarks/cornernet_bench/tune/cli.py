"""``cornernet-bench tune``: the fastest mix of INT8 and float32 that keeps AP within a budget."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from cornernet_bench.options import check_cpu_time, count_text
from cornernet_bench.reports.outputs import console_for_report
from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.cli.options import parse_size
from cornernet_runtime.errors import VerificationError

if TYPE_CHECKING:
    from rich.console import Console

    from cornernet_bench.tune.search import Mix
    from cornernet_bench.tune.tune import Tuned


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    parser = commands.add_parser("tune", help="find the fastest mix of int8 and float32 that keeps AP, for this CPU")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="ours (.safetensors) or a published one")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="COCO instances file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its pictures")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="bundle to make, with tune.json")
    parser.add_argument(
        "--max-ap-drop", type=_points, default=0.5, metavar="AP", help="points that may be lost (default 0.5)"
    )
    parser.add_argument("--calibration", metavar="DIR", help="pictures to calibrate on (default: those of --images)")
    parser.add_argument("--size", type=parse_size, metavar="HxW", help="input size (default: the checkpoint's)")
    parser.add_argument(
        "--rounds", type=_rounds, default=30, metavar="N", help="timed runs of each mix, 10 or more (default 30)"
    )
    parser.add_argument(
        "--threads", type=count_text, default=0, metavar="N", help="of the network (default: the cores)"
    )
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure the CPU time of the process, on a machine that others use too; needs --threads 1",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace a bundle, and write the best mix found whatever it loses"
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> int:
    from cornernet_bench.tune.checks import REPORT_NAME  # noqa: PLC0415 - as above
    from cornernet_bench.tune.request import TuneRequest  # noqa: PLC0415 - imports torch
    from cornernet_bench.tune.tune import tune  # noqa: PLC0415

    check_cpu_time(arguments)
    console = console_for_people()
    request = TuneRequest(
        checkpoint=arguments.checkpoint,
        annotations=arguments.annotations,
        images=arguments.images,
        output=arguments.output,
        calibration=() if arguments.calibration is None else (arguments.calibration,),
        max_ap_drop=arguments.max_ap_drop,
        size=arguments.size,
        rounds=arguments.rounds,
        threads=arguments.threads,
        cpu_time=arguments.cpu_time,
        force=arguments.force,
    )
    measured: list[Mix] = []

    def on_measured(mix: Mix) -> None:
        measured.append(mix)
        names = ", ".join(mix.float_groups) or "nothing"
        ap = "" if mix.ap is None else f", AP {mix.ap:.2f}"
        console.print(f"{mix.times_fp32} times fp32{ap}: {names} in float", soft_wrap=True, markup=False)

    try:
        with console.status("starting") as status:
            tuned = tune(request, status.update, on_measured)
    except (KeyboardInterrupt, VerificationError):
        if measured:
            console.print(f"what was measured: {arguments.output / REPORT_NAME}", soft_wrap=True, markup=False)
        raise
    _print(console_for_report(), tuned)
    console.print(f"wrote {arguments.output}", soft_wrap=True, markup=False)
    if not tuned.outcome.met:
        console.print("written because of --force: it is not within the budget, or no faster than fp32", style="yellow")
    return 0


def _print(console: Console, tuned: Tuned) -> None:
    """Print what stays in float and why, and what is doubtful."""
    best, reasons = tuned.outcome.best, tuned.outcome.reasons
    if best.ap is None:
        raise AssertionError("the best mix was chosen without its AP")
    console.print(
        f"best: AP {best.ap:.2f} (fp32 {tuned.fp32_ap:.2f}: {best.ap - tuned.fp32_ap:+.2f}), "
        f"{best.times_fp32} times fp32, spread {best.times_fp32.spread_percent:.0f} %; in int8 but for the last "
        "convolutions, since eight bits would blur embeddings and peaks",
        soft_wrap=True,
    )
    if best.float_groups:
        table = Table("also in float", "why", box=box.SIMPLE_HEAD)
        for group in best.float_groups:
            table.add_row(escape(group), escape(reasons[group]))
        console.print(table)
    for line in tuned.warnings:
        console.print(f"warning: {line}", style="yellow", soft_wrap=True, markup=False)


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected points of AP, 0 to 100, such as 0.5, got {text!r}")
    return value


def _rounds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 10 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"expected 10 to 10000: fewer do not tell a gain from noise, got {text!r}")
    return int(text)
