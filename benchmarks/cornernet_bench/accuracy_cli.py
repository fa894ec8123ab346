"""``cornernet-bench accuracy``: average precision of one model in detail, or of several side by side."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.columns import Columns
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from cornernet_runtime.cli.common import add_view_options, console_for_people, scales_note
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from cornernet_bench.accuracy import Accuracy

COMPARED = {"ap": "AP", "ap50": "AP50", "ap_small": "small", "ap_medium": "medium", "ap_large": "large"}


def add_command(commands: Any) -> None:  # noqa: ANN401 - argparse's type is private
    """Add the command to those of ``cornernet-bench``."""
    parser = commands.add_parser("accuracy", help="average precision on a data set in COCO format")
    parser.add_argument("models", metavar="MODEL", nargs="+", help="a bundle, an .onnx file or a checkpoint")
    parser.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="COCO instances file")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of its pictures")
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help="what runs the network (default: the best here); a checkpoint runs in torch or torch-fp16",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers as one object")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="also draw precision over recall (.png, .svg)")
    add_view_options(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    console = console_for_people()
    if arguments.curves and len(arguments.models) > 1:
        raise CornerNetError("--curves draws one model: name one, or leave it away")
    reports, rows = [], []
    for model in arguments.models:
        accuracy, backend, scales = _evaluate(model, arguments, console)
        rows.append((model, backend, accuracy))
        if note := scales_note(arguments.scales, scales):
            console.print(f"{model}: {note}", soft_wrap=True, markup=False)
        reports.append(
            {
                "model": str(model),
                "backend": backend,
                "flip": arguments.flip,
                "scales": list(scales),
                "pictures": accuracy.pictures,
                "detect_ms": accuracy.detect_ms,
                **_without_nan(accuracy.metrics),
                "per_class": _without_nan(accuracy.per_class),
            }
        )
    if len(rows) == 1:
        _print_one(console, *rows[0])
    else:
        _print_several(console, rows)
    if arguments.json:
        content = reports[0] if len(reports) == 1 else {"models": reports}
        write_atomically(arguments.json, json.dumps(content, indent=2) + "\n")
    if arguments.curves:
        from cornernet_bench.curves import draw_curves  # noqa: PLC0415 - an extra

        model, backend, accuracy = rows[0]
        draw_curves(accuracy, f"{model} in {backend}, AP {accuracy.metrics['ap']:.2f}", arguments.curves)
    return 0


def _evaluate(model: str, arguments: argparse.Namespace, console: Console) -> tuple[Accuracy, str, tuple[float, ...]]:
    from cornernet_bench.accuracy import evaluate  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.models import open_model  # noqa: PLC0415

    with open_model(model, arguments.backend, flip=arguments.flip, scales=arguments.scales) as detector:
        accuracy = evaluate(
            detector,
            arguments.annotations,
            arguments.images,
            lambda ids: track(ids, escape(model), console=console, transient=True, disable=not console.is_terminal),
        )
        return accuracy, detector.backend.name, detector.scales


def _print_one(console: Console, model: str, backend: str, accuracy: Accuracy) -> None:
    console.print(
        f"{model} in {backend}: {accuracy.pictures} pictures, {accuracy.detect_ms:.1f} ms each from frame to boxes; "
        "COCO metrics, points of 100",
        soft_wrap=True,
        markup=False,
    )
    metrics, classes = Table("metric", box=box.SIMPLE_HEAD), Table("class", box=box.SIMPLE_HEAD)
    for table, heading, values in ((metrics, "value", accuracy.metrics), (classes, "AP", accuracy.per_class)):
        table.add_column(heading, justify="right")
        for name, value in values.items():
            table.add_row(escape(name), _points(value))
    console.print(Columns([metrics, classes]))


def _print_several(console: Console, rows: list[tuple[str, str, Accuracy]]) -> None:
    console.print(f"{rows[0][2].pictures} pictures; ms from frame to boxes, COCO metrics in points of 100")
    table = Table("model", box=box.SIMPLE_HEAD)
    for heading in ("ms", *COMPARED.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for model, backend, accuracy in rows:
        points = [_points(accuracy.metrics[name]) for name in COMPARED]
        name = Path(model).stem if backend == "torch" else Path(model).name
        table.add_row(escape(f"{name} in {backend}"), f"{accuracy.detect_ms:.1f}", *points)
    console.print(table)


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
