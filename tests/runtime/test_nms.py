"""An oracle that shares no code with soft_nms, plain loops in float64, and OpenCV's two versions."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cornernet_runtime.nms import merging_soft_nms, soft_nms
from cornernet_runtime.spec import NmsParameters

METHODS = ["gaussian", "linear", "hard"]
EPSILON = float(np.finfo(np.float32).eps)
EXHAUSTIVE = 100_000


class AmbiguousError(Exception):
    """Two next steps are nearer to each other than float32 tells apart, so that either result is right."""


# The oracle.


def overlap(first, second, extent):
    """IoU in float64 of two boxes; a side is ``extent`` longer than its coordinates are apart."""
    width = max(min(first[2], second[2]) - max(first[0], second[0]) + extent, 0.0)
    height = max(min(first[3], second[3]) - max(first[1], second[1]) + extent, 0.0)
    areas = [(box[2] - box[0] + extent) * (box[3] - box[1] + extent) for box in (first, second)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def weight_and_error(iou, parameters):
    """Return what a box's score is multiplied by, and a bound on its relative error in float32 arithmetic.

    IoU in float32 is good to 8 epsilon (differences, extents, products, sums, a division). That makes
    16 iou**2 / sigma in the exponential, which itself adds up to 2, and 8 iou / (1 - iou) in 1 - iou.
    """
    if parameters.method == "gaussian":
        return math.exp(-(iou**2) / parameters.sigma), EPSILON * (16 * iou**2 / parameters.sigma + 4)
    if iou <= parameters.iou_threshold:
        return 1.0, 0.0
    if parameters.method == "hard" or iou == 1.0:
        return 0.0, 0.0
    return 1.0 - iou, EPSILON * (8 * iou / (1.0 - iou) + 2)


def greedy(boxes, scores, labels, parameters):
    """Return (index, score, relative error bound) of the survivors, in order, by following the definition.

    Raises:
        AmbiguousError: A choice hangs on less than the bounds, and not on a tie that any arithmetic sees.
    """
    boxes = boxes.astype(np.float64).tolist()
    # Score, bound on its error, and start and weights so far: equal histories are ties in any arithmetic.
    remaining = {
        index: (float(score), EPSILON, (float(score),))
        for index, score in enumerate(scores)
        if score >= parameters.score_floor
    }
    kept = []
    while remaining and len(kept) < parameters.max_detections:
        best = max(remaining, key=lambda index: (remaining[index][0], -index))
        score, error, history = remaining.pop(best)
        for other, other_error, other_history in remaining.values():
            if other >= score * (1.0 - error - other_error) and other_history != history:
                raise AmbiguousError
        kept.append((best, score, error))
        for index in [index for index in remaining if labels[index] == labels[best]]:
            weight, weight_error = weight_and_error(
                overlap(boxes[best], boxes[index], parameters.pixel_extent), parameters
            )
            old, old_error, history = remaining.pop(index)
            new, new_error = old * weight, old_error + weight_error + EPSILON
            if weight == 1.0:
                remaining[index] = (old, old_error, history)
                continue
            if new > 0.0 and abs(new - parameters.score_floor) <= new * new_error:
                raise AmbiguousError
            if new >= parameters.score_floor:
                remaining[index] = (new, new_error, (*history, weight))
    return kept


def assert_greedy(boxes, scores, labels, parameters):
    """Compare indices exactly and scores within the oracle's bound; returns the number of survivors."""
    expected = greedy(boxes, scores, labels, parameters)
    indices, final = soft_nms(boxes, scores, labels, parameters)
    assert (indices.dtype, final.dtype) == (np.int64, np.float32)
    assert indices.tolist() == [index for index, _, _ in expected]
    assert final.shape == indices.shape
    for found, (_, score, error) in zip(final.tolist(), expected, strict=True):
        assert abs(found - score) <= score * error
    return len(expected)


# Boxes.


def boxes_of(*rows):
    return np.array(rows, np.float32).reshape(-1, 4)


