"""Corner maps to candidate boxes (CornerNet, section 3.1 and the test-time procedure of section 4.2), in NumPy.

The readable reference for every other decoder of this project. A sigmoid keeps order, so peaks and the best corners are
found on the logits, and only the winners are turned into scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cornernet_runtime.detections import Candidates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import DecodeParameters
    from cornernet_runtime.processing.maps import CornerMaps

FEW = 32  # cells of which one costs as much to compare with its neighbours as so many of a whole map


def decode(maps: CornerMaps, parameters: DecodeParameters) -> Candidates:
    """Pair the best corners of one picture.

    Args:
        maps: Of one picture, [C, h, w], [1, h, w] and [2, h, w].
        parameters: How many corners and pairs to keep, and which pairs to reject.

    Returns:
        Candidates in cells of the maps, best first. Ties go to the pair whose top-left corner ranks higher, then to
        the one whose bottom-right corner does; corners of equal heat rank by their flat index, lower first. A corner
        whose position or embedding is not finite pairs with nothing.
    """
    return pair_corners(maps, parameters)[0]


def pair_corners(maps: CornerMaps, parameters: DecodeParameters) -> tuple[Candidates, NDArray[np.int64]]:
    """Return what ``decode`` does, and the cells [M, 2] of each pair's top-left and bottom-right corner.

    Cells are flat indices into ``maps.tl_heat`` and ``maps.br_heat``, so the two name a candidate whatever its values.
    """
    tl = _best_corners(maps.tl_heat, maps.tl_embed, maps.tl_offset, parameters.top_k)
    br = _best_corners(maps.br_heat, maps.br_embed, maps.br_offset, parameters.top_k)
    before = np.less if parameters.reject_empty else np.less_equal
    with np.errstate(over="ignore"):  # huge embeddings of opposite sign are infinitely far apart, as they should be
        distance = np.abs(tl.embedding[:, None] - br.embedding)
    paired = tl.labels[:, None] == br.labels
    paired &= distance <= parameters.embedding_distance
    paired &= before(tl.x[:, None], br.x)
    paired &= before(tl.y[:, None], br.y)
    first, second = np.nonzero(paired)
    scores = (tl.scores[first] + br.scores[second]) / np.float32(2)
    order = np.argsort(-scores, kind="stable")[: parameters.candidates]
    first, second = first[order], second[order]
    candidates = Candidates(
        boxes=np.stack([tl.x[first], tl.y[first], br.x[second], br.y[second]], axis=1),
        scores=scores[order],
        tl_scores=tl.scores[first],
        br_scores=br.scores[second],
        labels=tl.labels[first],
    )
    return candidates, np.stack([tl.cells[first], br.cells[second]], axis=1)


def find_peaks(heat: NDArray[np.float32], count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the highest cells that equal the maximum of their 3x3 neighbourhood.

    Args:
        heat: [C, h, w]. Neighbourhoods do not cross classes. NaN counts as minus infinity beside other cells and is
            never a peak.
        count: How many at most.

    Returns:
        Flat indices int64 [K] into ``heat`` and values float32 [K], descending; equal values by index.
    """
    column_highest = _column_highest(heat)
    known = None
    if np.isnan(column_highest).any():
        known = ~np.isnan(heat)
        heat = np.where(known, heat, -np.inf)
        column_highest = _column_highest(heat)
    # Two passes over the map, one for a bound below the count-th best peak, one for the cells that reach it. Mostly
    # they are few, and only they are compared with their neighbours, which takes many passes over a whole map.
    reached = heat >= _lower_bound(column_highest, count)
    if known is not None:
        reached &= known
    if np.count_nonzero(reached) * FEW < reached.size:
        cells = np.flatnonzero(reached)
        cells = cells[_are_peaks(heat, cells)]
    else:
        cells = np.flatnonzero(reached & (heat >= _neighbourhood_highest(heat)))
    values = heat.ravel()[cells]
    order = np.argsort(-values, kind="stable")[:count]
    return cells[order], values[order]


