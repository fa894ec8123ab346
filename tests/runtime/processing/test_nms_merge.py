"""Merging of what is left, against loops."""

from __future__ import annotations

import numpy as np
import pytest

from cornernet_runtime.bundle.spec import NmsParameters
from cornernet_runtime.processing.nms import merging_soft_nms


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
