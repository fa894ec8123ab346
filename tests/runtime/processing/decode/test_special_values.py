"""NaN, infinities and logits beyond the range of exp."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases.decode import Corner, assert_same, loop_pairs, placed, random_maps

from cornernet_runtime.bundle.spec import DecodeParameters
from cornernet_runtime.processing.decode import decode


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
