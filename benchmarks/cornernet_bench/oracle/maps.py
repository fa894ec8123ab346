"""What a perfect network would say about a picture, and its words put in place of the predicted ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cornernet_export.targets import corner_radius, encode_boxes, ideal_maps

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from cornernet_export.targets import Targets
    from cornernet_runtime.processing.geometry import Placement
    from cornernet_runtime.processing.maps import CornerMaps

KINDS = ("heat", "embed", "offset")
CORNERS = ("tl", "br")


@dataclass(frozen=True, slots=True)
class Truth:
    """The true maps of one picture, as the network was asked for them in training.

    Attributes:
        maps: Heat is that of the targets. Embedding and offset are told in the cells around a corner that training
            counts as nearly right (the radius of the heat, one cell at least), for the nearest corner, and are NaN
            elsewhere. The embedding is one value an object, and one value where objects share the cell of a corner.
            The offset points to the corner, or as near to it as an offset within the cell can.
        targets: What they are made of.
        shared: Objects with a corner in a cell that holds the same corner of another, so that true maps cannot tell
            both exactly.
    """

    maps: CornerMaps
    targets: Targets
    shared: int


def true_maps(
    boxes: NDArray[np.floating], labels: NDArray[np.integer], placement: Placement, *, classes: int, stride: int
) -> Truth:
    """Return the true maps of a picture.

    Args:
        boxes: [M, 4], x1 y1 x2 y2 in pixels of the frame; what lies beyond it is cut off.
        labels: [M], class of each.
        placement: How the network sees the frame.
        classes: Heat channels.
        stride: Of the maps.
    """
    height, width = placement.extent
    cut = np.clip(np.asarray(boxes, np.float64).reshape(-1, 4), 0, [width, height, width, height])
    real = (cut[:, 2] > cut[:, 0]) & (cut[:, 3] > cut[:, 1])
    cut, labels = cut[real], np.asarray(labels, np.int64)[real]
    largest_first = np.argsort(-(cut[:, 2:] - cut[:, :2]).prod(axis=1), kind="stable")
    seen = placement.to_input(cut[largest_first])
    input_height, input_width = placement.input_size
    targets = encode_boxes(
        seen,
        labels[largest_first],
        classes=classes,
        map_size=((input_height + 1) // stride, (input_width + 1) // stride),
        input_size=placement.input_size,
    )
    ideal = ideal_maps(targets)
    sides = (seen[:, 2:] - seen[:, :2]) * np.divide(targets.tl_heat.shape[:0:-1], placement.input_size[::-1])
    reach = np.array([max(1, corner_radius(width, height)) for width, height in sides.tolist()], np.int64)
    tl_embed, tl_offset = _spread(ideal.tl_embed, ideal.tl_offset, targets.tl_cells, reach)
    br_embed, br_offset = _spread(ideal.br_embed, ideal.br_offset, targets.br_cells, reach)
    maps = replace(ideal, tl_embed=tl_embed, br_embed=br_embed, tl_offset=tl_offset, br_offset=br_offset)
    shared = _repeated(targets.tl_cells) | _repeated(targets.br_cells)
    return Truth(maps, targets, int(np.count_nonzero(shared)))


def with_truth(predicted: CornerMaps, truth: CornerMaps, kinds: Collection[str]) -> CornerMaps:
    """Return the predicted maps of one picture with the true ones of some kinds in their place.

    A true embedding also says which cells belong to no object: those pair with nothing. Where there is no true offset,
    the predicted one stays.
    """
    changed = {}
    for name in (f"{corner}_{kind}" for corner in CORNERS for kind in kinds):
        true = getattr(truth, name)
        stays = np.isnan(true) if name.endswith("offset") else np.False_
        changed[name] = np.where(stays, getattr(predicted, name), true)
    return replace(predicted, **changed)


def _spread(
    embed: NDArray[np.float32], offset: NDArray[np.float32], cells: NDArray[np.int64], reach: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Tell the cells within reach [M] of each corner [M] what the corner's own cell holds; both by size, falling."""
    _, height, width = embed.shape
    own_y, own_x = np.divmod(cells, width)
    nearest = np.full((height, width), np.inf)
    owner = np.full((height, width), -1)
    for index, (y, x, far) in enumerate(zip(own_y.tolist(), own_x.tolist(), reach.tolist(), strict=True)):
        window = np.s_[max(0, y - far) : min(height, y + far + 1), max(0, x - far) : min(width, x + far + 1)]
        rows, columns = np.ogrid[window]
        distance = (rows - y) ** 2.0 + (columns - x) ** 2.0
        closer = distance <= nearest[window]  # of two as near the smaller object has more to lose
        nearest[window][closer] = distance[closer]
        owner[window][closer] = index
    rows, columns = np.nonzero(owner >= 0)
    y, x = own_y[owner[rows, columns]], own_x[owner[rows, columns]]
    new_embed, new_offset = np.full_like(embed, np.nan), np.full_like(offset, np.nan)
    new_embed[0, rows, columns] = embed[0, y, x]
    new_offset[0, rows, columns] = np.clip(x - columns + offset[0, y, x].astype(np.float64), 0, 1)
    new_offset[1, rows, columns] = np.clip(y - rows + offset[1, y, x].astype(np.float64), 0, 1)
    return new_embed, new_offset


def _repeated(cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    _, index, counts = np.unique(cells, return_inverse=True, return_counts=True)
    return np.asarray(counts[index] > 1)
