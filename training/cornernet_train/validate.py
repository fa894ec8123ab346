"""AP of a network in training, by the same runtime and the same judge as everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.accuracy.evaluate import evaluate
from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import FrameError
from cornernet_runtime.wording import count_of
from cornernet_train.pictures import CocoPictures, coco_paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cornernet_export.model import CornerNet
    from cornernet_runtime.bundle.spec import ModelSpec


def validation_ap(model: CornerNet, spec: ModelSpec, data: Path, images: Path | None = None) -> float:
    """Return COCO AP in points of 100 on a data set, named as for ``CocoPictures``.

    Raises:
        FrameError: It cannot be read, or lacks a class of the model.
    """
    return evaluate(Detector(TorchBackend(model), spec), *coco_paths(data, images)).metrics["ap"]


def check_validation(data: Path, images: Path | None, class_names: tuple[str, ...]) -> Sequence[str]:
    """Find out before training what would end it at its first validation; return what looks wrong.

    Raises:
        FrameError: This is no data set in COCO format, lacks an object or a class, or a picture is missing or cannot be
            read.
    """
    pictures = CocoPictures(data, images)
    if pictures.absent:
        raise FrameError(f"{data}: {count_of(len(pictures.absent), 'picture')} missing, such as {pictures.absent[0]}")
    if pictures.objects == 0:
        raise FrameError(f"{data}: there is no object to measure AP on; leave --validation away")
    for index in range(len(pictures)):
        _ = pictures[index]  # raises where it cannot be read
    lacking = [name for name in class_names if name not in pictures.class_names]
    if lacking:
        raise FrameError(f"{data}: no category is named {', '.join(lacking)}; it has {list(pictures.class_names)}")
    return pictures.warnings
