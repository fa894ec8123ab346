"""Soft-NMS and the final cut in the published way: class by class, until every box is picked or dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import NmsParameters


def suppress_class(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], parameters: NmsParameters
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pick the boxes of one class, best first, each lowering the scores of those left.

    Args:
        boxes: [M, 4], x1 y1 x2 y2 in pixels.
        scores: [M].
        parameters: Decay and floor.

    Returns:
        Indices int64 [N] of those picked and their final scores float32 [N], in the order of picking.
    """
    left = np.flatnonzero(scores >= parameters.score_floor)
    rest = scores[left].astype(np.float32)
    picked, final = [], []
    while len(left):
        best = int(rest.argmax())
        picked.append(int(left[best]))
        final.append(rest[best])
        others = np.arange(len(left)) != best
        overlap = _overlap(boxes[left[best]], boxes[left[others]], parameters.pixel_extent)
        rest = rest[others] * _decay(overlap, parameters)
        stay = rest >= parameters.score_floor
        left, rest = left[others][stay], rest[stay]
    return np.array(picked, np.int64), np.array(final, np.float32)


def cut(scores: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """Return the indices of the best scores, best first: ``most`` of them, and those that equal the last."""
    if len(scores) > most:
        threshold = np.partition(scores, len(scores) - most)[len(scores) - most]
        kept = np.flatnonzero(scores >= threshold)
    else:
        kept = np.arange(len(scores))
    return kept[np.argsort(-scores[kept], kind="stable")]


def _overlap(one: NDArray[np.float32], others: NDArray[np.float32], extent: float) -> NDArray[np.float32]:
    """Return the intersection over union [M] of a box with others [M, 4]; ``extent`` is added to every side."""
    corners = np.maximum(one[:2], others[:, :2]), np.minimum(one[2:], others[:, 2:])
    shared = (corners[1] - corners[0] + extent).clip(0).prod(axis=1)
    union = (others[:, 2:] - others[:, :2] + extent).prod(axis=1) + (one[2:] - one[:2] + extent).prod() - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0), np.float32)


def _decay(overlap: NDArray[np.float32], parameters: NmsParameters) -> NDArray[np.float32]:
    if parameters.method == "gaussian":
        return np.asarray(np.exp(-(overlap * overlap) / np.float32(parameters.sigma)), np.float32)
    low = overlap <= np.float32(parameters.iou_threshold)
    return np.asarray(np.where(low, 1, 0 if parameters.method == "hard" else 1 - overlap), np.float32)
