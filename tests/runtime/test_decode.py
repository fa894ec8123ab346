"""Two oracles that share no code with decode: plain loops, and PyTorch's pooling, topk and gather."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet_runtime import decode as decoding
from cornernet_runtime.decode import decode
from cornernet_runtime.maps import OUTPUT_NAMES, CornerMaps
from cornernet_runtime.spec import DecodeParameters

ALL = DecodeParameters(top_k=1000, candidates=100_000)
SHAPES = [
    (1, 1, 1),
    (1, 1, 9),
    (1, 9, 1),
    (2, 2, 2),
    (1, 7, 13),
    (3, 13, 7),
    (5, 16, 16),
    (80, 5, 6),
    (80, 1, 1),
]


@pytest.fixture(scope="module", autouse=True, params=[0, 10**9], ids=["cells", "maps"])
def both_ways(request):
    """Have everything decoded by comparing cells with their neighbours, and by comparing whole maps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "FEW", request.param)
        yield


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


# The second oracle: PyTorch's operators, for maps without equal logits among the best, as topk is not stable.


def torch_corners(heat, embed, offset, top_k):
    heat, embed, offset = (torch.from_numpy(np.ascontiguousarray(values)) for values in (heat, embed, offset))
    height, width = heat.shape[1:]
    pooled = torch.nn.functional.max_pool2d(heat[None], kernel_size=3, stride=1, padding=1)[0]
    peaks = heat.masked_fill(heat != pooled, -torch.inf).flatten()
    logits, flat = peaks.topk(min(top_k, peaks.numel()))
    logits, flat = logits[logits > -torch.inf], flat[logits > -torch.inf]
    assert len(logits.unique()) == len(logits), "this oracle needs distinct logits"
    cell = flat % (height * width)
    position = torch.stack([cell % width, cell // width]).float() + offset.flatten(1).gather(
        1,
        cell.expand(2, -1),
    )
    return logits, flat // (height * width), position.T, embed.flatten()[cell]


def torch_pairs(maps, parameters):
    """Return what loop_pairs returns, for finite maps and reject_empty off."""
    tl_logits, tl_labels, tl_points, tl_embeddings = torch_corners(
        maps.tl_heat, maps.tl_embed, maps.tl_offset, parameters.top_k
    )
    br_logits, br_labels, br_points, br_embeddings = torch_corners(
        maps.br_heat, maps.br_embed, maps.br_offset, parameters.top_k
    )
    keep = (
        (tl_labels[:, None] == br_labels)
        & ((tl_embeddings[:, None] - br_embeddings).abs() <= parameters.embedding_distance)
        & (br_points >= tl_points[:, None]).all(2)
    )
    return [
        Pair(
            i,
            j,
            tl_logits[i].item(),
            br_logits[j].item(),
            int(tl_labels[i]),
            (*tl_points[i].tolist(), *br_points[j].tolist()),
        )
        for i, j in keep.nonzero().tolist()
    ]


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


@st.composite
def coarse_maps(draw):
    """Small maps of few distinct values, exact in float32: ties and special values are frequent."""
    classes, height, width = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    special = draw(st.sampled_from([(), (), (math.nan,), (math.nan, math.inf, -math.inf)]))
    palettes = {
        "heat": (classes, (-3.0, -1.0, -0.0, 0.0, 1.0, 2.0, *special)),
        "embed": (1, (-0.5, 0.0, 0.25, 0.5, 0.75, *special)),
        "offset": (2, (-0.25, 0.0, 0.25, 0.5, 1.0, *special)),
    }
    arrays = []
    for name in OUTPUT_NAMES:
        channels, palette = palettes[name.split("_")[1]]
        shape = (channels, height, width)
        arrays.append(draw(hnp.arrays(np.float32, shape, elements=st.sampled_from(palette), fill=st.nothing())))
    return CornerMaps(*arrays)


coarse_parameters = st.builds(
    DecodeParameters,
    top_k=st.sampled_from([1, 2, 5, 12, 100]),
    candidates=st.sampled_from([1, 3, 12, 1000]),
    embedding_distance=st.sampled_from([0.0, 0.25, 0.5, 2.0]),
    reject_empty=st.booleans(),
)


# Against the oracles.


@settings(max_examples=150, deadline=None, derandomize=True)
@given(maps=coarse_maps(), parameters=coarse_parameters)
def test_coarse_maps_with_ties_and_special_values_decode_as_the_loops(maps, parameters):
    assert_same(decode(maps, parameters), loop_pairs(maps, parameters), parameters)


@pytest.mark.parametrize("reject_empty", [False, True])
@pytest.mark.parametrize("top_k", [3, 20, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_maps_decode_as_the_loops(shape, top_k, reject_empty):
    maps = random_maps(shape, seed=top_k)
    parameters = DecodeParameters(top_k=top_k, candidates=70, reject_empty=reject_empty)
    assert_same(decode(maps, parameters), loop_pairs(maps, parameters), parameters)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_random_maps_decode_as_pytorch_operators(shape, seed):
    maps = random_maps(shape, seed)
    parameters = DecodeParameters(top_k=40, candidates=100, embedding_distance=0.3)
    assert_same(decode(maps, parameters), torch_pairs(maps, parameters), parameters)


@pytest.mark.parametrize("seed", range(4))
def test_heavy_ties_among_peaks_and_pairs_go_to_the_lower_flat_index(seed):
    maps = random_maps((4, 9, 7), seed)
    ties = CornerMaps(*(np.floor(getattr(maps, name)) for name in OUTPUT_NAMES))
    parameters = DecodeParameters(top_k=30, candidates=60, embedding_distance=2.0)
    pairs = loop_pairs(ties, parameters)
    assert len(pairs) > 60
    assert_same(decode(ties, parameters), pairs, parameters)


def test_a_large_map_with_blobs_decodes_as_pytorch_operators():
    random = np.random.default_rng(7)
    maps = random_maps((80, 128, 128), seed=7)
    for heat in (maps.tl_heat, maps.br_heat):
        rows, columns = np.mgrid[:128, :128]
        for label, y, x in random.integers([0, 0, 0], [80, 128, 128], (60, 3)):
            blob = 12.0 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8.0)
            heat[label % 4] += blob.astype(np.float32)
    parameters = DecodeParameters()
    pairs = torch_pairs(maps, parameters)
    assert len(pairs) > 100
    assert_same(decode(maps, parameters), pairs, parameters)


# Peaks.


def test_one_pair_has_the_box_scores_and_label_of_its_corners():
    maps = placed((3, 8, 9), [Corner(2, 1, 3, 1.0, 0.2, (0.25, 0.5))], [Corner(2, 6, 7, -1.0, 0.4, (0.5, 0.75))])
    found = decode(maps, DecodeParameters())
    assert found.boxes.tolist() == [[3.25, 1.5, 7.5, 6.75]]
    assert found.labels.tolist() == [2]
    # Published values of the logistic function at 1 and -1; 1e-7 is one float32 rounding of each.
    np.testing.assert_allclose(found.tl_scores, [0.7310585786], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.br_scores, [0.2689414214], rtol=0, atol=1e-7)
    np.testing.assert_allclose(found.scores, [0.5], rtol=0, atol=1e-7)


def test_corners_on_the_borders_are_found():
    maps = placed((1, 5, 7), [Corner(0, 0, 0)], [Corner(0, 4, 6)])
    assert decode(maps, DecodeParameters()).boxes.tolist() == [[0.0, 0.0, 6.0, 4.0]]


def test_a_neighbour_suppresses_only_within_its_class():
    maps = placed((2, 6, 6), [Corner(0, 1, 1, 1.0), Corner(0, 2, 2, 2.0), Corner(1, 1, 1, 0.0)], [Corner(0, 5, 5)])
    maps.br_heat[1, 5, 5] = 0.0
    found = decode(maps, DecodeParameters())
    assert found.boxes.tolist() == [[2.0, 2.0, 5.0, 5.0], [1.0, 1.0, 5.0, 5.0]]
    assert found.labels.tolist() == [0, 1]


def test_a_cell_two_away_does_not_suppress():
    maps = placed((1, 6, 6), [Corner(0, 1, 1, 1.0), Corner(0, 1, 3, 2.0)], [Corner(0, 5, 5)])
    assert decode(maps, DecodeParameters()).boxes[:, 0].tolist() == [3.0, 1.0]


def test_rows_do_not_wrap_into_each_other():
    maps = placed((1, 4, 5), [Corner(0, 0, 4, 2.0), Corner(0, 1, 0, 1.0)], [Corner(0, 3, 4)])
    assert decode(maps, DecodeParameters()).boxes[:, :2].tolist() == [[4.0, 0.0], [0.0, 1.0]]


def test_every_cell_of_a_plateau_is_a_peak_in_flat_order():
    maps = placed((1, 6, 6), [Corner(0, y, x, 1.0) for y in (1, 2) for x in (1, 2)], [Corner(0, 5, 5)])
    expected = [[1.0, 1.0], [2.0, 1.0], [1.0, 2.0], [2.0, 2.0]]
    assert decode(maps, DecodeParameters()).boxes[:, :2].tolist() == expected


def test_a_constant_map_pairs_the_first_cells_of_the_flat_order():
    zeros = np.zeros((1, 2, 3), np.float32)
    maps = CornerMaps(zeros, zeros, zeros, zeros, np.zeros((2, 2, 3), np.float32), np.zeros((2, 2, 3), np.float32))
    found = decode(maps, DecodeParameters(top_k=4))
    # Corners of both kinds: (0, 0), (1, 0), (2, 0), (0, 1), by rank; pairs by rank of tl, then of br.
    expected = [
        (0, 0, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 2, 0),
        (0, 0, 0, 1),
        (1, 0, 1, 0),
        (1, 0, 2, 0),
        (2, 0, 2, 0),
    ]
    assert found.boxes.tolist() == [list(map(float, box)) for box in [*expected, (0, 1, 0, 1)]]
    assert found.scores.tolist() == [0.5] * 8


def test_peaks_are_told_apart_where_the_sigmoid_saturates():
    maps = placed((1, 6, 6), [Corner(0, 1, 1, 40.0), Corner(0, 1, 2, 41.0)], [Corner(0, 5, 5, 40.0)])
    found = decode(maps, DecodeParameters())
    assert found.boxes.tolist() == [[2.0, 1.0, 5.0, 5.0]]
    assert found.tl_scores.tolist() == [1.0]


def test_corners_of_equal_score_and_different_logits_are_ranked_by_logit():
    maps = placed((1, 6, 6), [Corner(0, 0, 0, 40.0), Corner(0, 3, 3, 41.0)], [Corner(0, 5, 5, 40.0)])
    found = decode(maps, DecodeParameters())
    assert found.scores.tolist() == [1.0, 1.0]
    assert found.boxes[:, 0].tolist() == [3.0, 0.0]


def test_negative_zero_ties_with_zero():
    maps = placed((1, 6, 6), [Corner(0, 0, 0, -0.0), Corner(0, 3, 3, 0.0)], [Corner(0, 5, 5)])
    assert decode(maps, DecodeParameters()).boxes[:, 0].tolist() == [0.0, 3.0]


def test_top_k_counts_over_all_classes():
    top_left = [Corner(label, 0, 0, float(label)) for label in range(6)]
    maps = placed((6, 3, 3), top_left, [Corner(label, 2, 2) for label in range(6)])
    # Top-left corners are kept from class 5 downwards, the tied bottom-right ones from class 0 upwards.
    assert decode(maps, DecodeParameters(top_k=2)).labels.tolist() == []
    assert decode(maps, DecodeParameters(top_k=5)).labels.tolist() == [4, 3, 2, 1]
    assert decode(maps, DecodeParameters(top_k=6)).labels.tolist() == [5, 4, 3, 2, 1, 0]


def test_a_map_smaller_than_top_k_gives_every_pair():
    maps = random_maps((1, 3, 4), seed=1)
    pairs = loop_pairs(maps, ALL)
    assert 0 < len(pairs) < 100
    assert_same(decode(maps, ALL), pairs, ALL)


def test_a_single_cell_pairs_with_itself():
    maps = placed((1, 1, 1), [Corner(0, 0, 0, 2.0, 0.0, (0.25, 0.25))], [Corner(0, 0, 0, 2.0, 0.0, (0.75, 0.5))])
    assert decode(maps, DecodeParameters()).boxes.tolist() == [[0.25, 0.25, 0.75, 0.5]]


# Special values.


def test_a_nan_is_no_peak_and_suppresses_none():
    maps = placed((1, 6, 6), [Corner(0, 2, 2, -50.0)], [Corner(0, 5, 5, -50.0)])
    assert np.count_nonzero(np.isnan(maps.tl_heat)) == 35
    assert decode(maps, DecodeParameters()).boxes.tolist() == [[2.0, 2.0, 5.0, 5.0]]


@pytest.mark.parametrize("heat", ["tl_heat", "br_heat", "both"])
def test_maps_without_peaks_give_no_candidates(heat):
    maps = random_maps((2, 5, 6), seed=0)
    for name in ("tl_heat", "br_heat") if heat == "both" else (heat,):
        getattr(maps, name)[:] = np.nan
    assert_same(decode(maps, DecodeParameters()), [], DecodeParameters())


def test_infinite_heat_is_a_peak_of_score_one():
    maps = placed((1, 6, 6), [Corner(0, 1, 1, math.inf), Corner(0, 1, 2, 9.0)], [Corner(0, 5, 5, math.inf)])
    found = decode(maps, DecodeParameters())
    assert found.boxes.tolist() == [[1.0, 1.0, 5.0, 5.0]]
    assert (found.scores.tolist(), found.tl_scores.tolist(), found.br_scores.tolist()) == (
        [1.0],
        [1.0],
        [1.0],
    )


def test_minus_infinite_heat_is_a_peak_of_score_zero_when_nothing_near_is_higher():
    maps = placed((1, 6, 6), [Corner(0, 1, 1, -math.inf), Corner(0, 1, 5, -math.inf)], [Corner(0, 5, 5, -math.inf)])
    maps.tl_heat[0, 2, 5] = -30.0
    found = decode(maps, DecodeParameters())
    assert found.boxes.tolist() == [[5.0, 2.0, 5.0, 5.0], [1.0, 1.0, 5.0, 5.0]]
    assert found.tl_scores[1] == 0.0
    assert found.scores[1] == 0.0


def test_logits_beyond_the_range_of_exp_saturate_silently():
    largest = float(np.finfo(np.float32).max)
    corners = [Corner(0, 0, x, logit) for x, logit in [(0, largest), (2, 200.0), (4, -200.0), (6, -largest)]]
    found = decode(placed((1, 2, 8), corners, [Corner(0, 1, 7, 0.0)]), DecodeParameters())
    assert found.tl_scores.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert found.scores.tolist() == [0.75, 0.75, 0.25, 0.25]
    assert found.boxes[:, 0].tolist() == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("broken", ["tl", "br", "both"])
def test_a_corner_without_finite_embedding_never_pairs(broken, value):
    tl_value, br_value = (value if broken in (kind, "both") else 0.0 for kind in ("tl", "br"))
    top_left = [Corner(0, 0, 0, 5.0, tl_value), Corner(0, 0, 2, 1.0)]
    bottom_right = [Corner(0, 5, 5, 5.0, br_value), Corner(0, 5, 3, 1.0)]
    parameters = DecodeParameters(embedding_distance=math.inf)
    maps = placed((1, 6, 6), top_left, bottom_right)
    pairs = loop_pairs(maps, parameters)
    assert len(pairs) == (1 if broken == "both" else 2)
    assert_same(decode(maps, parameters), pairs, parameters)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("kind", ["tl_offset", "br_offset"])
def test_a_corner_without_finite_position_never_pairs(kind, axis, value):
    maps = placed((1, 6, 6), [Corner(0, 0, 0, 5.0), Corner(0, 2, 0, 1.0)], [Corner(0, 5, 5, 5.0), Corner(0, 3, 5, 1.0)])
    y, x = (0, 0) if kind == "tl_offset" else (5, 5)
    getattr(maps, kind)[axis, y, x] = value
    found = decode(maps, DecodeParameters())
    expected = [[0.0, 2.0, 5.0, 5.0], [0.0, 2.0, 5.0, 3.0]]
    if kind == "br_offset":
        expected = [[0.0, 0.0, 5.0, 3.0], [0.0, 2.0, 5.0, 3.0]]
    assert found.boxes.tolist() == expected


def test_embeddings_too_far_apart_for_float32_are_rejected_silently():
    largest = float(np.finfo(np.float32).max)
    maps = placed((1, 3, 3), [Corner(0, 0, 0, 0.0, largest)], [Corner(0, 2, 2, 0.0, -largest)])
    assert len(decode(maps, DecodeParameters())) == 0


# Pairs.


def test_corners_of_different_classes_never_pair():
    maps = placed((2, 4, 4), [Corner(0, 0, 0, 3.0)], [Corner(1, 3, 3, 3.0)])
    assert_same(decode(maps, DecodeParameters()), [], DecodeParameters())


@pytest.mark.parametrize(("distance", "base"), [(0.5, 1.0), (0.5, -2.0), (0.25, 60.0), (0.0, 0.7)])
def test_embeddings_exactly_at_the_distance_pair_and_the_next_float_does_not(distance, base):
    at = np.float32(base) + np.float32(distance)
    beyond = np.nextafter(at, np.float32(math.inf))
    parameters = DecodeParameters(embedding_distance=distance)
    for low, high in [(base, at), (at, base)]:
        assert len(decode(placed((1, 2, 2), [Corner(0, 0, 0, 0.0, low)], [Corner(0, 1, 1, 0.0, high)]), parameters))
    for low, high in [(base, beyond), (beyond, base)]:
        maps = placed((1, 2, 2), [Corner(0, 0, 0, 0.0, low)], [Corner(0, 1, 1, 0.0, high)])
        assert len(decode(maps, parameters)) == 0


def test_the_embedding_distance_is_compared_in_float32():
    # float32(0.3) is above 0.3: in float64 the two embeddings would be too far apart.
    maps = placed((1, 2, 2), [Corner(0, 0, 0)], [Corner(0, 1, 1, 0.0, 0.3)])
    assert len(decode(maps, DecodeParameters(embedding_distance=0.3))) == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_a_box_turned_inside_out_by_one_float_is_rejected(axis):
    maps = placed((1, 3, 3), [Corner(0, 1, 1, 0.0, 0.0, (0.5, 0.5))], [Corner(0, 1, 1, 0.0, 0.0, (0.5, 0.5))])
    assert decode(maps, DecodeParameters()).boxes.tolist() == [[1.5, 1.5, 1.5, 1.5]]
    # One spacing of the sum, 1.5, not of the offset, 0.5: less would round away.
    maps.br_offset[axis, 1, 1] = np.nextafter(np.float32(1.5), np.float32(0.0)) - np.float32(1.0)
    assert len(decode(maps, DecodeParameters())) == 0


@pytest.mark.parametrize(
    ("offset", "kept_when_rejecting"),
    [((0.0, 0.0), 0), ((0.5, 0.0), 0), ((0.0, 0.5), 0), ((0.5, 0.5), 1)],
)
def test_boxes_of_zero_width_or_height_are_kept_unless_rejected(offset, kept_when_rejecting):
    maps = placed((1, 4, 4), [Corner(0, 2, 1)], [Corner(0, 2, 1, 0.0, 0.0, offset)])
    expected = [[1.0, 2.0, 1.0 + offset[0], 2.0 + offset[1]]]
    assert decode(maps, DecodeParameters()).boxes.tolist() == expected
    rejecting = DecodeParameters(reject_empty=True)
    assert decode(maps, rejecting).boxes.tolist() == expected[:kept_when_rejecting]


def test_a_small_limit_keeps_the_first_of_all_candidates():
    maps = random_maps((3, 12, 11), seed=5)
    everything = decode(maps, ALL)
    assert len(everything) > 50
    for limit in (1, 7, 50, len(everything)):
        found = decode(maps, DecodeParameters(top_k=1000, candidates=limit))
        for name in ("boxes", "scores", "tl_scores", "br_scores", "labels"):
            np.testing.assert_array_equal(getattr(found, name), getattr(everything, name)[:limit])


def test_pairs_of_equal_score_are_ordered_by_the_rank_of_their_top_left_corner():
    # (high, low) and (low, high) have one score: the pair of the better top-left corner has the lower index.
    top_left = [Corner(0, 0, 0, -1.0), Corner(0, 0, 2, 1.0)]
    bottom_right = [Corner(0, 3, 3, 1.0), Corner(0, 3, 5, -1.0)]
    found = decode(placed((1, 4, 6), top_left, bottom_right), DecodeParameters())
    expected = [[2.0, 0.0, 3.0, 3.0], [2.0, 0.0, 5.0, 3.0], [0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 5.0, 3.0]]
    assert found.boxes.tolist() == expected


# Inputs.


def test_inputs_are_not_modified():
    maps = random_maps((3, 9, 8), seed=3)
    maps.tl_heat[0, 0] = np.nan
    before = {name: getattr(maps, name).copy() for name in OUTPUT_NAMES}
    decode(maps, DecodeParameters())
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(maps, name), array)


def test_read_only_inputs_are_accepted_and_results_are_no_views_of_them():
    maps = random_maps((3, 9, 8), seed=3)
    expected = decode(maps, DecodeParameters())
    for name in OUTPUT_NAMES:
        getattr(maps, name).setflags(write=False)
    found = decode(maps, DecodeParameters())
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    assert not any(np.shares_memory(found.boxes, getattr(maps, name)) for name in OUTPUT_NAMES)


@pytest.mark.parametrize(
    "strided",
    [
        lambda array: np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1),
        np.asfortranarray,
        lambda array: np.repeat(np.repeat(array, 2, axis=2), 3, axis=1)[:, ::3, ::2],
        lambda array: array[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
        lambda array: np.stack([array * 0, array, array + 1])[1],
    ],
    ids=["channels-last", "fortran", "every-second", "reversed", "of-a-batch"],
)
def test_memory_layout_does_not_matter(strided):
    maps = random_maps((3, 9, 8), seed=11)
    parameters = DecodeParameters(top_k=30)
    views = CornerMaps(*(strided(getattr(maps, name)) for name in OUTPUT_NAMES))
    assert_same(decode(views, parameters), loop_pairs(maps, parameters), parameters)
