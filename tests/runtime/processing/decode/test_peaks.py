"""Which cells are corners, and in which order."""

from __future__ import annotations

import numpy as np
from cases.decode import ALL, Corner, assert_same, loop_pairs, placed, random_maps

from cornernet_runtime.bundle.spec import DecodeParameters
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.maps import CornerMaps


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
