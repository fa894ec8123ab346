"""``cornernet-bench selftest``: whether all of this works on this machine, in one command and one report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from cornernet_bench.selftest import LAYERS, Request, run_selftest
from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.files import cache_folder, make_folder, write_atomically

if TYPE_CHECKING:
    from rich.console import Console

    from cornernet_bench.selftest import Report

NAME = "selftest.json"
_STYLES = {"passed": "green", "skipped": "yellow", "failed": "bold red"}


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    usual = Request()
    parser = commands.add_parser(
        "selftest",
        help="check everything that this machine can run, and write a report of it",
        description="Check everything that this machine can run, layer by layer: "
        + "; ".join(f"{layer} {proves}" for layer, proves in LAYERS.items())
        + ". What cannot be run here is skipped, with the reason. Ctrl-C keeps what is known.",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE",
        help=f"where the report goes, as JSON (default: {NAME} in the user's cache folder, replaced each time)",
    )
    parser.add_argument("--layers", type=_layers, default=usual.layers, metavar="L,L,...", help="some of L1 to L6")
    parser.add_argument(
        "--model", metavar="MODEL", help="for L6: a bundle, an .onnx file or a checkpoint (default: the one shipped)"
    )
    parser.add_argument("--images", metavar="DIR", help="for L6: pictures that fit the model (default: drawn scenes)")
    parser.add_argument(
        "--scenes", type=_count(1), default=usual.scenes, metavar="N", help=f"that L6 draws (default {usual.scenes})"
    )
    parser.add_argument(
        "--frames",
        type=_count(0),
        default=usual.frames,
        metavar="N",
        help=f"that L6 times, and in which memory may not grow (default {usual.frames})",
    )
    parser.add_argument(
        "--architectures",
        type=_architectures,
        default=(),
        metavar="N,N,...",
        help="for L2, such as 80,90 (default all)",
    )
    parser.add_argument(
        "--limit",
        type=_count(1),
        default=int(usual.limit_s),
        metavar="SECONDS",
        help=f"after which a layer is ended and has failed (default {usual.limit_s:g})",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    console = console_for_people()
    file = arguments.report or _usual_file()
    request = Request(
        layers=arguments.layers,
        model=arguments.model,
        architectures=arguments.architectures,
        images=arguments.images,
        scenes=arguments.scenes,
        frames=arguments.frames,
        limit_s=float(arguments.limit),
    )
    reports: list[Report] = []

    def keep(report: Report) -> None:
        if file is not None:
            write_atomically(file, report.text())
        reports.append(report)

    try:
        with console.status("looking at this machine") as status:  # turns while a layer says nothing

            def say(line: str) -> None:
                console.print(line, style="dim", soft_wrap=True, markup=False)
                status.update(escape(line))

            run_selftest(request, say, keep)
    finally:
        if reports:
            _print(console, reports[-1], file)
    report = reports[-1]
    if report.state == "failed":
        failed = (f"{layer.layer}: {layer.said}" for layer in report.layers if layer.state == "failed")
        raise CornerNetError("; ".join(failed))
    return 0


def _usual_file() -> Path | None:
    """Return where the report goes when no file is named; None where there is no such folder."""
    folder = cache_folder()
    try:
        return None if folder is None else make_folder(folder) / NAME
    except CornerNetError:
        return None


def _print(console: Console, report: Report, file: Path | None) -> None:
    table = Table("", "proves that", "", box=box.SIMPLE_HEAD)
    table.add_column("s", justify="right")
    table.add_column("found", overflow="fold")
    for layer in report.layers:
        state = f"[{_STYLES[layer.state]}]{layer.state}[/]"
        table.add_row(layer.layer, layer.proves, state, f"{layer.seconds:.0f}", escape(layer.said))
    console.print(table)
    for layer in report.layers:
        if stages := layer.figures.get("stages_ms"):
            each = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in stages.items())
            console.print(f"milliseconds on the GPU, a frame: {each}", soft_wrap=True)
    whole = "not finished: part of the report" if report.partial else "report"
    if file is not None:
        console.print(f"{whole}, for whoever is to help: {file}", soft_wrap=True, markup=False)


def _layers(text: str) -> tuple[str, ...]:
    layers = tuple(text.split(","))
    if not set(layers) <= set(LAYERS) or len(set(layers)) < len(layers):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(LAYERS)}, got {text!r}")
    return layers


def _architectures(text: str) -> tuple[int, ...]:
    from cornernet_bench.kernels_resources import LIMITS  # noqa: PLC0415 - keeps --help quick

    parts = text.split(",")
    if not set(parts) <= {str(number) for number in LIMITS}:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(map(str, LIMITS))}, got {text!r}")
    return tuple(map(int, parts))


def _count(least: int) -> Any:  # noqa: ANN401 - what argparse takes as a type
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more, got {text!r}")
        return int(text)

    return count
