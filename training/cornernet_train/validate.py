"""AP of a network in training, by the same runtime and the same judge as everywhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.accuracy import evaluate
from cornernet_export.torch_backend import TorchBackend
from cornernet_runtime.detector import Detector

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
    return float(evaluate(detector, folder / "annotations.json", folder / "images")["ap"])
