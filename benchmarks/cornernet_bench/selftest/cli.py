"""``cornernet-bench selftest``: whether all of this works on this machine, in one command and one report."""

from __future__ import annotations

import argparse
import contextlib
import signal
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from cornernet_bench.reports.outputs import console_for_report
from cornernet_bench.selftest.report import LAYERS, MODEL, Request
from cornernet_bench.selftest.run import SHORT_SECONDS, run_layer, run_selftest
from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.errors import CornerNetError, CornerNetWarning, OutputError
from cornernet_runtime.files import cache_folder, make_folder, write_atomically
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from cornernet_bench.selftest.report import Report

NAME = "selftest.json"
NOT_RUN = "not run"
SHORT = 40  # letters of a reason that stands in the closing line
_STYLES = {
    "passed": "green",
    "partly": "yellow",
    "failed": "bold red",
    "skipped": "yellow",
    "interrupted": "yellow",
    NOT_RUN: "dim",
}


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
        help=f"where the report goes, as JSON, in a folder that is there (default: {NAME} in the user's cache folder, "
        "replaced each time)",
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
    with _ended_as_by_ctrl_c():
        try:
            with console.status("looking at this machine") as status:  # turns while a layer says nothing

                def say(line: str) -> None:
                    console.print(line, style="dim", soft_wrap=True, markup=False)
                    status.update(escape(line))

                _check(request)
                keeper = _Keeper(arguments.report)

                def keep(report: Report) -> None:
                    keeper(report)
                    reports.append(report)

                run_selftest(request, say, keep)
        finally:
            if reports:
                _print(console_for_report(), reports[-1], keeper.file)
    if failed := [layer.layer for layer in reports[-1].layers if layer.state == "failed"]:
        raise CornerNetError(f"{count_of(len(failed), 'layer')} failed: {', '.join(failed)}")
    return 0


@contextlib.contextmanager
def _ended_as_by_ctrl_c() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does, so that it too keeps what is known and leaves nothing lying about."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(request: Request) -> None:
    """Refuse what cannot be done, before anything runs.

    Raises:
        CornerNetError: An option is for a layer that is left out, or the model or the pictures are none.
    """
    given = {"--model": request.model, "--images": request.images, "--architectures": request.architectures}
    needed = {"--model": "L6", "--images": "L6", "--architectures": "L2"}
    for option, layer in needed.items():
        if given[option] and layer not in request.layers:
            raise CornerNetError(
                f"{option} is for {layer}, and --layers names {','.join(request.layers)} only: "
                f"add {layer} there, or leave {option} out"
            )
    if request.images is not None:
        from cornernet_runtime.pictures import find_pictures  # noqa: PLC0415 - keeps --help quick

        find_pictures([request.images])
    if request.model is not None:
        found, interrupted = run_layer(MODEL, request, SHORT_SECONDS, lambda _line: None)
        if interrupted:
            raise KeyboardInterrupt
        if refused := found.figures.get("refused"):
            raise CornerNetError(refused)


class _Keeper:
    """Writes reports to a file; where the usual one cannot be written, and none was named, the user is told once."""

    def __init__(self, named: Path | None) -> None:
        self.file = named
        self._named = named is not None
        if named is None:
            try:
                self.file = _usual_file()
            except OutputError as error:
                self._tell(error)

    def __call__(self, report: Report) -> None:
        try:
            if self.file is not None:
                write_atomically(self.file, report.text())
        except OutputError as error:
            if self._named:
                raise
            self._tell(error)

    def _tell(self, error: OutputError) -> None:
        self.file = None
        warnings.warn(f"no report is kept: {error}; name a file with --report FILE", CornerNetWarning, stacklevel=3)


def _usual_file() -> Path:
    """Return where the report goes when no file is named.

    Raises:
        OutputError: There is no such folder.
    """
    folder = cache_folder()
    if folder is None:
        raise OutputError("there is no home folder")
    return make_folder(folder) / NAME


def _print(console: Console, report: Report, file: Path | None) -> None:
    if report.layers:
        _print_table(console, report)
    for layer in report.layers:
        style = _STYLES[layer.state]
        console.print(f"[{style}]{layer.layer} {layer.state}[/]: {escape(layer.said)}", soft_wrap=True)
        if stages := layer.figures.get("stages_ms"):
            each = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in stages.items())
            console.print(f"{layer.layer} milliseconds on the GPU, a frame: {each}", soft_wrap=True)
    console.print(_closing_line(report), soft_wrap=True, markup=False)
    whole = "not finished: part of the report" if report.partial else "report"
    if file is not None:
        console.print(f"{whole}, for whoever is to help: {file}", soft_wrap=True, markup=False)


def _print_table(console: Console, report: Report) -> None:
    """Print a row a layer; what was found needs more room than a column has."""
    table = Table("", "proves that", "", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("s", justify="right")
    for layer in report.layers:
        state = f"[{_STYLES[layer.state]}]{layer.state}[/]"
        table.add_row(layer.layer, layer.proves, state, f"{layer.seconds:.0f}")
    for name in report.not_run:
        table.add_row(name, LAYERS[name], f"[{_STYLES[NOT_RUN]}]{NOT_RUN}[/]", "-")
    console.print(table)
    console.print()


def _closing_line(report: Report) -> str:
    """Return how many layers ended how, such as ``4 passed, 1 skipped (L5: there is no GPU)``."""
    parts = []
    for state in _STYLES:
        named = [
            f"{layer.layer}: {layer.said}" if len(layer.said) <= SHORT else layer.layer
            for layer in report.layers
            if layer.state == state
        ]
        named = list(report.not_run) if state == NOT_RUN else named
        if named:
            parts.append(f"{len(named)} {state}" + ("" if state == "passed" else f" ({', '.join(named)})"))
    return ", ".join(parts)


def _layers(text: str) -> tuple[str, ...]:
    layers = tuple(text.split(","))
    if not set(layers) <= set(LAYERS):
        raise argparse.ArgumentTypeError(f"expected some of {','.join(LAYERS)}, got {text!r}")
    if twice := sorted(name for name in set(layers) if layers.count(name) > 1):
        raise argparse.ArgumentTypeError(f"expected each layer once, got {', '.join(twice)} twice")
    return layers


def _architectures(text: str) -> tuple[int, ...]:
    from cornernet_bench.kernels.resources import LIMITS  # noqa: PLC0415 - keeps --help quick

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
