"""``cornernet-train``: make a data set of shapes, fit a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.cli.common import run_command

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    arguments = _parser().parse_args(argv)
    return run_command(lambda: arguments.run(arguments))


def _shapes(arguments: argparse.Namespace) -> int:
    from cornernet_train.shapes_dataset import write_shapes  # noqa: PLC0415 - keeps --help quick

    write_shapes(arguments.output, arguments.images, arguments.seed)
    return 0


def _fit(arguments: argparse.Namespace) -> int:
    from cornernet_train.data import CocoPictures, Pictures, ShapeScenes  # noqa: PLC0415 - imports torch
    from cornernet_train.loop import RECIPES, fit  # noqa: PLC0415 - imports torch

    recipe = RECIPES[arguments.config]
    pictures: Pictures
    if arguments.data == "shapes":
        pictures = ShapeScenes(recipe.seed, recipe.steps * recipe.batch)
    else:
        pictures = CocoPictures(Path(arguments.data))
    checkpoint = fit(recipe, pictures, arguments.output)
    print(checkpoint)  # noqa: T201 - the command's result
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cornernet-train", description="Train a CornerNet.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    shapes = commands.add_parser("shapes", help="write a data set of shapes in COCO format")
    shapes.add_argument("--output", type=Path, required=True, metavar="DIR", help="a new folder")
    shapes.add_argument("--images", type=_count, required=True, metavar="N", help="how many pictures")
    shapes.add_argument("--seed", type=_seed, default=0, metavar="S", help="another seed, other pictures (default 0)")
    shapes.set_defaults(run=_shapes)

    fit = commands.add_parser("fit", help="train a model")
    fit.add_argument("--config", required=True, choices=["cornernet-tiny"], help="named recipe: network and schedule")
    fit.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="a folder with annotations.json (COCO) and images/, or the word 'shapes' for endless fresh scenes",
    )
    fit.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the checkpoint and log.csv")
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
