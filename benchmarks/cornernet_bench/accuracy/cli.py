"""``cornernet-bench accuracy``: average precision of one model in detail, or of several side by side."""

from __future__ import annotations

import contextlib
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich import box
from rich.columns import Columns
from rich.markup import escape
from rich.progress import Progress, TaskID, track
from rich.table import Table

from cornernet_bench.model_names import CHECKPOINTS
from cornernet_bench.options import AS_OBJECT
from cornernet_bench.reports.outputs import check_outputs, check_picture, console_for_report, write_json
from cornernet_runtime.cli.common import INTERRUPTED, console_for_people
from cornernet_runtime.cli.options import RAY_OPTIONS, add_ray_options, add_view_options
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.wording import count_of, scales_note, too_large_note

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from cornernet_bench.accuracy.evaluate import Accuracy
    from cornernet_runtime.bundle.spec import ModelSpec

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
        help="what runs the network (default: the best here); a checkpoint runs in torch, torch-fp16 or torch-cuda",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"also write the numbers {AS_OBJECT}")
    parser.add_argument(
        "--curves", type=Path, metavar="FILE", help="also draw precision over recall, of one model (.png, .svg, .pdf)"
    )
    add_view_options(parser)
    cluster = parser.add_argument_group("many machines (bundles and .onnx files; docs/scaling.md)")
    add_ray_options(cluster)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    console = console_for_report(arguments.json)
    if arguments.curves and len(arguments.models) > 1:
        raise CornerNetError("--curves draws one model: name one, or leave it away")
    if arguments.ray is None and (given := [name for name in RAY_OPTIONS if getattr(arguments, name) is not None]):
        raise CornerNetError(f"--{given[0].replace('_', '-')} goes with --ray ADDRESS")
    check_picture(arguments.curves)
    check_outputs(arguments.json, arguments.curves)
    rows = _measure(arguments, console) if arguments.ray is None else _measure_on_ray(arguments, console)
    reports = [_report(row) for row in rows]
    try:  # files first: whoever reads the tables may stop in the midst of them
        write_json(arguments.json, reports[0] if len(reports) == 1 else {"models": reports})
        if arguments.curves:
            from cornernet_bench.accuracy.curves import draw_curves  # noqa: PLC0415 - an extra

            draw_curves(rows[0].accuracy, f"{rows[0].name}, AP {rows[0].accuracy.metrics['ap']:.2f}", arguments.curves)
    finally:
        _print(console, rows)
    return 0 if len(rows) == len(arguments.models) and rows[-1].accuracy.complete else INTERRUPTED


def _measure(arguments: argparse.Namespace, console: Console) -> list[Row]:
    """Return the models that were measured: all, or those that an interrupt left, the last of them in part."""
    from cornernet_bench.accuracy.evaluate import evaluate  # noqa: PLC0415 - keeps --help quick
    from cornernet_bench.models.open import open_model  # noqa: PLC0415

    progress = console_for_people()
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        views = {"flip": arguments.flip, "scales": arguments.scales}
        # All are opened before the first is measured: a name mistyped costs nothing then.
        detectors = [stack.enter_context(open_model(path, arguments.backend, **views)) for path in arguments.models]
        for path, detector in zip(arguments.models, detectors, strict=True):
            show = functools.partial(
                track, description=escape(path), console=progress, transient=True, disable=not progress.is_terminal
            )
            try:
                accuracy = evaluate(detector, arguments.annotations, arguments.images, show, keep_partial=True)
            except KeyboardInterrupt:
                if not rows:
                    raise
                console.print(f"interrupted: {path} and what follows was not measured", soft_wrap=True, markup=False)
                break
            view = View(detector.backend.name, detector.spec, detector.flip, tuple(detector.scales))
            rows.append(_noted(Row(path, view, accuracy), arguments, console, first=not rows))
            if not accuracy.complete:
                break
    return rows


