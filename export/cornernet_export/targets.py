"""Boxes to target maps: what the network is trained to say, and the exact inverse of decode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.processing.maps import CornerMaps

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

    Objects have embeddings two apart from each other and from the ground, so that nothing else pairs. Embedding and
    offset have no class, so a cell holds one of each: objects with a corner of one kind in the same cell share an
    embedding, directly or through others, and the smallest one's offset stands, for it has the most to lose.
    """
    height, width = targets.tl_heat.shape[1:]
    embedding = 2.0 + 2.0 * _groups(targets).astype(np.float32)  # background has 0
    largest_first = np.argsort(-_areas(targets, width), kind="stable")

    def scatter(cells: NDArray[np.int64], values: NDArray[np.float32]) -> NDArray[np.float32]:
        plane = np.zeros((values.shape[1], height * width), np.float32)
        plane[:, cells[largest_first]] = values[largest_first].T  # of several for one cell the last stands
        return plane.reshape(-1, height, width)

    return CornerMaps(
        tl_heat=_logits(targets.tl_heat),
        br_heat=_logits(targets.br_heat),
        tl_embed=scatter(targets.tl_cells, embedding[:, None]),
        br_embed=scatter(targets.br_cells, embedding[:, None]),
        tl_offset=scatter(targets.tl_cells, targets.tl_offsets),
        br_offset=scatter(targets.br_cells, targets.br_offsets),
    )


def _groups(targets: Targets) -> NDArray[np.int64]:
    """Return a number [M] for each object, equal for those linked by corners of one kind in one cell."""
    groups = np.arange(len(targets.labels))
    while True:
        before = groups
        for cells in (targets.tl_cells, targets.br_cells):
            _, cell = np.unique(cells, return_inverse=True)
            lowest = np.full(len(groups), len(groups))
            np.minimum.at(lowest, cell, groups)
            groups = lowest[cell]
        if np.array_equal(groups, before):
            return groups


def _areas(targets: Targets, width: int) -> NDArray[np.float32]:
    """Return the areas [M] of the boxes in cells, ``width`` of which are a row."""
    spans = targets.br_offsets - targets.tl_offsets
    spans[:, 0] += targets.br_cells % width - targets.tl_cells % width
    spans[:, 1] += targets.br_cells // width - targets.tl_cells // width
    return np.asarray(spans[:, 0] * spans[:, 1])


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
