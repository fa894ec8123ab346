"""``cornernet-train``: make a data set of shapes, fit a model."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.bundle.spec import check_side
from cornernet_runtime.cli.common import run_command
from cornernet_runtime.cli.options import parse_size
from cornernet_runtime.errors import CornerNetError
from cornernet_train.recipe import RECIPES, Augmentation, stored_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cornernet_train.recipe import Recipe

SHORT_VALIDATIONS = 10  # at least, of a training whose steps are given
VALIDATION_SCENES = 100
VALIDATION_SEED = 1_000_003  # no recipe's seed, nor one that people measure on
# Fields of the recipe that have a flag.
OVERRIDES = ("input_size", "steps", "batch", "learning_rate", "schedule", "validate_every", "save_every", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.run is _shapes:
        given = [bool(value) for value in (arguments.output, arguments.images, arguments.video)]
        if given not in ([True, True, False], [False, False, True]):
            parser.error("shapes writes pictures (--output DIR --images N) or a video (--video FILE)")
    return run_command(lambda: arguments.run(arguments))


def _shapes(arguments: argparse.Namespace) -> int:
    if arguments.video:
        from cornernet_train.shapes_video import write_shapes_video  # noqa: PLC0415 - keeps --help quick

        write_shapes_video(arguments.video, arguments.seconds, arguments.seed)
        return 0
    from cornernet_train.shapes_dataset import write_shapes  # noqa: PLC0415

    write_shapes(arguments.output, arguments.images, arguments.seed)
    return 0


def _fit(arguments: argparse.Namespace) -> int:
    from cornernet_export.model import preset  # noqa: PLC0415 - imports torch
    from cornernet_train.loop import FitRequest, fit, prepare_folder  # noqa: PLC0415 - imports torch
    from cornernet_train.pictures import CocoPictures, Pictures, ShapeScenes  # noqa: PLC0415

    recipe = _recipe(arguments)
    for side in recipe.input_size:
        check_side(side, preset(recipe.arch).modulus)
    pictures: Pictures
    validation = arguments.validation
    if arguments.data == "shapes":
        recipe = replace(recipe, augmentation=Augmentation())  # scenes are endless, so none is varied
        pictures = ShapeScenes(recipe.seed, recipe.steps * recipe.batch)
        prepare_folder(arguments.output, resume=arguments.resume)
        validation = validation or _validation_scenes(arguments.output)
    else:
        pictures = CocoPictures(Path(arguments.data), arguments.images)
    request = FitRequest(
        recipe,
        arguments.output,
        checkpoint=arguments.checkpoint,
        validation=validation,
        validation_images=arguments.validation_images,
        resume=arguments.resume,
        strict=arguments.strict,
        workers=arguments.workers,
        device=arguments.device,
    )
    print(fit(request, pictures))  # noqa: T201 - the command's result
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe:
    """Return the named recipe, or the one that is resumed, with the fields that flags give."""
    given = {name: getattr(arguments, name) for name in OVERRIDES if getattr(arguments, name) is not None}
    recipe = RECIPES[arguments.config]
    if arguments.resume:
        recipe = stored_recipe(arguments.output, recipe)
    elif "steps" in given and "validate_every" not in given:
        given["validate_every"] = min(recipe.validate_every, max(1, given["steps"] // SHORT_VALIDATIONS))
    try:
        return replace(recipe, **given)
    except ValueError as error:
        raise CornerNetError(str(error)) from error


def _validation_scenes(output: Path) -> Path:
    """Draw the scenes on which training on shapes is validated, unless an earlier run did."""
    from cornernet_runtime.files import make_folder  # noqa: PLC0415 - keeps --help quick
    from cornernet_train.shapes_dataset import write_shapes  # noqa: PLC0415

    folder = make_folder(output) / "validation"
    if not (folder / "annotations.json").exists():
        write_shapes(folder, VALIDATION_SCENES, VALIDATION_SEED)
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cornernet-train", description="Train a CornerNet.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    shapes = commands.add_parser("shapes", help="write a data set of shapes in COCO format, or a video of them")
    shapes.add_argument("--output", type=Path, metavar="DIR", help="a new folder")
    shapes.add_argument("--images", type=_count, metavar="N", help="how many pictures")
    shapes.add_argument("--video", type=Path, metavar="FILE", help="an .mp4 of shapes that move, instead of pictures")
    shapes.add_argument("--seconds", type=_count, default=6, metavar="N", help="of the video (default 6)")
    shapes.add_argument("--seed", type=_seed, default=0, metavar="S", help="another seed, other pictures (default 0)")
    shapes.set_defaults(run=_shapes)

    fit = commands.add_parser("fit", help="train a model")
    fit.add_argument("--config", required=True, choices=list(RECIPES), help="named recipe: network and schedule")
    fit.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="a folder with annotations.json (COCO) and images/, a COCO instances file, or the word 'shapes' for "
        "endless fresh scenes",
    )
    fit.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for checkpoints, training state and log"
    )
    fit.add_argument("--images", type=Path, metavar="DIR", help="pictures of a COCO file (default: images/ beside it)")
    fit.add_argument("--resume", action="store_true", help="go on with the training in --output")
    fit.add_argument("--checkpoint", type=Path, metavar="FILE", help="begin with these weights; classes may be others")
    fit.add_argument("--validation", type=Path, metavar="DATA", help="another such folder or file, to measure AP on")
    fit.add_argument("--validation-images", type=Path, metavar="DIR", help="as --images")
    fit.add_argument(
        "--strict", action="store_true", help="end when a picture cannot be read, instead of leaving it out"
    )
    fit.add_argument("--workers", type=_seed, default=1, metavar="N", help="processes that make batches (default 1)")
    fit.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to train (default cpu)")
    fit.add_argument(
        "--size", type=parse_size, dest="input_size", metavar="HxW", help="of the input, instead of the recipe's"
    )
    fit.add_argument("--steps", type=_count, metavar="N", help="optimiser steps, instead of the recipe's")
    fit.add_argument("--batch", type=_count, metavar="N", help="pictures a step, instead of the recipe's")
    fit.add_argument("--learning-rate", type=float, metavar="RATE", help="peak, instead of the recipe's")
    fit.add_argument("--schedule", choices=["one-cycle", "step"], help="of the learning rate, instead of the recipe's")
    fit.add_argument(
        "--validate-every",
        type=_count,
        metavar="N",
        help="steps between validations (default: the recipe's, and at most a tenth of --steps)",
    )
    fit.add_argument("--save-every", type=_count, metavar="N", help="steps between saves, instead of the recipe's")
    fit.add_argument("--seed", type=_seed, metavar="S", help="instead of the recipe's")
    fit.set_defaults(run=_fit)
    return parser


def _count(text: str) -> int:
    return _at_least(1, text)


def _seed(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
