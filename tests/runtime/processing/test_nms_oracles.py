"""An oracle that shares no code with soft_nms, plain loops in float64, and OpenCV's two versions."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from cases.nms import EXHAUSTIVE, METHODS, boxes_of, clustered
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cornernet_runtime.bundle.spec import NmsParameters
from cornernet_runtime.processing.nms import soft_nms

EPSILON = float(np.finfo(np.float32).eps)


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
