"""``cornernet-export``: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from cornernet_export.cli_usage import complaint
from cornernet_export.triton_repository import TritonRequest, check_repository, write_repository
from cornernet_runtime.backends.tensorrt_plugin import search_plugin
from cornernet_runtime.bundle import ENGINE_NAME
from cornernet_runtime.cli.common import console_for_people, parse_size, run_command
from cornernet_runtime.errors import CheckpointError
from cornernet_runtime.plugin import PLUGIN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cornernet_export.triton_repository import TritonRepository
    from cornernet_runtime.bundle import DetectionCheck, Manifest, Verification
    from cornernet_runtime.engine_record import EngineRecord
    from cornernet_runtime.spec import ModelSpec


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    wrong = complaint(arguments, parser)
    if wrong:
        parser.error(wrong)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    if arguments.engine:
        search_plugin(arguments.plugin)  # before minutes of work
    bundle = arguments.checkpoint if arguments.output is None else arguments.output
    if arguments.triton is not None:
        check_repository(_triton_request(arguments, bundle))  # as above
    if arguments.output is not None:
        if arguments.engine:
            _tell_what_is_missing()
        _export(arguments)
    if arguments.engine:
        _add_engine(arguments, bundle)
    if arguments.triton is not None:
        _print_repository(write_repository(_triton_request(arguments, bundle)))
    return 0


def _triton_request(arguments: argparse.Namespace, bundle: Path) -> TritonRequest:
    return TritonRequest(bundle, arguments.triton, arguments.plugin, arguments.force)


def _tell_what_is_missing() -> None:
    """Say before the export, which may take minutes, that there will be no engine; its error says what to do."""
    from cornernet_export.engine_build import why_no_engine  # noqa: PLC0415 - imports onnx

    missing = why_no_engine()
    if missing is not None:
        console_for_people().print(f"there will be no engine: {missing}", style="yellow", soft_wrap=True, markup=False)


def _add_engine(arguments: argparse.Namespace, bundle: Path) -> None:
    from cornernet_export.engine import EngineRequest, add_engine  # noqa: PLC0415 - imports onnx
    from cornernet_export.engine_build import EngineOptions  # noqa: PLC0415 - as above

    console = console_for_people()
    options = EngineOptions(
        plugin=arguments.plugin,
        require_plugin=arguments.require_plugin,
        portable=arguments.portable,
        timing_cache=arguments.timing_cache,
        optimization_level=arguments.optimization_level,
        hardware_compatibility=arguments.hardware_compatibility,
        tf32=arguments.tf32,
        keep_failed=arguments.force,
    )
    pictures = () if arguments.calibration is None else (arguments.calibration,)
    with console.status("starting") as status:
        manifest = add_engine(
            EngineRequest(bundle, options, pictures),
            on_stage=status.update,
            on_verified=lambda verification: _print_verification(console, verification),
        )
    if manifest.engine is None:
        raise AssertionError("add_engine returned a bundle without an engine")
    _print_engine(console, manifest.engine, bundle)
    if not manifest.verification.passed:
        console.print("kept because of --force, although it failed verification", style="yellow")
    if manifest.engine.plugin is not None and not options.portable and search_plugin() is None:
        console.print(f"to run it: export {PLUGIN_VARIABLE}={arguments.plugin.resolve()}", soft_wrap=True, markup=False)


def _export(arguments: argparse.Namespace) -> None:
    from cornernet_export.bundle_export import ExportRequest, export_bundle  # noqa: PLC0415 - imports torch

    console = console_for_people()
    request = ExportRequest(
        checkpoint=arguments.checkpoint,
        output=arguments.output,
        sizes=tuple(arguments.size),
        batch=arguments.batch,
        dynamic=arguments.dynamic,
        arch=arguments.arch,
        class_names=None if arguments.classes is None else _read_names(arguments.classes),
        stacks=arguments.stacks,
        precision=arguments.precision,
        target=arguments.target,
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


def _print_summary(console: Console, manifest: Manifest, output: Path) -> None:
    size = sum((output / name).stat().st_size for name in manifest.files) / 1e6
    console.print(
        f"{output}: {manifest.spec.name}, {len(manifest.spec.class_names)} classes, {_sizes(manifest.spec)}, "
        f"{manifest.spec.precision}, {size:.1f} MB",
        soft_wrap=True,
        markup=False,
    )


def _print_engine(console: Console, engine: EngineRecord, bundle: Path) -> None:
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


def _print_repository(repository: TritonRepository) -> None:
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
        usage="cornernet-export CHECKPOINT --output DIR [options]\n"
        "       cornernet-export BUNDLE [--engine] [--triton DIR] [options]",
        description="Export a CornerNet checkpoint to a bundle: ONNX with its side-car, verified against PyTorch.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="CHECKPOINT",
        help="ours (.safetensors) or a published one (.pkl, .pth); with --engine or --triton also a bundle",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to make; not with a bundle")
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
    parser.add_argument(
        "--batch",
        type=_batch,
        default=(1, 1, 1),
        metavar="N|MIN:OPT:MAX",
        help="pictures a run: up to N, or least, usual and most (default 1)",
    )
    parser.add_argument("--arch", metavar="NAME", help="architecture to expect (default: what the checkpoint shows)")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, in order, one a line")
    parser.add_argument("--stacks", type=int, metavar="N", help="cut the network after its first N hourglasses")
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of weights and activations (default fp32)",
    )
    parser.add_argument(
        "--calibration",
        metavar="DIR",
        help="pictures to verify on, and to look for fp16 overflow on (default: one that comes along); int8 needs some "
        "hundred, of which it takes up to 256",
    )
    parser.add_argument(
        "--target",
        choices=("cpu", "tensorrt"),
        default="cpu",
        help="who runs an int8 model: ONNX Runtime on a CPU (default), or TensorRT",
    )
    parser.add_argument(
        "--triton",
        type=Path,
        metavar="DIR",
        help="also make a model repository for Triton, of the engine or the ONNX file",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace the output folders if they exist, and keep an fp16 or int8 model or an engine that is off",
    )
    _add_engine_options(parser.add_argument_group("TensorRT engine"))
    return parser


def _add_engine_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--engine", action="store_true", help="also build the engine, for this GPU and TensorRT")
    group.add_argument(
        "--plugin",
        type=Path,
        metavar="FILE",
        help="libcornernet_plugins.so (default: $CORNERNET_PLUGIN, the installed one, build/release of a checkout)",
    )
    group.add_argument("--require-plugin", action="store_true", help="fail where the plugin is missing or not taken")
    group.add_argument(
        "--portable",
        action="store_true",
        help="an engine that later versions of TensorRT run too; it carries code, which the runtime has to be allowed",
    )
    group.add_argument(
        "--timing-cache", type=Path, metavar="FILE", help="what TensorRT measured (default: in the user's cache folder)"
    )
    group.add_argument(
        "--optimization-level",
        type=int,
        choices=range(6),
        default=3,
        help="from fastest to build to fastest to run (default 3)",
    )
    group.add_argument(
        "--hardware-compatibility",
        choices=("none", "ampere_plus", "same_compute_capability"),
        default="none",
        help="on which other GPUs the engine runs, at a cost in speed (default none)",
    )
    group.add_argument("--tf32", action="store_true", help="let fp32 be rounded to TF32: faster, less exact")


def _batch(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,4})(?::(\d{1,4}):(\d{1,4}))?", text)
    smallest, usual, most = (int(part) for part in match.groups(default="0")) if match else (0, 0, 0)
    if match and match[2] is None:
        smallest, usual, most = 1, smallest, smallest
    if not 1 <= smallest <= usual <= most:
        raise argparse.ArgumentTypeError(f"expected N, or rising MIN:OPT:MAX, such as 8 or 1:4:8, got {text!r}")
    return smallest, usual, most


if __name__ == "__main__":
    raise SystemExit(main())
