"""``cornernet-bench``: what a model is worth."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.progress import track
from rich.table import Table

from cornernet_runtime.cli.common import add_view_options, console_for_people, run_command, scales_note
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: arguments.run(arguments))


def _accuracy(arguments: argparse.Namespace) -> int:
    from cornernet_bench.accuracy import evaluate  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.models import open_model  # noqa: PLC0415

    console = console_for_people()
    with open_model(arguments.model, arguments.backend, flip=arguments.flip, scales=arguments.scales) as detector:
        metrics = evaluate(
            detector,
            arguments.annotations,
            arguments.images,
            lambda ids: track(ids, "detecting", console=console, transient=True, disable=not console.is_terminal),
        )
        backend, scales = detector.backend.name, detector.scales
    console.print(f"{arguments.model} in {backend}: COCO metrics, points of 100", soft_wrap=True, markup=False)
    if note := scales_note(arguments.scales, scales):
        console.print(note, soft_wrap=True)
    table = Table("metric", box=box.SIMPLE_HEAD)
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, "-" if math.isnan(value) else f"{value:.2f}")
    console.print(table)
    if arguments.json:
        numbers = {name: None if math.isnan(value) else value for name, value in metrics.items()}
        views = {"flip": arguments.flip, "scales": list(scales)}
        content = {"model": str(arguments.model), "backend": backend, **views, **numbers}
        write_atomically(arguments.json, json.dumps(content, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cornernet-bench", description="Measure a CornerNet.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    accuracy = commands.add_parser("accuracy", help="average precision on a data set in COCO format")
    accuracy.add_argument("model", metavar="MODEL", help="a bundle, an .onnx file or a checkpoint")
    accuracy.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="COCO instances file")
    accuracy.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its pictures")
    accuracy.add_argument("--backend", metavar="NAME", help="what runs the network (default: the best here)")
    accuracy.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers as one object")
    add_view_options(accuracy)
    accuracy.set_defaults(run=_accuracy)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
