"""Views of a frame: mirrored, scaled, of one of several sizes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases.geometry import INPUT, NATIVE, ROOMY, boxes_in, frame_sizes, input_sizes, parts
from cases.small import SMALL_SPEC
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime.errors import SizeError
from cornernet_runtime.processing.geometry import fit, place, usable_scales

SEVERAL = replace(NATIVE, largest_size=(767, 767), other_sizes=((511, 767), (767, 511)), dynamic=False, geometry="fit")


# Every view.

view_specs = st.sampled_from([ROOMY, NATIVE, SMALL_SPEC, SEVERAL])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    frame_size=frame_sizes,
    spec=view_specs,
    scale=st.floats(0.1, 1),
    corner=st.tuples(parts, parts),
    other=st.tuples(parts, parts),
)
def test_to_input_and_to_frame_are_inverse_in_every_view(frame_size, spec, scale, corner, other):
    box = boxes_in(frame_size, corner, other)
    for view in place(frame_size, spec, [scale], flip=True):
        # Float64 of numbers up to 6000, divided by scales down to a thousandth.
        assert np.abs(view.to_frame(view.to_input(box)) - box).max() < 1e-7
        assert np.abs(view.to_input(view.to_frame(box)) - box).max() < 1e-7


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    frame_size=frame_sizes,
    spec=view_specs,
    scale=st.floats(0.1, 1),
    corner=st.tuples(parts, parts),
    other=st.tuples(parts, parts),
)
def test_a_mirrored_view_reverses_boxes_in_the_whole_input(frame_size, spec, scale, corner, other):
    plain, mirrored = place(frame_size, spec, [scale], flip=True)
    box = boxes_in(frame_size, corner, other)
    ((x1, y1, x2, y2),) = plain.to_input(box)
    width = plain.input_size[1]
    assert mirrored.to_input(box).tolist() == [[width - x2, y1, width - x1, y2]]


def test_no_boxes_map_to_no_boxes_in_a_mirrored_view():
    for view in place((480, 640), NATIVE, flip=True):
        assert view.to_input(np.empty((0, 4))).shape == (0, 4)
        assert view.to_frame(np.empty((0, 4), np.float32)).shape == (0, 4)


def test_flip_puts_the_mirror_image_after_each_view():
    views = place((480, 640), NATIVE, [0.5, 1.0], flip=True)
    assert [(view.scale[0], view.mirrored) for view in views] == [(0.5, False), (0.5, True), (1.0, False), (1.0, True)]
    assert views[1] == replace(views[0], mirrored=True)
    assert views[3] == replace(views[2], mirrored=True)


def test_views_keep_the_order_of_the_scales():
    assert [view.scale[0] for view in place((480, 640), NATIVE, [1.0, 0.5, 1.5])] == [1.0, 0.5, 1.5]


def test_by_default_there_is_one_view_as_large_as_it_can_be():
    assert place((480, 640), SMALL_SPEC) == [fit((480, 640), (63, 95))]


@pytest.mark.parametrize("flip", [False, True])
def test_scales_that_rounding_makes_equal_give_one_view(flip):
    # 10 pixels become 63 * 0.999 = 62.9 of them, which is 63 again; at 0.9 they are 57.
    views = place((10, 10), SMALL_SPEC, [1.0, 0.999, 0.9], flip=flip)
    assert [view.size for view in views if not view.mirrored] == [(63, 63), (57, 57)]
    assert len(views) == (4 if flip else 2)


# One of several sizes.


def reach(size, frame_size):
    """How many times as large a frame can be in an input, by its tighter side."""
    return min(size[0] / frame_size[0], size[1] / frame_size[1])


@pytest.mark.parametrize(
    ("frame_size", "shrink", "input_size", "size"),
    [
        ((480, 640), 1, (511, 767), (511, 681)),
        ((640, 480), 1, (767, 511), (681, 511)),
        ((500, 500), 1, (511, 511), (511, 511)),  # all three show it alike: the smallest
        ((100, 1000), 1, (511, 767), (77, 767)),
        ((511, 512), 1, (511, 767), (511, 512)),  # a little larger than in 511x511
        ((480, 640), 0.75, (511, 511), (383, 511)),  # 0.75 * 511/480 is 511/640: it just fits
        ((480, 640), 0.8, (511, 767), (409, 545)),
        ((640, 480), 0.5, (511, 511), (341, 256)),
    ],
)
def test_choices_of_several_sizes_worked_out_by_hand(frame_size, shrink, input_size, size):
    (view,) = place(frame_size, SEVERAL, [shrink])
    assert (view.input_size, view.size) == (input_size, size)


sides = st.integers(1, 8).map(lambda count: 128 * count - 1)
size_lists = st.lists(st.tuples(sides, sides), min_size=1, max_size=4, unique=True)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frame_size=frame_sizes, sizes=size_lists)
def test_of_several_sizes_the_one_that_shows_the_frame_largest_is_chosen(frame_size, sizes):
    spec = replace(SEVERAL, input_size=sizes[0], other_sizes=tuple(sizes[1:]), largest_size=(1023, 1023))
    (view,) = place(frame_size, spec)
    best = max(reach(size, frame_size) for size in sizes)
    alike = [size for size in sizes if reach(size, frame_size) == best]  # exactly: the same division
    assert reach(view.input_size, frame_size) == pytest.approx(best, rel=1e-9)
    assert view.input_size[0] * view.input_size[1] == min(height * width for height, width in alike)
    assert view == fit(frame_size, view.input_size)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frame_size=frame_sizes, sizes=size_lists, shrink=st.floats(0.1, 0.99))
def test_a_smaller_view_takes_the_smallest_size_that_holds_it(frame_size, sizes, shrink):
    spec = replace(SEVERAL, input_size=sizes[0], other_sizes=tuple(sizes[1:]), largest_size=(1023, 1023))
    (view,) = place(frame_size, spec, [shrink])
    wanted = shrink * max(reach(size, frame_size) for size in sizes)
    for old, new in zip(frame_size, view.size, strict=True):
        # Whole pixels and at least one; 1e-6 because the product itself is rounded.
        assert abs(new - old * wanted) <= 0.5 + 1e-6 or new == 1
    area = view.input_size[0] * view.input_size[1]
    smaller = [size for size in sizes if size[0] * size[1] < area]
    assert all(reach(size, frame_size) < wanted for size in smaller)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(frame_size=frame_sizes, input_size=input_sizes, shrink=st.floats(0.05, 1))
@example(frame_size=(1, 1), input_size=INPUT, shrink=0.05)
def test_a_shrunk_frame_is_that_part_of_the_largest_and_centred(frame_size, input_size, shrink):
    view = fit(frame_size, input_size, shrink)
    scale = reach(input_size, frame_size) * shrink
    starts = (view.top, view.left)
    for old, new, whole, start in zip(frame_size, view.size, input_size, starts, strict=True):
        assert abs(new - old * scale) <= 0.5 + 1e-6 or new == 1  # as above
        assert 0 <= (whole - start - new) - start <= 1
    assert view.visible == view.size


# Scales.


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5), (1.5, 0.5), (0.25,), (2.0,)])
def test_a_native_model_takes_scales_as_they_are(scales):
    assert usable_scales(scales, NATIVE) == scales


@pytest.mark.parametrize("spec", [SMALL_SPEC, SEVERAL], ids=["one size", "several"])
@pytest.mark.parametrize(
    ("scales", "used"),
    [
        ((1.0,), (1.0,)),
        ((0.5, 1.0, 1.5), (1 / 3, 2 / 3, 1.0)),
        ((1.5, 0.5), (1.0, 1 / 3)),
        ((2.0,), (1.0,)),
        ((0.5, 0.75), (0.5, 0.75)),
        ((0.25,), (0.25,)),
    ],
)
def test_the_largest_scale_fills_an_input_that_a_frame_is_fitted_into(spec, scales, used):
    assert usable_scales(scales, spec) == pytest.approx(used, rel=1e-12)  # one division


@pytest.mark.parametrize("spec", [SMALL_SPEC, NATIVE], ids=["fit", "native"])
@pytest.mark.parametrize(
    "scales",
    [(), (0.0,), (1.0, 0.0), (-1.0,), (0.5, -0.5), (np.nan,), (1.0, np.nan), (np.inf,), (1.0, -np.inf), (1.0, 1.0)],
    ids=str,
)
def test_scales_that_are_no_distinct_positive_numbers_are_refused(spec, scales):
    with pytest.raises(SizeError) as caught:
        usable_scales(scales, spec)
    assert str(caught.value) == f"scales: expected distinct positive numbers, got {list(scales)}"
