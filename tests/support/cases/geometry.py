"""Models, frames and boxes for the tests of geometry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from cases.small import SMALL_SPEC
from hypothesis import strategies as st

INPUT = (63, 95)
LARGEST = (3000, 4000)
# As CornerNet-104 is exported for pictures of COCO; ROOMY takes every frame of these tests at every scale up to 1.5.
NATIVE = replace(
    SMALL_SPEC, modulus=128, input_size=(511, 511), largest_size=(1023, 1023), dynamic=True, geometry="native"
)
ROOMY = replace(NATIVE, largest_size=(6143, 6143))

frame_sizes = st.tuples(st.integers(1, LARGEST[0]), st.integers(1, LARGEST[1]))
input_sizes = st.sampled_from([(511, 511), (511, 767), (767, 511), (255, 255), INPUT])
parts = st.floats(0, 1)


def boxes_in(frame_size, corner, other):
    """One box [1, 4] of a frame, from parts of its sides."""
    (y1, y2), (x1, x2) = (sorted((side * a, side * b)) for side, a, b in zip(frame_size, corner, other, strict=True))
    return np.array([[x1, y1, x2, y2]])


scales = st.floats(0.5, 1.5)
