"""Suppression worked out by hand: decay, overlap, order, floor, limit and inputs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cases.nms import EXHAUSTIVE, METHODS, boxes_of, clustered

from cornernet_runtime.bundle.spec import NmsParameters
from cornernet_runtime.processing.nms import soft_nms

# The three methods, by hand.

PAIR = boxes_of([0, 0, 10, 10], [0, 0, 10, 6])  # IoU 0.6 without pixel extent
HALF = boxes_of([0, 0, 10, 10], [0, 0, 10, 5])  # IoU 0.5, exactly
ZEROS = np.zeros(2, np.int64)


def two(boxes, parameters, scores=(0.75, 0.5)):
    indices, final = soft_nms(boxes, np.array(scores, np.float32), ZEROS, parameters)
    return indices.tolist(), final


def test_gaussian_decay_is_the_exponential_of_the_squared_overlap():
    indices, final = two(PAIR, NmsParameters(pixel_extent=0.0))
    assert indices == [0, 1]
    # exp(-0.36 / 0.5) = 0.4867522560; 1e-6 relative allows float32 arithmetic throughout.
    np.testing.assert_allclose(final, [0.75, 0.5 * 0.4867522560], rtol=1e-6)


def test_gaussian_decay_acts_below_the_threshold_too():
    indices, final = two(boxes_of([0, 0, 10, 10], [0, 8, 10, 18]), NmsParameters(pixel_extent=0.0))
    assert indices == [0, 1]
    # IoU 20 / 180: exp(-(1 / 81) / 0.5) = 0.9756105.
    np.testing.assert_allclose(final, [0.75, 0.5 * 0.9756105], rtol=1e-6)


def test_linear_decay_is_one_less_the_overlap():
    indices, final = two(PAIR, NmsParameters("linear", pixel_extent=0.0))
    assert indices == [0, 1]
    # 1 - 0.6 loses a bit and a half to cancellation: 1e-6 relative is ten epsilon.
    np.testing.assert_allclose(final, [0.75, 0.2], rtol=1e-6)


def test_hard_suppression_removes_what_overlaps():
    indices, final = two(PAIR, NmsParameters("hard", pixel_extent=0.0))
    assert indices == [0]
    assert final.tolist() == [0.75]


@pytest.mark.parametrize("method", ["linear", "hard"])
def test_an_overlap_exactly_at_the_threshold_is_left_alone(method):
    indices, final = two(HALF, NmsParameters(method, pixel_extent=0.0, iou_threshold=0.5))
    assert indices == [0, 1]
    assert final.tolist() == [0.75, 0.5]


def test_linear_decay_removes_a_duplicate_at_any_floor():
    duplicate = boxes_of([0, 0, 10, 10], [0, 0, 10, 10])
    assert two(duplicate, NmsParameters("linear", score_floor=1e-30))[0] == [0]


def test_decays_multiply_when_several_selected_boxes_overlap_one():
    boxes = boxes_of([0, 0, 10, 10], [0, 10, 10, 20], [0, 5, 10, 15])
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    indices, final = soft_nms(boxes, scores, np.zeros(3, np.int64), NmsParameters(pixel_extent=0.0))
    assert indices.tolist() == [0, 1, 2]
    # IoU 1/3 with each of the first two, which only touch: exp(-(1 / 9) / 0.5) = 0.8007374, squared.
    np.testing.assert_allclose(final, [0.9, 0.8, 0.7 * 0.8007374**2], rtol=1e-6)


def test_a_decayed_box_is_overtaken_by_one_that_overlaps_nothing():
    boxes = boxes_of([0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60])
    scores = np.array([0.9, 0.8, 0.3], np.float32)
    indices, final = soft_nms(boxes, scores, np.zeros(3, np.int64), NmsParameters(pixel_extent=0.0))
    assert indices.tolist() == [0, 2, 1]
    # exp(-0.81 / 0.5) = 0.1978987.
    np.testing.assert_allclose(final, [0.9, 0.3, 0.8 * 0.1978987], rtol=1e-6)


# Overlap.


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_of_zero_size_overlap_only_with_a_pixel_extent(method):
    points = boxes_of([3, 4, 3, 4], [3, 4, 3, 4])
    indices, final = two(points, NmsParameters(method, pixel_extent=0.0))
    assert indices == [0, 1]
    assert final.tolist() == [0.75, 0.5]
    indices, final = two(points, NmsParameters(method, pixel_extent=1.0))
    assert indices == ([0, 1] if method == "gaussian" else [0])
    # IoU 1: exp(-1 / 0.5) = 0.1353353.
    np.testing.assert_allclose(final[1:], [0.5 * 0.1353353][: len(final) - 1], rtol=1e-6)


def test_a_line_has_no_overlap_with_a_box_around_it_without_pixel_extent():
    boxes = boxes_of([0, 0, 10, 10], [5, 2, 5, 8])
    indices, final = two(boxes, NmsParameters(pixel_extent=0.0))
    assert indices == [0, 1]
    assert final.tolist() == [0.75, 0.5]
    # With it: 7 pixels of 121.
    assert two(boxes, NmsParameters(pixel_extent=1.0))[1][1] == pytest.approx(
        0.5 * math.exp(-((7 / 121) ** 2) / 0.5), rel=1e-6
    )


@pytest.mark.parametrize(
    ("left", "extent", "iou"),
    [(9.0, 1.0, 1 / 19), (9.0, 0.0, 0.0), (10.0, 1.0, 0.0), (9.5, 1.0, 0.5 / 19.5), (30.0, 1.0, 0.0)],
)
def test_the_pixel_extent_widens_the_intersection_too(left, extent, iou):
    boxes = boxes_of([0, 0, 9, 9], [left, 0, left + 9, 9])
    _, final = two(boxes, NmsParameters(pixel_extent=extent, sigma=0.01))
    assert final[1] == pytest.approx(0.5 * math.exp(-(iou**2) / 0.01), rel=1e-6)


def test_boxes_apart_on_both_axes_do_not_overlap():
    # Two negative sides would multiply to a positive intersection.
    indices, final = two(boxes_of([0, 0, 10, 10], [30, 40, 50, 60]), NmsParameters("linear", iou_threshold=0.0))
    assert indices == [0, 1]
    assert final.tolist() == [0.75, 0.5]


# Order, floor and limit.


@pytest.mark.parametrize("method", METHODS)
def test_equal_scores_go_to_the_lower_index(method):
    boxes = boxes_of(*([20 * index, 0, 20 * index + 10, 10] for index in range(40)))
    labels = np.arange(40) % 3
    scores = np.full(40, 0.5, np.float32)
    scores[30] = 0.75
    indices, final = soft_nms(boxes, scores, labels, NmsParameters(method))
    assert indices.tolist() == [30, *range(30), *range(31, 40)]
    assert final.tolist() == [0.75] + [0.5] * 39


def test_of_exact_duplicates_the_first_is_selected():
    boxes = boxes_of(*[[1, 2, 8, 9]] * 5)
    scores = np.full(5, 0.5, np.float32)
    indices, final = soft_nms(boxes, scores, np.zeros(5, np.int64), NmsParameters("hard"))
    assert indices.tolist() == [0]
    indices, final = soft_nms(boxes, scores, np.zeros(5, np.int64), NmsParameters())
    # exp(-2) at each step: 0.5, 0.068, 0.0092, 0.0012, and the fifth falls below 0.001.
    assert indices.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(final, [0.5 * math.exp(-2 * step) for step in range(4)], rtol=1e-6)


def test_scores_below_the_floor_are_dropped_and_at_the_floor_are_kept():
    below = np.nextafter(np.float32(0.25), np.float32(0))
    scores = np.array([below, 0.25, 0.5, 0.0], np.float32)
    boxes = boxes_of(*([20 * index, 0, 20 * index + 10, 10] for index in range(4)))
    indices, final = soft_nms(boxes, scores, np.zeros(4, np.int64), NmsParameters(score_floor=0.25))
    assert indices.tolist() == [2, 1]
    assert final.tolist() == [0.5, 0.25]


def test_a_score_that_decays_below_the_floor_is_dropped():
    # 0.5 * exp(-0.72) = 0.2434.
    assert two(PAIR, NmsParameters(pixel_extent=0.0, score_floor=0.2430))[0] == [0, 1]
    assert two(PAIR, NmsParameters(pixel_extent=0.0, score_floor=0.2438))[0] == [0]


def test_a_box_below_the_floor_decays_no_other():
    # Were the NaN or the low score selected, the others would be lowered.
    scores = np.array([math.nan, 0.5, 0.0005], np.float32)
    indices, final = soft_nms(boxes_of(*[[0, 0, 9, 9]] * 3), scores, np.zeros(3, np.int64), NmsParameters())
    assert indices.tolist() == [1]
    assert final.tolist() == [0.5]


@pytest.mark.parametrize("method", METHODS)
def test_nan_scores_are_dropped(method):
    boxes, scores, labels = clustered(80, 3, seed=6)
    broken = np.arange(80) % 4 == 1
    clean = soft_nms(boxes[~broken], scores[~broken], labels[~broken], NmsParameters(method))
    scores[broken] = np.nan
    indices, final = soft_nms(boxes, scores, labels, NmsParameters(method))
    assert indices.tolist() == np.flatnonzero(~broken)[clean[0]].tolist()
    np.testing.assert_array_equal(final, clean[1])
    assert len(soft_nms(boxes, np.full_like(scores, np.nan), labels, NmsParameters(method))[0]) == 0


@pytest.mark.parametrize("limit", [1, 2, 17, 100])
@pytest.mark.parametrize("classes", [1, 7])
@pytest.mark.parametrize("method", METHODS)
def test_stopping_at_the_limit_gives_the_first_of_the_exhaustive_result(method, classes, limit):
    candidates = clustered(300, classes, seed=12)
    parameters = NmsParameters(method, max_detections=EXHAUSTIVE)
    indices, final = soft_nms(*candidates, parameters)
    assert len(indices) > 17
    assert np.all(final[1:] <= final[:-1])
    cut_indices, cut_final = soft_nms(*candidates, replace(parameters, max_detections=limit))
    assert cut_indices.tolist() == indices[:limit].tolist()
    np.testing.assert_array_equal(cut_final, final[:limit])


@pytest.mark.parametrize("method", METHODS)
def test_the_result_of_all_classes_is_the_merge_of_those_of_each(method):
    boxes, scores, labels = clustered(200, 6, seed=21)
    parameters = NmsParameters(method, max_detections=EXHAUSTIVE)
    merged = []
    for label in range(6):
        rows = np.flatnonzero(labels == label)
        indices, final = soft_nms(boxes[rows], scores[rows], labels[rows], parameters)
        merged += zip((-final).tolist(), rows[indices].tolist(), strict=True)
    merged.sort()
    indices, final = soft_nms(boxes, scores, labels, parameters)
    assert indices.tolist() == [index for _, index in merged]
    assert final.tolist() == [-negative for negative, _ in merged]


@pytest.mark.parametrize("method", METHODS)
def test_duplicates_of_different_classes_leave_each_other_alone(method):
    boxes = boxes_of(*[[0, 0, 9, 9]] * 4)
    scores = np.array([0.25, 0.75, 0.5, 0.5], np.float32)
    indices, final = soft_nms(boxes, scores, np.array([79, 0, 5, 3]), NmsParameters(method))
    assert indices.tolist() == [1, 2, 3, 0]
    assert final.tolist() == [0.75, 0.5, 0.5, 0.25]


# Inputs.


@pytest.mark.parametrize("method", METHODS)
def test_no_boxes_give_no_boxes(method):
    nothing = np.zeros(0, np.float32)
    indices, final = soft_nms(boxes_of(), nothing, np.zeros(0, np.int64), NmsParameters(method))
    assert (indices.shape, indices.dtype) == ((0,), np.int64)
    assert (final.shape, final.dtype) == ((0,), np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_box_comes_back_as_it_is(method):
    score = np.array([0.3], np.float32)
    indices, final = soft_nms(boxes_of([1, 2, 3, 4]), score, np.array([7]), NmsParameters(method))
    assert (indices.tolist(), final.tolist()) == ([0], score.tolist())


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_not_modified(method):
    candidates = clustered(60, 2, seed=1)
    before = [array.copy() for array in candidates]
    _, final = soft_nms(*candidates, NmsParameters(method))
    assert not np.shares_memory(final, candidates[1])
    for array, copy in zip(candidates, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("method", METHODS)
def test_read_only_strided_inputs_give_what_contiguous_ones_give(method):
    boxes, scores, labels = clustered(60, 2, seed=1)
    strided = (np.asfortranarray(boxes), np.repeat(scores, 2)[::2], labels[::-1].copy()[::-1])
    for array in strided:
        array.setflags(write=False)
    expected = soft_nms(boxes, scores, labels, NmsParameters(method))
    found = soft_nms(*strided, NmsParameters(method))
    assert found[0].tolist() == expected[0].tolist()
    np.testing.assert_array_equal(found[1], expected[1])
