"""AP of a network in training, by the same runtime and the same judge as everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.accuracy import evaluate
from cornernet_export.torch_backend import TorchBackend
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import FrameError
from cornernet_train.pictures import CocoPictures

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_export.model import CornerNet
    from cornernet_runtime.spec import ModelSpec


def validation_ap(model: CornerNet, spec: ModelSpec, folder: Path) -> float:
    """Return COCO AP in points of 100 on a folder with ``annotations.json`` and ``images/``; NaN without objects.

    Raises:
        FrameError: The folder cannot be read, or lacks a class of the model.
    """
    detector = Detector(TorchBackend(model), spec)
    return evaluate(detector, folder / "annotations.json", folder / "images").metrics["ap"]


def check_validation(folder: Path, class_names: tuple[str, ...]) -> None:
    """Find out before training what would end it at its first validation.

    Raises:
        FrameError: The folder is no data set in COCO format, lacks a picture, or lacks a class.
    """
    pictures = CocoPictures(folder)
    if pictures.absent:
        raise FrameError(f"{folder}: {len(pictures.absent)} pictures are missing, such as {pictures.absent[0]}")
    lacking = [name for name in class_names if name not in pictures.class_names]
    if lacking:
        raise FrameError(f"{folder}: no category is named {', '.join(lacking)}; it has {list(pictures.class_names)}")
