"""``cornernet-bench``: what a model is worth."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.columns import Columns
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from cornernet_runtime.cli.common import add_view_options, console_for_people, run_command, scales_note
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cornernet_bench.accuracy import Accuracy


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: arguments.run(arguments))


def _accuracy(arguments: argparse.Namespace) -> int:
    from cornernet_bench.accuracy import evaluate  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.models import open_model  # noqa: PLC0415

    console = console_for_people()
    with open_model(arguments.model, arguments.backend, flip=arguments.flip, scales=arguments.scales) as detector:
        accuracy = evaluate(
            detector,
            arguments.annotations,
            arguments.images,
            lambda ids: track(ids, "detecting", console=console, transient=True, disable=not console.is_terminal),
        )
        backend, scales = detector.backend.name, detector.scales
    title = f"{arguments.model} in {backend}"
    _print_accuracy(console, accuracy, title)
    if note := scales_note(arguments.scales, scales):
        console.print(note, soft_wrap=True)
    if arguments.json:
        content = {
            "model": str(arguments.model),
            "backend": backend,
            "flip": arguments.flip,
            "scales": list(scales),
            "pictures": accuracy.pictures,
            "detect_ms": accuracy.detect_ms,
            **_without_nan(accuracy.metrics),
            "per_class": _without_nan(accuracy.per_class),
        }
        write_atomically(arguments.json, json.dumps(content, indent=2) + "\n")
    if arguments.curves:
        from cornernet_bench.curves import draw_curves  # noqa: PLC0415 - an extra

        draw_curves(accuracy, f"{title}, AP {accuracy.metrics['ap']:.2f}", arguments.curves)
    return 0


def _print_accuracy(console: Console, accuracy: Accuracy, title: str) -> None:
    console.print(
        f"{title}: {accuracy.pictures} pictures, {accuracy.detect_ms:.1f} ms each from frame to boxes; "
        "COCO metrics, points of 100",
        soft_wrap=True,
        markup=False,
    )
    metrics, classes = Table("metric", box=box.SIMPLE_HEAD), Table("class", box=box.SIMPLE_HEAD)
    for table, heading, values in (
        (metrics, "value", accuracy.metrics.items()),
        (classes, "AP", accuracy.per_class.items()),
    ):
        table.add_column(heading, justify="right")
        for name, value in values:
            table.add_row(escape(name), "-" if math.isnan(value) else f"{value:.2f}")
    console.print(Columns([metrics, classes]))


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cornernet-bench", description="Measure a CornerNet.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    accuracy = commands.add_parser("accuracy", help="average precision on a data set in COCO format")
    accuracy.add_argument("model", metavar="MODEL", help="a bundle, an .onnx file or a checkpoint")
    accuracy.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="COCO instances file")
    accuracy.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its pictures")
    accuracy.add_argument("--backend", metavar="NAME", help="what runs the network (default: the best here)")
    accuracy.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers as one object")
    accuracy.add_argument("--curves", type=Path, metavar="FILE", help="also draw precision over recall (.png, .svg)")
    add_view_options(accuracy)
    accuracy.set_defaults(run=_accuracy)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
