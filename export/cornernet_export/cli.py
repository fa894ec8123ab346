"""``cornernet-export``: a checkpoint becomes a verified bundle."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_export.cli_report import print_engine, print_repository, print_summary, print_verification
from cornernet_export.cli_usage import complaint
from cornernet_export.triton.repository import TritonRequest, check_repository, write_repository
from cornernet_runtime.backends.tensorrt_plugin import search_plugin
from cornernet_runtime.cli.common import console_for_people, run_command
from cornernet_runtime.cli.options import parse_size
from cornernet_runtime.errors import CheckpointError
from cornernet_runtime.plugin import PLUGIN_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence


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
        print_repository(write_repository(_triton_request(arguments, bundle)))
    return 0


def _triton_request(arguments: argparse.Namespace, bundle: Path) -> TritonRequest:
    return TritonRequest(bundle, arguments.triton, arguments.plugin, arguments.force)


def _tell_what_is_missing() -> None:
    """Say before the export, which may take minutes, that there will be no engine; its error says what to do."""
    from cornernet_export.engine.build import why_no_engine  # noqa: PLC0415 - imports onnx

    missing = why_no_engine()
    if missing is not None:
        console_for_people().print(f"there will be no engine: {missing}", style="yellow", soft_wrap=True, markup=False)


def _add_engine(arguments: argparse.Namespace, bundle: Path) -> None:
    from cornernet_export.engine.add import EngineRequest, add_engine  # noqa: PLC0415 - imports onnx
    from cornernet_export.engine.build import EngineOptions  # noqa: PLC0415 - as above

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
            on_verified=lambda verification: print_verification(console, verification),
        )
    if manifest.engine is None:
        raise AssertionError("add_engine returned a bundle without an engine")
    print_engine(console, manifest.engine, bundle)
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
            on_verified=lambda verification: print_verification(console, verification),
        )
    print_summary(console, manifest, arguments.output)
    for problem in manifest.verification.problems:
        console.print(problem, style="yellow", soft_wrap=True, markup=False)
    if not manifest.verification.passed:
        console.print("kept because of --force, although it failed verification", style="yellow")


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read as a list of class names: {error}") from error
    return tuple(name for line in lines if (name := line.strip()))


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
