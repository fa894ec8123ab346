"""``cornernet-export``: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from cornernet_runtime.cli.common import console_for_people, parse_size, run_command
from cornernet_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cornernet_runtime.bundle import Manifest, Verification
    from cornernet_runtime.spec import ModelSpec


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> int:
    from cornernet_export.bundle_export import ExportRequest, export_bundle  # noqa: PLC0415 - imports torch

    console = console_for_people()
    request = ExportRequest(
        checkpoint=arguments.checkpoint,
        output=arguments.output,
        sizes=tuple(arguments.size),
        dynamic=arguments.dynamic,
        arch=arguments.arch,
        class_names=None if arguments.classes is None else _read_names(arguments.classes),
        stacks=arguments.stacks,
        precision=arguments.precision,
        pictures=() if arguments.calibration is None else (arguments.calibration,),
        force=arguments.force,
    )
    with console.status("starting") as status:
        manifest = export_bundle(
            request,
            on_stage=status.update,
            on_verified=lambda verification: _print_verification(console, verification),
        )
    _print_summary(console, manifest, arguments.output)
    for problem in manifest.verification.problems:
        console.print(problem, style="yellow", soft_wrap=True, markup=False)
    if not manifest.verification.passed:
        console.print("kept because of --force, although it failed verification", style="yellow")
    return 0


def _print_verification(console: Console, verification: Verification) -> None:
    """Print for each stage one row an output, one column a source of input; a failure stands out in the last column."""
    for stage in dict.fromkeys(check.stage for check in verification.outputs):
        outputs = [check for check in verification.outputs if check.stage == stage]
        console.print(f"{stage}: largest error of each output, relative to its largest value", soft_wrap=True)
        table = Table("output", box=box.SIMPLE_HEAD)
        for heading in (*(f"on {source}" for source in dict.fromkeys(c.source for c in outputs)), "tolerance", ""):
            table.add_column(heading, justify="right")
        for name in dict.fromkeys(check.output for check in outputs):
            checks = [check for check in outputs if check.output == name]
            errors = ["not finite" if check.error > 1e38 else f"{check.error:.1e}" for check in checks]
            passed = all(check.passed for check in checks)
            table.add_row(name, *errors, f"{checks[0].tolerance:.0e}", _mark(passed))
        console.print(table)
        for pairs in (check for check in verification.detections if check.stage == stage):
            if pairs.reference + pairs.extra == 0:
                console.print(f"detections on the {pairs.source}: none of score 0.1 or more to compare")
                continue
            console.print(
                f"detections on the {pairs.source}: {pairs.matched} of {pairs.reference} matched, {pairs.extra} extra "
                f"({pairs.required:.0%} required)  {_mark(pairs.passed)}",
                soft_wrap=True,
            )


def _print_summary(console: Console, manifest: Manifest, output: Path) -> None:
    size = sum((output / name).stat().st_size for name in manifest.files) / 1e6
    console.print(
        f"{output}: {manifest.spec.name}, {len(manifest.spec.class_names)} classes, {_sizes(manifest.spec)}, "
        f"{manifest.spec.precision}, {size:.1f} MB",
        soft_wrap=True,
        markup=False,
    )


def _sizes(spec: ModelSpec) -> str:
    if spec.dynamic:
        return f"any size up to {spec.largest_size[0]}x{spec.largest_size[1]}"
    return " or ".join(f"{height}x{width}" for height, width in spec.sizes)


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as a list of class names: {error}") from error
    return tuple(name for line in lines if (name := line.strip()))


def _mark(passed: bool) -> str:
    return "[green]ok[/]" if passed else "[red]FAILED[/]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cornernet-export",
        description="Export a CornerNet checkpoint to a bundle: ONNX with its side-car, verified against PyTorch.",
    )
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="ours (.safetensors) or a published one (.pkl, .pth)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--size",
        type=parse_size,
        action="append",
        default=[],
        metavar="HxW",
        help="input size in pixels (default: the checkpoint's); again for a model that takes several",
    )
    parser.add_argument(
        "--dynamic",
        action="store_true",
        help="take any batch and size, frames at their own resolution; --size is then the largest (default 1023x1023)",
    )
    parser.add_argument("--arch", metavar="NAME", help="architecture to expect (default: what the checkpoint shows)")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, in order, one a line")
    parser.add_argument("--stacks", type=int, metavar="N", help="cut the network after its first N hourglasses")
    parser.add_argument(
        "--precision", choices=("fp32", "fp16"), default="fp32", help="of weights and activations (default fp32)"
    )
    parser.add_argument(
        "--calibration",
        metavar="DIR",
        help="pictures to verify on, and to look for fp16 overflow on (default: one that comes along)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the output folder if it exists, and keep an fp16 model that overflows or is off",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
