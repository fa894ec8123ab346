"""Corner maps and candidates to measure with, of 80 classes and 128x128 cells unless said otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_runtime.processing.maps import CornerMaps

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

CLASSES, SIDE, INPUT = 80, 128, 511


def object_maps(rng: Generator) -> CornerMaps:
    """Return maps of one picture with forty objects: ideal maps with noise, which no model computed.

    Each corner is as high as a target, and all else lies four below noise; a trained model's peaks are lower and more.
    """
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


def crowded_maps(rng: Generator) -> CornerMaps:
    """Return maps whose best 100 corners of either kind are of one class and all pair: decode's and NMS's worst case.

    Their 10,000 pairs are valid boxes over the middle of the map, so that the best 1000 overlap and none is left out.
    """
    maps = noise_maps(rng)
    for heat, first in ((maps.tl_heat, 6), (maps.br_heat, 68)):
        np.subtract(heat, 12, out=heat)
        heat[0, first : first + 50 : 5, first : first + 50 : 5] = rng.uniform(-1, 3, (10, 10))
    maps.tl_embed[:] = maps.br_embed[:] = 0
    for offset in (maps.tl_offset, maps.br_offset):
        offset[:] = rng.uniform(0, 1, offset.shape)
    return maps


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
