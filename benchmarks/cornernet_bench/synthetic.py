"""Corner maps and candidates to measure with, of 80 classes and 128x128 cells unless said otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_runtime.maps import CornerMaps

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

CLASSES, SIDE, INPUT = 80, 128, 511


def object_maps(rng: Generator) -> CornerMaps:
    """Return maps of one picture with forty objects, over a low noisy ground."""
    corner = rng.uniform(0, INPUT - 120, (40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(16, 120, (40, 2))], axis=1)
    targets = encode_boxes(
        boxes, rng.integers(0, CLASSES, 40), classes=CLASSES, map_size=(SIDE, SIDE), input_size=(INPUT, INPUT)
    )
    ideal, ground = ideal_maps(targets), noise_maps(rng)
    return CornerMaps(
        np.maximum(ideal.tl_heat, ground.tl_heat - 4),
        np.maximum(ideal.br_heat, ground.br_heat - 4),
        ideal.tl_embed,
        ideal.br_embed,
        ideal.tl_offset,
        ideal.br_offset,
    )


def noise_maps(rng: Generator) -> CornerMaps:
    """Return maps of one picture that are nothing but noise."""
    channels = (CLASSES, CLASSES, 1, 1, 2, 2)
    return CornerMaps(*(rng.standard_normal((count, SIDE, SIDE), np.float32) for count in channels))


def overlapping_boxes(
    rng: Generator, classes: int, count: int = 1000
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return boxes [N, 4] in pixels, scores [N] and labels [N], crowded enough that most overlap others."""
    corner = rng.uniform(0, 400, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 110, (count, 2))], axis=1).astype(np.float32)
    return boxes, rng.uniform(0.01, 1, count).astype(np.float32), rng.integers(0, classes, count)