def _measure_on_ray(arguments: argparse.Namespace, console: Console) -> list[Row]:
    """Return the models, whose detections a cluster computed, one model after the other."""
    from cornernet_bench.accuracy.ray import PART_SIZE, check_models, evaluate_on_ray  # noqa: PLC0415 - keeps --help quick
    from cornernet_runtime.cluster.request import ClusterRequest  # noqa: PLC0415 - as above

    check_models(arguments.models)
    progress = console_for_people()
    rows: list[Row] = []
    for path in arguments.models:
        with Progress(console=progress, transient=True, disable=not progress.is_terminal) as shown:
            task = shown.add_task(escape(path), total=None)

            def show(done: int, total: int, _: object, task: TaskID = task, shown: Progress = shown) -> None:
                shown.update(task, completed=done, total=total or None)

            request = ClusterRequest(
                model=path,
                sources=(),
                output=None,
                address=arguments.ray,
                workers=arguments.workers,
                worker_cpus=arguments.worker_cpus or 1,
                worker_gpus=arguments.worker_gpus or 0.0,
                backend=arguments.backend,
                score=0.0,
                flip=arguments.flip,
                scales=arguments.scales,
                part_size=PART_SIZE,
            )
            summary, accuracy = evaluate_on_ray(request, arguments.annotations, arguments.images, show)
        view = View(summary.parts[0].backend, summary.spec, request.flip, tuple(summary.scales))
        rows.append(_noted(Row(path, view, accuracy), arguments, console, first=not rows))
    return rows


def _noted(row: Row, arguments: argparse.Namespace, console: Console, *, first: bool) -> Row:
    """Print what is to be noted about a row, which is returned."""
    notes = [f"{arguments.annotations}: {line}" for line in row.accuracy.notes if first]
    too_large = too_large_note(row.accuracy.scaled_down, row.view.spec.largest_size)
    views_notes = scales_note(arguments.scales, row.view.scales), too_large
    for line in (*(f"note: {note}" for note in notes), *(f"{row.path}: {note}" for note in views_notes if note)):
        console.print(line, soft_wrap=True, markup=False)
    return row


class View(NamedTuple):
    """How a model looked at pictures."""

    backend: str
    spec: ModelSpec
    flip: bool
    scales: tuple[float, ...]


class Row(NamedTuple):
    """A model that was measured."""

    path: str
    view: View
    accuracy: Accuracy

    @property
    def geometry(self) -> str:
        """How the model took the pictures."""
        spec = self.view.spec
        return spec.geometry if spec.geometry == "native" else " ".join(f"{h}x{w}" for h, w in spec.sizes)

    @property
    def name(self) -> str:
        """The model, what ran it and how it took the pictures."""
        file = Path(self.path)
        stem = file.stem if file.suffix in CHECKPOINTS else file.name
        return f"{stem} in {self.view.backend}, {self.geometry}"


def _report(row: Row) -> dict[str, Any]:
    accuracy, view = row.accuracy, row.view
    return {
        "model": row.path,
        "backend": view.backend,
        "geometry": view.spec.geometry,
        "sizes": [] if view.spec.dynamic else [list(size) for size in view.spec.sizes],
        "flip": view.flip,
        "scales": list(view.scales),
        "complete": accuracy.complete,
        "pictures": accuracy.pictures,
        "listed": accuracy.listed,
        "objects": accuracy.objects,
        "scaled_down": accuracy.scaled_down,
        "detect_ms": accuracy.detect_ms,
        **_without_nan(accuracy.metrics),
        "per_class": _without_nan(accuracy.per_class),
    }


def _print(console: Console, rows: list[Row]) -> None:
    if len(rows) == 1:
        _print_one(console, rows[0])
    else:
        _print_several(console, rows)
    accuracy = rows[-1].accuracy
    if not accuracy.complete:
        seen = f"{accuracy.pictures} of {count_of(accuracy.listed, 'picture')}"
        console.print(
            f"interrupted: {rows[-1].path}: {seen} were seen, and its figures are of them alone",
            soft_wrap=True,
            markup=False,
        )


def _print_one(console: Console, row: Row) -> None:
    accuracy = row.accuracy
    console.print(
        f"{row.name}: {_extent(accuracy)}, about {accuracy.detect_ms:.1f} ms a picture from frame to boxes; "
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


def _print_several(console: Console, rows: list[Row]) -> None:
    title = f"{_extent(rows[0].accuracy)}; about ms from frame to boxes, COCO metrics in points of 100"
    console.print(title, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", overflow="fold")  # what tells two models apart may stand at the end
    for heading in ("ms", *COMPARED.values()):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        points = [_points(row.accuracy.metrics[name]) for name in COMPARED]
        table.add_row(escape(row.name), f"{row.accuracy.detect_ms:.1f}", *points)
    console.print(table)


def _extent(accuracy: Accuracy) -> str:
    return f"{count_of(accuracy.pictures, 'picture')}, {count_of(accuracy.objects, 'object')}"


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
