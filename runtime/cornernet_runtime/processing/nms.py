"""Soft non-maximum suppression (Bodla et al. 2017, algorithm 1), per class, to the final cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import NmsParameters


def soft_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    parameters: NmsParameters,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pick the best box, lower the scores of those of its class that overlap it, and so on.

    Scores only fall, so picking the best among all classes gives the final list in order and can stop at the cut.

    Args:
        boxes: [M, 4], x1 y1 x2 y2 in pixels.
        scores: [M]; NaN is dropped.
        labels: [M], class of each.
        parameters: Decay, floor and cut.

    Returns:
        Indices int64 [N] of what survives, best first, and its final scores float32 [N]. Ties go to the lower index.
    """
    order = _by_class(scores, labels, parameters)
    picks = list(_pick(boxes[order], scores[order], labels[order], order, parameters))
    indices = order[np.array([pick.position for pick in picks], np.int64)]
    return indices, np.array([pick.score for pick in picks], np.float32)


def merging_soft_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    corner_scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    parameters: NmsParameters,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Soft-NMS that also moves each picked box to a mean of those around it, for several scales of one picture.

    A corner becomes the mean of that corner over the picked box and the remaining ones of its class, weighted by the
    corner's score and, but for the picked box's own, by ``(1 - decay) ** merge_exponent``: only boxes that nearly
    coincide count. A corner whose scores are all 0 stays. Overlaps are those of the boxes before they move.

    Args:
        boxes: [M, 4], x1 y1 x2 y2 in pixels.
        scores: [M]; NaN is dropped.
        corner_scores: [M, 2], score of the top-left and of the bottom-right corner.
        labels: [M], class of each.
        parameters: Decay, floor, cut and exponent.

    Returns:
        As ``soft_nms``, and the merged boxes float32 [N, 4].
    """
    order = _by_class(scores, labels, parameters)
    boxes, corner_scores = boxes[order], corner_scores[order]
    picks, merged = [], []
    for pick in _pick(boxes, scores[order], labels[order], order, parameters):
        # In float64, so that a mean of boxes within the frame is within the frame.
        weights = np.where(pick.remaining, (1 - pick.decay.astype(np.float64)) ** parameters.merge_exponent, 0)
        weights[pick.position - pick.rivals.start] = 1
        shares = np.repeat(weights[:, None] * corner_scores[pick.rivals], 2, axis=1)
        total, own = shares.sum(0), boxes[pick.position]
        sums = (boxes[pick.rivals] * shares).sum(0)
        merged.append(np.divide(sums, total, out=own.astype(np.float64), where=total > 0))
        picks.append(pick)
    indices = order[np.array([pick.position for pick in picks], np.int64)]
    final = np.array([pick.score for pick in picks], np.float32)
    return indices, final, np.array(merged, np.float32).reshape(-1, 4)


class _Pick(NamedTuple):
    """One step: which box was picked, its score, and what it does to the boxes of its class (a slice)."""

    position: int
    score: np.float32
    rivals: slice
    decay: NDArray[np.float32]
    remaining: NDArray[np.bool_]


def _by_class(scores: NDArray[np.float32], labels: NDArray[np.int64], parameters: NmsParameters) -> NDArray[np.int64]:
    """Return the indices that reach the floor, sorted by class and within a class as they came."""
    kept = np.flatnonzero(scores >= parameters.score_floor)
    return kept[np.argsort(labels[kept], kind="stable")]


def _pick(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    order: NDArray[np.int64],
    parameters: NmsParameters,
) -> Iterator[_Pick]:
    """Yield the picks, best first; boxes are sorted by class, ``order`` tells where each stood."""
    left = scores.astype(np.float32)
    overlap = _Overlap(boxes, parameters.pixel_extent)
    classes, starts = np.unique(labels, return_index=True)
    slices = dict(zip(classes.tolist(), map(slice, starts.tolist(), [*starts[1:].tolist(), len(labels)]), strict=True))
    for _ in range(min(parameters.max_detections, len(left))):
        best = int(left.argmax())
        if left[best] < parameters.score_floor:
            return
        # Ties across classes go to the lower input index, which the order by class hides.
        ties = np.flatnonzero(left == left[best])
        best = int(ties[order[ties].argmin()])
        score, rivals = left[best], slices[int(labels[best])]
        left[best] = -1  # taken
        decay = _weights(overlap(best, rivals), parameters)
        remaining = left[rivals] >= parameters.score_floor
        left[rivals] *= decay
        yield _Pick(best, score, rivals, decay, remaining)


def _weights(iou: NDArray[np.float32], parameters: NmsParameters) -> NDArray[np.float32]:
    """Return the factor for each score, from its box's overlap with the picked one."""
    if parameters.method == "gaussian":
        return np.asarray(np.exp(iou * iou * np.float32(-1 / parameters.sigma)), np.float32)
    low = iou <= np.float32(parameters.iou_threshold)
    return np.asarray(np.where(low, 1, 0 if parameters.method == "hard" else 1 - iou), np.float32)


class _Overlap:
    """Intersection over union of one box with a slice of all, columns and areas laid out once."""

    def __init__(self, boxes: NDArray[np.float32], extent: float) -> None:
        self._extent = np.float32(extent)
        self._x1, self._y1, self._x2, self._y2 = np.ascontiguousarray(boxes.T, np.float32)
        self._areas = (self._x2 - self._x1 + self._extent) * (self._y2 - self._y1 + self._extent)

    def __call__(self, one: int, others: slice) -> NDArray[np.float32]:
        """Return IoU [n] of box ``one`` with the boxes of the slice; 0 where the union is empty."""
        width = np.minimum(self._x2[others], self._x2[one]) - np.maximum(self._x1[others], self._x1[one])
        height = np.minimum(self._y2[others], self._y2[one]) - np.maximum(self._y1[others], self._y1[one])
        shared = np.maximum(width + self._extent, 0) * np.maximum(height + self._extent, 0)
        union = self._areas[others] + self._areas[one] - shared
        iou = np.zeros(len(union), np.float32)
        np.divide(shared, union, out=iou, where=union > 0)
        return iou