def clustered(count, classes, seed):
    """Boxes in tight clusters, so that overlaps of every size occur, with distinct scores."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, 100, (max(count // 12, 1), 2))[random.integers(0, max(count // 12, 1), count)]
    low = centres + random.normal(0, 2, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(8, 20, (count, 2))], axis=1).astype(np.float32)
    scores = random.permutation(np.linspace(0.002, 0.95, count)).astype(np.float32)
    return boxes, scores, random.integers(0, classes, count)


@st.composite
def coarse_candidates(draw):
    """Integer boxes, some of zero size, and few distinct scores: ties and exact overlaps are frequent."""
    side = st.integers(0, 5)
    rows = draw(
        st.lists(
            st.tuples(side, side, side, side, st.sampled_from([0.25, 0.5, 0.75, math.nan]), st.integers(0, 2)),
            max_size=12,
        )
    )
    boxes = boxes_of(*((x, y, x + width, y + height) for x, y, width, height, _, _ in rows))
    scores = np.array([row[4] for row in rows], np.float32)
    return boxes, scores, np.array([row[5] for row in rows], np.int64)


coarse_parameters = st.builds(
    NmsParameters,
    method=st.sampled_from(METHODS),
    sigma=st.sampled_from([0.5, 0.7]),
    iou_threshold=st.sampled_from([0.0, 0.25, 0.5]),
    score_floor=st.sampled_from([1e-6, 0.001, 0.25, 0.5]),
    pixel_extent=st.sampled_from([0.0, 1.0]),
    max_detections=st.sampled_from([1, 3, 100]),
)


# Against the oracle.


@settings(max_examples=250, deadline=None, derandomize=True)
@given(candidates=coarse_candidates(), parameters=coarse_parameters)
def test_coarse_boxes_with_ties_give_what_the_loops_give(candidates, parameters):
    try:
        greedy(*candidates, parameters)
    except AmbiguousError:
        assume(False)
    assert_greedy(*candidates, parameters)


@pytest.mark.parametrize("extent", [0.0, 1.0])
@pytest.mark.parametrize(("count", "classes"), [(60, 1), (150, 5), (150, 80)])
@pytest.mark.parametrize("method", METHODS)
def test_random_boxes_give_what_the_loops_give(method, count, classes, extent):
    parameters = NmsParameters(method=method, pixel_extent=extent, max_detections=EXHAUSTIVE)
    assert assert_greedy(*clustered(count, classes, seed=count + classes), parameters) > 1


@pytest.mark.parametrize("classes", [1, 80])
def test_a_thousand_candidates_give_the_first_hundred_of_the_loops(classes):
    assert assert_greedy(*clustered(1000, classes, seed=2), NmsParameters()) == 100


@pytest.mark.parametrize("seed", range(5))
def test_other_sigma_threshold_and_floor_are_used(seed):
    candidates = clustered(50, 2, seed)
    gaussian = NmsParameters(sigma=0.7, score_floor=0.1, max_detections=EXHAUSTIVE)
    linear = NmsParameters("linear", iou_threshold=0.3, score_floor=0.1, max_detections=EXHAUSTIVE)
    hard = replace(linear, method="hard")
    counts = [assert_greedy(*candidates, parameters) for parameters in (gaussian, linear, hard)]
    assert max(counts) < 50


# Against OpenCV. Its rectangles know no pixel extent, so their sides are lengthened beforehand.


def rectangles(boxes, extent):
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2] + extent], axis=1).astype(int).tolist()


@pytest.mark.parametrize("extent", [0, 1])
@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_hard_suppression_keeps_what_opencv_keeps(threshold, classes, extent):
    boxes, scores, labels = clustered(200, classes, seed=4)
    boxes = np.round(boxes)
    parameters = NmsParameters("hard", iou_threshold=threshold, pixel_extent=extent, max_detections=EXHAUSTIVE)
    indices, final = soft_nms(boxes, scores, labels, parameters)
    # OpenCV also drops a score equal to its floor, which none of these is.
    kept = cv2.dnn.NMSBoxesBatched(rectangles(boxes, extent), scores.tolist(), labels.tolist(), 0.001, threshold)
    assert 1 < len(kept) < 200
    assert indices.tolist() == list(kept)
    assert final.tolist() == scores[indices].tolist()


@pytest.mark.parametrize("extent", [0, 1])
@pytest.mark.parametrize(
    ("method", "opencv_method"),
    [("gaussian", cv2.dnn.SoftNMSMethod_SOFTNMS_GAUSSIAN), ("linear", cv2.dnn.SoftNMSMethod_SOFTNMS_LINEAR)],
)
def test_decay_of_one_class_is_that_of_opencv(method, opencv_method, extent):
    boxes, scores, _ = clustered(150, 1, seed=9)
    boxes = np.round(boxes)
    parameters = NmsParameters(method, pixel_extent=extent, max_detections=EXHAUSTIVE)
    indices, final = soft_nms(boxes, scores, np.zeros(150, np.int64), parameters)
    expected_scores, expected = cv2.dnn.softNMSBoxes(
        rectangles(boxes, extent), scores.tolist(), 0.001, 0.5, 0, 0.5, opencv_method
    )
    assert 1 < len(expected) <= 150
    assert indices.tolist() == expected.tolist()
    # OpenCV decays in float32: up to 40 decays of a box, each good to about 10 epsilon.
    np.testing.assert_allclose(final, expected_scores, rtol=400 * EPSILON, atol=0)


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


# Merging, against loops.


def merge_in_loops(boxes, scores, corner_scores, labels, parameters):
    """The published algorithm with each box keeping its corner scores: float64, one box at a time."""
    boxes, scores = boxes.astype(float), scores.astype(float)
    left, rows = list(range(len(boxes))), []
    while left and len(rows) < parameters.max_detections:
        best = max(left, key=lambda i: (scores[i], -i))
        if scores[best] < parameters.score_floor:
            break
        left.remove(best)
        tl, br = (float(score) for score in corner_scores[best])
        sums, totals = np.array([*boxes[best, :2] * tl, *boxes[best, 2:] * br]), [tl, br]
        found = scores[best]
        for other in left:
            if labels[other] != labels[best] or scores[other] < parameters.score_floor:
                continue
            a, b, one = boxes[best], boxes[other], parameters.pixel_extent
            width, height = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k]) + one) for k in (0, 1))
            areas = [(c[2] - c[0] + one) * (c[3] - c[1] + one) for c in (a, b)]
            union = sum(areas) - width * height
            decay = np.exp(-((width * height / union if union else 0) ** 2) / parameters.sigma)
            weight = (1 - decay) ** parameters.merge_exponent
            tl, br = (float(score) * weight for score in corner_scores[other])
            sums += [*b[:2] * tl, *b[2:] * br]
            totals = [totals[0] + tl, totals[1] + br]
            scores[other] *= decay
        rows.append((best, found, [*sums[:2] / totals[0], *sums[2:] / totals[1]]))
    return rows


@pytest.mark.parametrize("seed", range(20))
def test_merging_equals_loops(seed):
    rng = np.random.default_rng(seed)
    count, classes = int(rng.integers(1, 60)), int(rng.integers(1, 4))
    corner = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 40, (count, 2))], axis=1).astype(np.float32)
    boxes[count // 2 :] = boxes[: count - count // 2] + rng.normal(0, 0.5, (count - count // 2, 4))  # the other scale's
    corner_scores = rng.uniform(0.01, 1, (count, 2)).astype(np.float32)
    scores, labels = corner_scores.mean(1), rng.integers(0, classes, count)
    parameters = NmsParameters(pixel_extent=float(rng.integers(0, 2)))
    kept, found, merged = merging_soft_nms(boxes, scores, corner_scores, labels, parameters)
    expected = merge_in_loops(boxes, scores, corner_scores, labels, parameters)
    assert kept.tolist() == [row[0] for row in expected]
    # Overlaps and scores are float32, and up to 60 factors are multiplied.
    assert found == pytest.approx([row[1] for row in expected], rel=1e-4)
    assert merged == pytest.approx(np.array([row[2] for row in expected]), abs=1e-2)


def test_merging_nothing_is_nothing():
    empty = np.empty(0, np.float32)
    kept, scores, merged = merging_soft_nms(
        empty.reshape(0, 4), empty, empty.reshape(0, 2), np.empty(0, np.int64), NmsParameters()
    )
    assert (kept.shape, scores.shape, merged.shape) == ((0,), (0,), (0, 4))


def test_a_lone_box_stays_where_it_is():
    box = np.array([[1.5, 2.25, 30.125, 40.0]], np.float32)
    corner_scores = np.array([[0.9, 0.1]], np.float32)
    _, scores, merged = merging_soft_nms(
        box, np.array([0.5], np.float32), corner_scores, np.array([3]), NmsParameters()
    )
    assert merged.tolist() == box.tolist()
    assert scores.tolist() == [0.5]


def test_corners_of_score_zero_stay():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11]], np.float32)
    corner_scores = np.array([[0.8, 0], [0.6, 0]], np.float32)
    _, _, merged = merging_soft_nms(boxes, corner_scores.mean(1), corner_scores, np.array([0, 0]), NmsParameters())
    assert merged[0, 2:].tolist() == [10, 10]
    assert np.isfinite(merged).all()
