"""Boxes to target maps: what the network is trained to say, and the exact inverse of decode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.maps import CornerMaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

Size = tuple[int, int]  # height, width

MINIMUM_IOU = 0.3  # a pair of corners this far off is still a good box (CornerNet, section 3.2)
PEAK_LOGIT = 12.0  # of an ideal map: sigmoid is 1 to five digits, and far from where float32 saturates


@dataclass(frozen=True, slots=True)
class Targets:
    """What the maps of one picture should hold.

    Attributes:
        tl_heat: float32 [C, h, w], 1 at top-left corners, falling as a gaussian around them.
        br_heat: float32 [C, h, w], the same for bottom-right corners.
        tl_cells: int64 [M], flat index ``y * w + x`` of each object's top-left cell.
        br_cells: int64 [M], of its bottom-right cell.
        tl_offsets: float32 [M, 2], x and y of the corner within its cell, cells.
        br_offsets: float32 [M, 2].
        labels: int64 [M].
    """

    tl_heat: NDArray[np.float32]
    br_heat: NDArray[np.float32]
    tl_cells: NDArray[np.int64]
    br_cells: NDArray[np.int64]
    tl_offsets: NDArray[np.float32]
    br_offsets: NDArray[np.float32]
    labels: NDArray[np.int64]


def encode_boxes(
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    classes: int,
    map_size: Size,
    input_size: Size,
) -> Targets:
    """Encode the objects of one picture.

    Args:
        boxes: [M, 4], x1 y1 x2 y2 in input pixels, within the input.
        labels: [M], class of each.
        classes: Heat channels.
        map_size: Height and width of the corner maps, cells.
        input_size: Height and width of the input, pixels.

    Returns:
        Targets. A corner on the far edge of the input goes to the last cell with an offset of 1.
    """
    height, width = map_size
    ratio = np.array([width / input_size[1], height / input_size[0]] * 2)
    corners = np.asarray(boxes, np.float64).reshape(-1, 4) * ratio
    cells = np.clip(np.floor(corners), 0, [width - 1, height - 1, width - 1, height - 1]).astype(np.int64)
    offsets = (corners - cells).astype(np.float32)
    heat = np.zeros((2, classes, height, width), np.float32)
    for corner, cell, label in zip(corners, cells, labels, strict=True):
        radius = corner_radius(corner[2] - corner[0], corner[3] - corner[1])
        for kind in (0, 1):
            _draw_gaussian(heat[kind, label], int(cell[2 * kind]), int(cell[2 * kind + 1]), radius)
    return Targets(
        tl_heat=heat[0],
        br_heat=heat[1],
        tl_cells=cells[:, 1] * width + cells[:, 0],
        br_cells=cells[:, 3] * width + cells[:, 2],
        tl_offsets=offsets[:, :2],
        br_offsets=offsets[:, 2:],
        labels=np.asarray(labels, np.int64),
    )


def corner_radius(width: float, height: float, minimum_iou: float = MINIMUM_IOU) -> int:
    """Return by how many cells both corners of a box may be off, in x and in y, for an IoU of at least ``minimum_iou``.

    The least of three bounds: both corners move the same way, both inwards, both outwards. Each is the root of a
    quadratic. (The original's code divides two of the three roots by the wrong coefficient; this does not.)
    """
    total, area, iou = width + height, width * height, minimum_iou
    shifted = (total - math.sqrt(total**2 - 4 * area * (1 - iou) / (1 + iou))) / 2
    inwards = (total - math.sqrt(total**2 - 4 * area * (1 - iou))) / 4
    outwards = (-total + math.sqrt(total**2 + 4 * area * (1 - iou) / iou)) / 4
    return int(min(shifted, inwards, outwards))


def ideal_maps(targets: Targets) -> CornerMaps:
    """Return the maps, for one picture, from which decode gives back the encoded boxes.

    Objects have embeddings two apart from each other and from the ground, so that nothing else pairs. Where two
    corners of one kind share a cell, the later one's embedding and offset stand: that is what the representation can
    hold.
    """
    height, width = targets.tl_heat.shape[1:]
    identity = 2.0 * np.arange(1, len(targets.labels) + 1, dtype=np.float32)  # background has 0

    def scatter(cells: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.float32]:
        plane = np.zeros((values.shape[1], height * width), np.float32)
        plane[:, cells] = values.T
        return plane.reshape(-1, height, width)

    return CornerMaps(
        tl_heat=_logits(targets.tl_heat),
        br_heat=_logits(targets.br_heat),
        tl_embed=scatter(targets.tl_cells, identity[:, None]),
        br_embed=scatter(targets.br_cells, identity[:, None]),
        tl_offset=scatter(targets.tl_cells, targets.tl_offsets),
        br_offset=scatter(targets.br_cells, targets.br_offsets),
    )


def _draw_gaussian(heat: NDArray[np.float32], x: int, y: int, radius: int) -> None:
    """Raise ``heat`` [h, w] to an unnormalised gaussian around a cell; sigma is a sixth of the diameter."""
    height, width = heat.shape
    left, right = max(0, x - radius), min(width, x + radius + 1)
    top, bottom = max(0, y - radius), min(height, y + radius + 1)
    sigma = (2 * radius + 1) / 6
    columns = np.arange(left, right) - x
    rows = np.arange(top, bottom) - y
    bell = np.exp(-(rows[:, None] ** 2 + columns**2) / (2 * sigma**2)).astype(np.float32)
    window = heat[top:bottom, left:right]
    np.maximum(window, bell, out=window)


def _logits(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    level = np.clip(heat.astype(np.float64), 1e-12, 1 - 1e-12)
    logits = np.log(level) - np.log1p(-level)
    return np.asarray(np.clip(logits, -PEAK_LOGIT, PEAK_LOGIT), np.float32)
