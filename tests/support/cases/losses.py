"""Losses of the paper, written as plain loops over Python floats."""

from __future__ import annotations

import math
from itertools import product

FLOAT32 = 1e-5  # relative; sums of a few hundred float32 terms are good to about 1e-6
CLASSES, HEIGHT, WIDTH = 3, 16, 24


def focal_by_loops(heat, target):
    """Equation 1 with probabilities between 0.0001 and 0.9999, in float64."""
    loss, objects = 0.0, 0
    for logit, y in zip(heat.flatten().tolist(), target.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
        p = min(max(p, 1e-4), 1 - 1e-4)
        if y == 1:
            objects += 1
            loss -= (1 - p) ** 2 * math.log(p)
        else:
            loss -= (1 - y) ** 4 * p**2 * math.log(1 - p)
    return loss / max(objects, 1)


def pull_by_loops(tl, br):
    """Equation 4 for the objects of one picture."""
    means = [(a + b) / 2 for a, b in zip(tl, br, strict=True)]
    apart = sum((a - m) ** 2 + (b - m) ** 2 for a, b, m in zip(tl, br, means, strict=True))
    return apart / len(tl) if tl else 0.0


def push_by_loops(tl, br):
    """Equation 5 for the objects of one picture, at least 1 apart."""
    means = [(a + b) / 2 for a, b in zip(tl, br, strict=True)]
    count = len(means)
    near = sum(max(0.0, 1 - abs(means[k] - means[j])) for k, j in product(range(count), repeat=2) if k != j)
    return near / (count * (count - 1)) if count > 1 else 0.0
