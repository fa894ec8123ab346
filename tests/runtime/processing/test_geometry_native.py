"""Native geometry, against the original's test code and searches by trying."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases.geometry import LARGEST, NATIVE, ROOMY, boxes_in, frame_sizes, input_sizes, parts, scales
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime.processing.geometry import fit, place


def native(frame_size, scale=1.0, spec=ROOMY):
    (view,) = place(frame_size, spec, [scale])
    return view


def resized(frame_size, scale):
    """Sides as the original cuts them, and at least one pixel."""
    return tuple(max(1, int(side * scale)) for side in frame_size)


def next_side(side, modulus=128):
    """The smallest side that holds ``side`` pixels and is one less than a multiple of the modulus, by trying."""
    return next(new for new in range(side, side + modulus) if (new + 1) % modulus == 0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    frame_size=frame_sizes,
    scale=scales,
    corner=st.tuples(parts, parts),
    other=st.tuples(parts, parts),
    mirrored=st.booleans(),
)
@example(frame_size=(1, 1), scale=0.5, corner=(0.0, 0.0), other=(1.0, 1.0), mirrored=False)
@example(frame_size=(1, 1), scale=1.5, corner=(0.0, 0.0), other=(1.0, 1.0), mirrored=True)
@example(frame_size=(3, 1), scale=0.999, corner=(0.0, 0.0), other=(1.0, 1.0), mirrored=True)
@example(frame_size=LARGEST, scale=1.5, corner=(0.0, 0.0), other=(1.0, 1.0), mirrored=False)
@example(frame_size=(3999, 3999), scale=0.5, corner=(0.5, 1.0), other=(1.0, 1.0), mirrored=True)
@example(frame_size=(511, 767), scale=1.0, corner=(0.0, 0.0), other=(1.0, 1.0), mirrored=False)
def test_a_native_box_returns_within_a_pixel_of_the_resized_frame(frame_size, scale, corner, other, mirrored):
    box = boxes_in(frame_size, corner, other)
    # Where resizing to whole pixels really puts it, and the border that the original gives.
    sizes = resized(frame_size, scale)
    inputs = [next_side(side) for side in sizes]
    shifts = [whole // 2 - side // 2 for whole, side in zip(inputs, sizes, strict=True)]
    factors = [new / old for new, old in zip(sizes, frame_size, strict=True)]
    shown = box * (factors[::-1] * 2) + shifts[::-1] * 2
    if mirrored:
        shown = np.array([[inputs[1] - shown[0, 2], shown[0, 1], inputs[1] - shown[0, 0], shown[0, 3]]])
    view = place(frame_size, ROOMY, [scale], flip=True)[int(mirrored)]
    # The promise is 1/r px; the rest is float64 at 6000.
    assert np.abs(view.to_frame(shown) - box).max() <= 1 / scale + 1e-9


@settings(max_examples=60, deadline=None, derandomize=True)
@given(frame_size=frame_sizes, corner=st.tuples(parts, parts), other=st.tuples(parts, parts))
def test_a_native_box_returns_exactly_at_scale_one(frame_size, corner, other):
    box = boxes_in(frame_size, corner, other)
    view = native(frame_size)
    shown = box + np.array([view.left, view.top] * 2)
    assert view.size == frame_size
    assert np.abs(view.to_frame(shown) - box).max() < 1e-9  # one sum and its inverse in float64


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frame_size=frame_sizes, scale=scales)
@example(frame_size=(511, 639), scale=1.0)
@example(frame_size=(1022, 1278), scale=0.5)
@example(frame_size=(1, 1), scale=0.5)
@example(frame_size=(512, 128), scale=1.0)
def test_a_native_frame_is_centred_in_the_next_sides(frame_size, scale):
    view = native(frame_size, scale)
    assert view.frame_size == frame_size
    assert view.scale == (scale, scale)
    assert view.size == resized(frame_size, scale)
    assert view.input_size == tuple(next_side(side) for side in view.size)
    for side, whole, start, shown in zip(view.size, view.input_size, (view.top, view.left), view.visible, strict=True):
        assert start == (whole - 1) // 2 - side // 2
        assert shown == (side if side < whole else side - 1), "a side that just fits loses its last row or column"
        assert 0 <= start <= start + shown <= whole


@pytest.mark.parametrize(
    ("frame_size", "scale", "input_size", "size", "visible", "top", "left"),
    [
        ((480, 640), 1, (511, 767), (480, 640), (480, 640), 15, 63),
        ((480, 640), 0.5, (255, 383), (240, 320), (240, 320), 7, 31),
        ((427, 640), 1.5, (767, 1023), (640, 960), (640, 960), 63, 31),
        ((511, 511), 1, (511, 511), (511, 511), (510, 510), 0, 0),
        ((510, 512), 1, (511, 639), (510, 512), (510, 512), 0, 63),
        ((100, 767), 1, (127, 767), (100, 767), (100, 766), 13, 0),
        ((1, 1), 1, (127, 127), (1, 1), (1, 1), 63, 63),
        ((1, 1), 0.5, (127, 127), (1, 1), (1, 1), 63, 63),
        ((3, 5), 0.5, (127, 127), (1, 2), (1, 2), 63, 62),
        ((101, 33), 0.5, (127, 127), (50, 16), (50, 16), 38, 55),
        # Too large for 1023: 1022 pixels remain of the longer side, 1024 * 1022 / 2048 = 511 of the shorter one.
        ((1024, 2048), 1, (511, 1023), (511, 1022), (510, 1022), 0, 0),
        ((2048, 1024), 1.5, (1023, 511), (1022, 511), (1022, 510), 0, 0),
        ((768, 1024), 1, (767, 1023), (766, 1022), (766, 1022), 0, 0),
    ],
)
def test_native_placements_worked_out_by_hand(frame_size, scale, input_size, size, visible, top, left):
    found = native(frame_size, scale, NATIVE)
    assert (found.input_size, found.size, found.visible) == (input_size, size, visible)
    assert (found.top, found.left, found.mirrored) == (top, left, False)


largest_sizes = st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda n: (128 * n[0] - 1, 128 * n[1] - 1))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frame_size=frame_sizes, scale=st.floats(0.1, 10), largest=largest_sizes)
@example(frame_size=LARGEST, scale=1.0, largest=(127, 127))
@example(frame_size=(1, 4000), scale=10.0, largest=(127, 1023))
@example(frame_size=(1023, 1023), scale=1.0, largest=(1023, 1023))
@example(frame_size=(1024, 1024), scale=1.0, largest=(1023, 1023))
def test_a_native_input_is_never_beyond_the_largest(frame_size, scale, largest):
    view = native(frame_size, scale, replace(NATIVE, input_size=(127, 127), largest_size=largest))
    wanted = resized(frame_size, scale)
    assert view.input_size == tuple(next_side(side) for side in view.size)
    assert all(side <= limit for side, limit in zip(view.input_size, largest, strict=True))
    if all(side <= limit for side, limit in zip(wanted, largest, strict=True)):
        assert (view.size, view.scale) == (wanted, (scale, scale))
        return
    assert view.scale[0] == view.scale[1] < scale
    assert view.size == resized(frame_size, view.scale[0])
    # As large as it can be, but for the last row that just fits would cost, and another pixel where rounding cuts it.
    assert any(side >= limit - 2 for side, limit in zip(view.size, largest, strict=True))


def test_a_frame_that_is_too_large_at_several_scales_is_looked_at_once():
    views = place((3000, 4000), NATIVE, [1.0, 1.5, 0.25])
    assert [view.size for view in views] == [(766, 1022), (750, 1000)]


def test_a_native_frame_grows_beyond_its_own_size():
    assert native((100, 200), 1.5).size == (150, 300)


@pytest.mark.parametrize(
    ("frame_size", "scale", "extent"),
    [
        ((480, 640), 1, (480, 640)),
        ((101, 33), 0.5, (100, 32)),  # 50.5 and 16.5 pixels are cut to 50 and 16
        ((101, 33), 1.5, (151 / 1.5, 49 / 1.5)),
        ((1, 1), 0.5, (1, 1)),  # not the two pixels that the one of the input stands for
        ((511, 511), 1, (511, 511)),  # boxes reach into the row that is lost, as in the original
    ],
)
def test_native_boxes_reach_to_where_resizing_cut_the_frame(frame_size, scale, extent):
    assert native(frame_size, scale).extent == pytest.approx(extent, abs=1e-9)  # one division in float64


@settings(max_examples=60, deadline=None, derandomize=True)
@given(frame_size=frame_sizes, input_size=input_sizes)
def test_fitted_boxes_reach_over_the_whole_frame(frame_size, input_size):
    assert fit(frame_size, input_size).extent == pytest.approx(frame_size, rel=1e-12)  # two divisions in float64
