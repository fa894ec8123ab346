"""What ``cornernet-export`` prints of what it made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from cornernet_runtime.bundle.manifest import ENGINE_NAME
from cornernet_runtime.cli.common import console_for_people

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from cornernet_export.triton.repository import TritonRepository
    from cornernet_runtime.bundle.engine_record import EngineRecord
    from cornernet_runtime.bundle.manifest import DetectionCheck, Manifest, Verification
    from cornernet_runtime.bundle.spec import ModelSpec


def print_verification(console: Console, verification: Verification) -> None:
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
            if pairs.reference + pairs.extra + pairs.extra_near_ties == 0:
                console.print(f"detections on the {pairs.source}: none of score 0.1 or more to compare")
                continue
            console.print(
                f"detections on the {pairs.source}: {pairs.matched} of {pairs.reference} matched, {_near_ties(pairs)}"
                f"{pairs.extra} extra ({pairs.required:.0%} required)  {_mark(pairs.passed)}",
                soft_wrap=True,
            )


def _near_ties(pairs: DetectionCheck) -> str:
    """Return how many differences are near ties, for the line of the detections; nothing if none is."""
    count = pairs.near_ties + pairs.extra_near_ties
    return f"{count} more differ by near ties only, " if count else ""


def print_summary(console: Console, manifest: Manifest, output: Path) -> None:
    """Print what the bundle is."""
    size = sum((output / name).stat().st_size for name in manifest.files) / 1e6
    console.print(
        f"{output}: {manifest.spec.name}, {len(manifest.spec.class_names)} classes, {_sizes(manifest.spec)}, "
        f"{manifest.spec.precision}, {size:.1f} MB",
        soft_wrap=True,
        markup=False,
    )


def print_engine(console: Console, engine: EngineRecord, bundle: Path) -> None:
    """Print what the engine is and what it is made of."""
    pools = "standard operators" if engine.plugin is None else f"plugin {engine.plugin.version}"
    types = ", ".join(f"{count} {name}" for name, count in engine.precisions.items())
    console.print(
        f"{bundle / ENGINE_NAME}: TensorRT {engine.tensorrt}, {engine.gpu}, compute capability "
        f"{engine.compute_capability}, {(bundle / ENGINE_NAME).stat().st_size / 1e6:.1f} MB\n"
        f"  input {' or '.join(map(str, engine.profiles))}; corner pooling by {pools}\n"
        f"  {engine.layers} layers, {engine.reformat_layers} of them reformat, {engine.plugin_layers} plugin; "
        f"their outputs: {types}",
        soft_wrap=True,
        markup=False,
    )
    if engine.portable:
        console.print(
            "  portable: the plan carries executable code; opening it needs Detector.open(..., allow_engine_code=True)",
            soft_wrap=True,
            style="yellow",
        )


def print_repository(repository: TritonRepository) -> None:
    """Print what clients call, what Triton needs to run it, and the command that starts it."""
    console = console_for_people()
    console.print(
        f"{repository.folder}: clients call {repository.model}, which calls {repository.network}; that needs "
        f"{repository.needs}\nto serve it: {repository.command}",
        soft_wrap=True,
        markup=False,
    )
    if repository.problem is not None:
        console.print(repository.problem, style="yellow", soft_wrap=True, markup=False)


def _sizes(spec: ModelSpec) -> str:
    if spec.dynamic:
        return f"any size up to {spec.largest_size[0]}x{spec.largest_size[1]}"
    return " or ".join(f"{height}x{width}" for height, width in spec.sizes)


def _mark(passed: bool) -> str:
    return "[green]ok[/]" if passed else "[red]FAILED[/]"