def corners_at(
    heat: NDArray[np.float32], embed: NDArray[np.float32], offset: NDArray[np.float32], cells: NDArray[np.int64]
) -> Corners:
    """Return what the maps of one kind of corner say at these cells [K], peaks or not."""
    labels, y, x = np.unravel_index(cells, heat.shape)
    return Corners(
        cells,
        x.astype(np.float32) + offset[0, y, x],
        y.astype(np.float32) + offset[1, y, x],
        embed[0, y, x],
        sigmoid(heat[labels, y, x]),
        labels,
    )


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``1 / (1 + exp(-x))`` without overflow, infinities included."""
    small = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, np.float32(1), small) / (1 + small), np.float32)


class Corners(NamedTuple):
    """Corners of one kind, each [K]: flat index into the heat, position in cells, embedding, score, class."""

    cells: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    embedding: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def _best_corners(
    heat: NDArray[np.float32], embed: NDArray[np.float32], offset: NDArray[np.float32], count: int
) -> Corners:
    """Return the corners at the best peaks that have a finite position and embedding, best first."""
    corners = corners_at(heat, embed, offset, find_peaks(heat, count)[0])
    usable = np.isfinite(corners.x) & np.isfinite(corners.y) & np.isfinite(corners.embedding)
    return Corners(
        corners.cells[usable],
        corners.x[usable],
        corners.y[usable],
        corners.embedding[usable],
        corners.scores[usable],
        corners.labels[usable],
    )


def _column_highest(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the highest value of each column, [C, w], NaN where the column has one.

    By maxima of the upper and the lower half, which overlap where rows are odd: NumPy takes those of long runs of
    memory four times as fast as along an axis.
    """
    while heat.shape[1] > 1:
        height = heat.shape[1]
        half = (height + 1) // 2
        heat = np.maximum(heat[:, :half], heat[:, height - half :])
    return heat[:, 0]


def _neighbourhood_highest(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the highest value of each cell's 3x3 neighbourhood, [C, h, w]."""
    lines = heat.copy()
    np.maximum(lines[:, 1:], heat[:, :-1], out=lines[:, 1:])
    np.maximum(lines[:, :-1], heat[:, 1:], out=lines[:, :-1])
    highest = lines.copy()
    np.maximum(highest[:, :, 1:], lines[:, :, :-1], out=highest[:, :, 1:])
    np.maximum(highest[:, :, :-1], lines[:, :, 1:], out=highest[:, :, :-1])
    return highest


def _are_peaks(heat: NDArray[np.float32], cells: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which of these cells equal the maximum of their 3x3 neighbourhood."""
    _classes, height, width = heat.shape
    flat = heat.ravel()
    values = flat[cells]
    row, x = np.divmod(cells, width)
    y = row % height
    # At the map's edge this compares a cell with others of its neighbourhood once more.
    up, down = np.where(y > 0, cells - width, cells), np.where(y < height - 1, cells + width, cells)
    left, right = -(x > 0).astype(np.int64), (x < width - 1).astype(np.int64)
    peaks = np.ones(len(cells), np.bool_)
    for line in (up, cells, down):
        for sideways in (left, 0, right):
            peaks &= flat[line + sideways] <= values
    return peaks


def _lower_bound(column_highest: NDArray[np.float32], count: int) -> np.float32:
    """Return a value that at least ``count`` peaks reach, or minus infinity.

    Args:
        column_highest: [C, w], highest value of each column. Where a column's is at least that of the columns left and
            right of it, the cell that holds it is a peak.
        count: Peaks wanted.
    """
    holds_peak = np.ones(column_highest.shape, np.bool_)
    holds_peak[:, 1:] &= column_highest[:, 1:] >= column_highest[:, :-1]
    holds_peak[:, :-1] &= column_highest[:, :-1] >= column_highest[:, 1:]
    found = column_highest[holds_peak]
    if len(found) < count:
        return np.float32(-np.inf)
    return np.float32(np.partition(found, len(found) - count)[len(found) - count])
