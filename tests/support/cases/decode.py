"""Maps to decode, and an oracle of plain loops that shares no code with decode."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from cornernet_runtime.bundle.spec import DecodeParameters
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

ALL = DecodeParameters(top_k=1000, candidates=100_000)


class Pair(NamedTuple):
    """A pair that decode must keep, but for the cut; the ranks are those of its corners among their kind."""

    tl_rank: int
    br_rank: int
    tl_logit: float
    br_logit: float
    label: int
    box: tuple[float, ...]

    @property
    def score(self):
        return (sigmoid(self.tl_logit) + sigmoid(self.br_logit)) / 2


class Corner(NamedTuple):
    """A corner that a test places: channel, row, column, and what the maps say there."""

    label: int
    y: int
    x: int
    logit: float = 0.0
    embedding: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)


def sigmoid(logit):
    """Float64 and free of overflow: the exponent is never positive."""
    small = math.exp(-abs(logit))
    return (small if logit < 0 else 1.0) / (1.0 + small)


def four_ulp(scores):
    """4 spacings of float32: exp differs by up to 2 between libraries, and three more operations round."""
    return 4.0 * np.spacing(np.asarray(scores, np.float32)).astype(np.float64)


# The first oracle: loops.


def loop_corners(heat, top_k):
    """Return (logit, label, y, x) of the best peaks; Python's sort is stable, so ties stay in flat order."""
    classes, height, width = heat.shape
    values = heat.tolist()
    corners = []
    for label in range(classes):
        for y in range(height):
            for x in range(width):
                value = values[label][y][x]
                around = [
                    values[label][j][i]
                    for j in range(max(y - 1, 0), min(y + 2, height))
                    for i in range(max(x - 1, 0), min(x + 2, width))
                ]
                if not math.isnan(value) and not any(other > value for other in around):
                    corners.append((value, label, y, x))
    return sorted(corners, key=lambda corner: -corner[0])[:top_k]


def loop_pairs(maps, parameters):
    """Return every pair that the rules keep, by lower pair index, before the cut at parameters.candidates."""
    pairs = []
    for i, (tl_logit, label, top, left) in enumerate(loop_corners(maps.tl_heat, parameters.top_k)):
        for j, (br_logit, br_label, bottom, right) in enumerate(
            loop_corners(maps.br_heat, parameters.top_k),
        ):
            box = (
                float(np.float32(left) + maps.tl_offset[0, top, left]),
                float(np.float32(top) + maps.tl_offset[1, top, left]),
                float(np.float32(right) + maps.br_offset[0, bottom, right]),
                float(np.float32(bottom) + maps.br_offset[1, bottom, right]),
            )
            tl_embedding = float(maps.tl_embed[0, top, left])
            br_embedding = float(maps.br_embed[0, bottom, right])
            if label != br_label or not all(map(math.isfinite, (*box, tl_embedding, br_embedding))):
                continue
            if abs(tl_embedding - br_embedding) > parameters.embedding_distance:
                continue
            if box[2] < box[0] or box[3] < box[1]:
                continue
            if parameters.reject_empty and (box[2] == box[0] or box[3] == box[1]):
                continue
            pairs.append(Pair(i, j, tl_logit, br_logit, label, box))
    return pairs


# What must hold between decode and an oracle.


def assert_same(found, pairs, parameters):
    """Compare scores to 4 ulp, and all else exactly but for the order of pairs of nearly equal scores.

    Two scores that are each off by up to 4 ulp may change places when they are less than 8 ulp apart.
    """
    expected = sorted(pairs, key=lambda pair: -pair.score)
    scores = np.array([pair.score for pair in expected])
    count = min(len(expected), parameters.candidates)
    arrays = (found.boxes, found.scores, found.tl_scores, found.br_scores, found.labels)
    assert [array.dtype.name for array in arrays] == ["float32"] * 4 + ["int64"]
    assert [array.shape for array in arrays] == [(count, 4), *[(count,)] * 4]
    assert np.all(np.abs(found.scores - scores[:count]) <= four_ulp(scores[:count]))
    assert np.all(found.scores[1:] <= found.scores[:-1])
    apart = np.flatnonzero(scores[:-1] - scores[1:] > 2 * four_ulp(scores[:-1]))
    matched = []
    for start, end in zip([0, *apart + 1], [*apart + 1, len(expected)], strict=True):
        left = expected[start:end]
        for row in range(start, min(end, count)):
            pair = next((pair for pair in left if is_row(found, row, pair)), None)
            assert pair is not None, f"row {row}: {found.boxes[row]} is none of {left[:5]}"
            left.remove(pair)
            matched.append(pair)
        if start < count < end:
            assert_lower_index_survives(matched[start:], left)
    for row, (first, second) in enumerate(pairwise(matched)):
        if found.scores[row] == found.scores[row + 1]:
            assert first[:2] < second[:2], f"rows {row}, {row + 1} are tied and out of order"


def is_row(found, row, pair):
    corner_scores = np.array([sigmoid(pair.tl_logit), sigmoid(pair.br_logit)])
    off = np.abs(corner_scores - [found.tl_scores[row], found.br_scores[row]])
    return (
        found.labels[row] == pair.label
        and tuple(found.boxes[row].tolist()) == pair.box
        and bool(np.all(off <= four_ulp(corner_scores)))
    )


def assert_lower_index_survives(kept, cut):
    """Pairs of the same two logits have one score in any arithmetic: the cut takes the higher indices."""
    highest = {}
    for pair in kept:
        key = tuple(sorted((pair.tl_logit, pair.br_logit)))
        highest[key] = max(highest.get(key, (-1, -1)), pair[:2])
    for pair in cut:
        key = tuple(sorted((pair.tl_logit, pair.br_logit)))
        assert highest.get(key, (-1, -1)) < pair[:2], f"{pair} was cut before a tied pair of higher index"


# Maps.


def random_maps(shape, seed):
    """Distinct logits, embeddings within about the pairing distance, and offsets within the cell."""
    random = np.random.default_rng(seed)
    _, height, width = shape
    arrays = {
        "heat": lambda: random.normal(-2.0, 2.0, shape),
        "embed": lambda: random.normal(0.0, 0.5, (1, height, width)),
        "offset": lambda: random.uniform(0.0, 1.0, (2, height, width)),
    }
    return CornerMaps(*(arrays[name.split("_")[1]]().astype(np.float32) for name in OUTPUT_NAMES))


def placed(shape, top_left, bottom_right):
    """Maps whose only peaks are the given corners: every other heat value is NaN, which never is a peak."""
    classes, height, width = shape
    arrays = []
    for kind in ("heat", "embed", "offset"):
        channels = {"heat": classes, "embed": 1, "offset": 2}[kind]
        for corners in (top_left, bottom_right):
            array = np.full((channels, height, width), np.nan if kind == "heat" else 0.0, np.float32)
            for corner in corners:
                cell = array[:, corner.y, corner.x]
                if kind == "heat":
                    cell[corner.label] = corner.logit
                else:
                    cell[:] = corner.embedding if kind == "embed" else corner.offset
            arrays.append(array)
    return CornerMaps(*arrays)
