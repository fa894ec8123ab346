"""Pictures varied as the original's training does: a crop at a random scale, a mirror, colours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_runtime.processing.geometry import fit

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import Size
    from cornernet_train.recipe import Augmentation
    from cornernet_train.shapes import Scene

MARGIN = 0.25  # of the crop: its centre stays this far within the picture, where that is large enough
LEAST_SIDE = 1.0  # pixels; what a crop leaves less of is no object

# Principal colours of ImageNet, BGR: the rows belong to the channels (Krizhevsky et al. 2012, section 4.1).
_COLOUR_SPREAD = np.array([0.2141788, 0.01817699, 0.00341571])
_COLOURS = np.array(
    [
        [-0.58752847, -0.69563484, 0.41340352],
        [-0.5832747, 0.00994535, -0.81221408],
        [-0.56089297, 0.71832671, 0.41158938],
    ]
)
_GREY = np.array([0.114, 0.587, 0.299], np.float32)  # BGR


def augment(
    scene: Scene, augmentation: Augmentation, rng: Generator, input_size: Size, pad: tuple[float, float, float]
) -> Scene:
    """Vary a scene.

    Args:
        scene: What is to be varied; it stays as it is.
        augmentation: By how much.
        rng: Where chance comes from.
        input_size: Of the network. A crop of scale 1 is as large as what fits into it, and has its aspect.
        pad: Grey levels of what a crop shows beyond the picture.

    Returns:
        The varied scene, with the objects of which something is left.
    """
    if augmentation.scales != (1.0, 1.0):
        scene = _crop(scene, rng.uniform(*augmentation.scales), rng, input_size, pad)
    if rng.random() < augmentation.flip:
        scene = _mirrored(scene)
    if augmentation.jitter or augmentation.lighting:
        scene = replace(scene, image=_recoloured(scene.image, augmentation, rng))
    return scene


def _crop(scene: Scene, scale: float, rng: Generator, input_size: Size, pad: tuple[float, float, float]) -> Scene:
    """Cut a window of ``scale`` times the fitting size around a random centre; it may reach beyond the picture."""
    height, width = scene.image.shape[:2]
    reduction = fit((height, width), input_size).size[0] / height
    window = [max(1, round(side / reduction * scale)) for side in input_size]
    origin = []  # y, x
    for side, extent in zip((height, width), window, strict=True):
        margin = min(side / 2, extent * MARGIN)
        origin.append(round(rng.uniform(margin, side - margin) - extent / 2))
    canvas = np.empty((*window, 3), np.uint8)
    canvas[:] = np.round(pad)
    (top, left), (high, wide) = origin, window
    shown = scene.image[max(0, top) : top + high, max(0, left) : left + wide]
    row, column = max(0, -top), max(0, -left)
    canvas[row : row + shown.shape[0], column : column + shown.shape[1]] = shown
    limits = np.array([column, row, column + shown.shape[1], row + shown.shape[0]])
    boxes = scene.boxes - np.array([left, top, left, top])
    boxes = np.clip(boxes, np.tile(limits[:2], 2), np.tile(limits[2:], 2)).astype(np.float32)
    kept = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= LEAST_SIDE
    return replace(scene, image=canvas, boxes=boxes[kept], labels=scene.labels[kept])


def _mirrored(scene: Scene) -> Scene:
    width = scene.image.shape[1]
    boxes = scene.boxes.copy()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    return replace(scene, image=np.asarray(cv2.flip(scene.image, 1), np.uint8), boxes=boxes)


def _recoloured(image: NDArray[np.uint8], augmentation: Augmentation, rng: Generator) -> NDArray[np.uint8]:
    """Change brightness, contrast and saturation, in a random order, then shift along the principal colours."""
    levels = image.astype(np.float32)
    for kind in rng.permutation(3):
        factor = np.float32(1 + rng.uniform(-augmentation.jitter, augmentation.jitter))
        if kind == 0:
            levels *= factor
        else:
            grey = levels @ _GREY
            centre = grey.mean() if kind == 1 else grey[..., None]
            levels = np.asarray(centre + (levels - centre) * factor, np.float32)
    shift = _COLOURS @ (_COLOUR_SPREAD * rng.normal(0, augmentation.lighting, 3))
    return np.asarray(np.clip(np.round(levels + shift.astype(np.float32) * 255), 0, 255), np.uint8)
