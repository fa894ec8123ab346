"""``cornernet-export``: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from cornernet_runtime.cli.common import console_for_people, run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cornernet_runtime.bundle import Manifest, Verification


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> int:
    from cornernet_export.bundle_export import ExportRequest, export_bundle  # noqa: PLC0415 - imports torch

    console = console_for_people()
    request = ExportRequest(arguments.checkpoint, arguments.output, arguments.size, arguments.force)
    with console.status("starting") as status:
        manifest = export_bundle(
            request,
            on_stage=status.update,
            on_verified=lambda verification: _print_verification(console, verification),
        )
    _print_summary(console, manifest, arguments.output)
    return 0


def _print_verification(console: Console, verification: Verification) -> None:
    """Print one row an output, one column a source of input; a failure stands out in the last column."""
    first = verification.outputs[0]
    sources = list(dict.fromkeys(check.source for check in verification.outputs))
    console.print(f"{first.stage}: largest error of each output, relative to its largest value", soft_wrap=True)
    table = Table("output", box=box.SIMPLE_HEAD)
    for heading in (*(f"on {source}" for source in sources), "tolerance", ""):
        table.add_column(heading, justify="right")
    for name in dict.fromkeys(check.output for check in verification.outputs):
        checks = [check for check in verification.outputs if check.output == name]
        errors = [f"{check.error:.1e}" for check in checks]
        table.add_row(name, *errors, f"{first.tolerance:.0e}", _mark(all(check.passed for check in checks)))
    console.print(table)
    for pairs in verification.detections:
        console.print(
            f"detections on the {pairs.source}: {pairs.matched} of {pairs.reference} matched, {pairs.extra} extra "
            f"({pairs.required:.0%} required)  {_mark(pairs.passed)}",
            soft_wrap=True,
        )


def _print_summary(console: Console, manifest: Manifest, output: Path) -> None:
    height, width = manifest.spec.input_size
    size = sum((output / name).stat().st_size for name in manifest.files) / 1e6
    console.print(
        f"{output}: {manifest.spec.name}, {len(manifest.spec.class_names)} classes, {height}x{width}, "
        f"{manifest.spec.precision}, {size:.1f} MB",
        soft_wrap=True,
        markup=False,
    )


def _mark(passed: bool) -> str:
    return "[green]ok[/]" if passed else "[red]FAILED[/]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cornernet-export",
        description="Export a CornerNet checkpoint to a bundle: ONNX with its side-car, verified against PyTorch.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a .safetensors checkpoint")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--size", type=_size, metavar="HxW", help="input size in pixels (default: the checkpoint's)")
    parser.add_argument("--force", action="store_true", help="replace the output folder if it exists")
    return parser


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected HxW such as 511x511, got {text!r}")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    raise SystemExit(main())
