"""Boxes to suppress."""

from __future__ import annotations

import numpy as np

METHODS = ["gaussian", "linear", "hard"]

EXHAUSTIVE = 100_000


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
