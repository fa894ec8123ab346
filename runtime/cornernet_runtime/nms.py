"""Soft non-maximum suppression (Bodla et al. 2017, algorithm 1), per class, to the final cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.spec import NmsParameters


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
    kept = np.flatnonzero(scores >= parameters.score_floor)
    kept = kept[np.argsort(labels[kept], kind="stable")]  # a class becomes a slice, in input order
    left = scores[kept].astype(np.float32)
    overlap = _Overlap(boxes[kept], parameters.pixel_extent)
    classes, starts = np.unique(labels[kept], return_index=True)
    slices = dict(zip(classes.tolist(), map(slice, starts, [*starts[1:], len(kept)]), strict=True))
    picked: list[int] = []
    final: list[np.float32] = []
    while len(picked) < parameters.max_detections and len(kept):
        best = int(left.argmax())
        if left[best] < parameters.score_floor:
            break
        # Ties across classes go to the lower input index, which the order by class hides.
        ties = np.flatnonzero(left == left[best])
        best = int(ties[kept[ties].argmin()])
        picked.append(best)
        final.append(left[best])
        same = slices[int(labels[kept[best]])]
        left[same] *= _weights(overlap(best, same), parameters)
        left[best] = -1  # taken
    return kept[np.array(picked, np.int64)], np.array(final, np.float32)


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
