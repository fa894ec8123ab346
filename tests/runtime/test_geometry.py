"""Against plain formulas in float64, searches by trying, and placements worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases.small import SMALL_SPEC
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime.errors import SizeError
from cornernet_runtime.geometry import cells_to_input, clip_to_frame, fit, place, usable_scales

INPUT = (63, 95)
LARGEST = (3000, 4000)
# As CornerNet-104 is exported for pictures of COCO; ROOMY takes every frame of these tests at every scale up to 1.5.
NATIVE = replace(
    SMALL_SPEC, modulus=128, input_size=(511, 511), largest_size=(1023, 1023), dynamic=True, geometry="native"
)
ROOMY = replace(NATIVE, largest_size=(6143, 6143))
SEVERAL = replace(NATIVE, largest_size=(767, 767), other_sizes=((511, 767), (767, 511)), dynamic=False, geometry="fit")

frame_sizes = st.tuples(st.integers(1, LARGEST[0]), st.integers(1, LARGEST[1]))
input_sizes = st.sampled_from([(511, 511), (511, 767), (767, 511), (255, 255), INPUT])
parts = st.floats(0, 1)
extremes = [(1, 1), (1, 4000), (3000, 1), LARGEST, (511, 511), (2, 3)]


def with_extremes(test):
    for size in extremes:
        test = example(frame_size=size, input_size=(511, 511), corner=(0.0, 1.0), other=(1.0, 0.0))(test)
    return test


# Where the frame lies, and boxes there and back.


@with_extremes
@settings(deadline=None, derandomize=True)
@given(frame_size=frame_sizes, input_size=input_sizes, corner=st.tuples(parts, parts), other=st.tuples(parts, parts))
def test_a_box_returns_from_the_input_to_the_frame(frame_size, input_size, corner, other):
    height, width = frame_size
    box = np.array([[width * corner[0], height * corner[1], width * other[0], height * other[1]]])
    placement = fit(frame_size, input_size)
    # Float64 both ways: a few roundings of numbers up to 4000, far below the 0.01 px that is promised.
    assert np.abs(placement.to_frame(placement.to_input(box)) - box).max() < 1e-9


@with_extremes
@settings(deadline=None, derandomize=True)
@given(frame_size=frame_sizes, input_size=input_sizes, corner=st.tuples(parts, parts), other=st.tuples(parts, parts))
def test_a_box_returns_from_cells_in_float32_to_the_frame(frame_size, input_size, corner, other):
    spec = replace(SMALL_SPEC, input_size=input_size, largest_size=input_size)
    (map_height, map_width), (input_height, input_width) = spec.map_size, input_size
    height, width = frame_size
    box = np.array([[width * corner[0], height * corner[1], width * other[0], height * other[1]]])
    placement = fit(frame_size, input_size)
    ratio = np.array([map_width / input_width, map_height / input_height] * 2)
    cells = (placement.to_input(box) * ratio).astype(np.float32)
    # The promise: 0.01 px. A cell at 192 in float32 is exact to 8e-6, times stride 4 and a scale of 48 at most.
    assert np.abs(placement.to_frame(cells_to_input(cells, input_size, spec.stride)) - box).max() < 0.01


@with_extremes
@settings(deadline=None, derandomize=True)
@given(frame_size=frame_sizes, input_size=input_sizes, corner=st.tuples(parts, parts), other=st.tuples(parts, parts))
def test_the_frame_lies_centred_in_the_input_and_keeps_its_aspect(frame_size, input_size, corner, other):
    del corner, other
    placement = fit(frame_size, input_size)
    scale = min(new / old for new, old in zip(input_size, frame_size, strict=True))
    assert any(new == limit for new, limit in zip(placement.size, input_size, strict=True)), "it touches two sides"
    starts = (placement.top, placement.left)
    for old, new, limit, start in zip(frame_size, placement.size, input_size, starts, strict=True):
        end = limit - start - new
        assert start >= 0
        assert end >= 0
        assert 0 <= end - start <= 1, "an odd pixel of border goes below and right"
        # Sides are whole pixels and at least one; 1e-6 because the product itself is rounded.
        assert abs(new - old * scale) <= 0.5 + 1e-6 or new == 1


@settings(deadline=None, derandomize=True)
@given(frame_size=frame_sizes, input_size=input_sizes)
def test_the_edges_of_the_frame_are_the_edges_of_its_window(frame_size, input_size):
    placement = fit(frame_size, input_size)
    height, width = frame_size
    edges = placement.to_input(np.array([[0, 0, width, height]]))
    left, top = placement.left, placement.top
    expected = [[left, top, left + placement.size[1], top + placement.size[0]]]
    assert edges == pytest.approx(np.array(expected), abs=1e-9)  # one rounding of the scale


@pytest.mark.parametrize(
    ("frame_size", "input_size", "size", "top", "left"),
    [
        ((480, 640), (511, 511), (383, 511), 64, 0),
        ((640, 480), (511, 511), (511, 383), 0, 64),
        ((1080, 1920), (511, 767), (431, 767), 40, 0),
        ((511, 511), (511, 511), (511, 511), 0, 0),
        ((1, 1), (63, 95), (63, 63), 0, 16),
        ((1, 4000), (63, 95), (1, 95), 31, 0),
        ((1000, 1), (63, 95), (63, 1), 0, 47),
    ],
)
def test_placements_worked_out_by_hand(frame_size, input_size, size, top, left):
    found = fit(frame_size, input_size)
    assert (found.size, found.top, found.left) == (size, top, left)


def test_128_cells_span_511_pixels():
    boxes = cells_to_input(np.array([[0, 0, 192, 128], [96, 64, 1, 1]], np.float32), (511, 767), 4)
    # One product in float64.
    assert boxes == pytest.approx(np.array([[0, 0, 767, 511], [383.5, 255.5, 767 / 192, 511 / 128]]), abs=1e-9)


def test_no_boxes_map_to_no_boxes():
    none = np.empty((0, 4), np.float32)
    placement = fit((480, 640), INPUT)
    assert cells_to_input(none, INPUT, 4).shape == (0, 4)
    assert placement.to_input(none).shape == (0, 4)
    assert placement.to_frame(none).shape == (0, 4)
    boxes, inside = clip_to_frame(np.empty((0, 4)), (480, 640))
    assert (boxes.shape, inside.shape) == ((0, 4), (0,))


@pytest.mark.parametrize(
    ("box", "clipped", "touches"),
    [
        ([10, 20, 30, 40], [10, 20, 30, 40], True),
        ([-5, -6, 30, 40], [0, 0, 30, 40], True),
        ([10, 20, 105, 64], [10, 20, 100, 50], True),
        ([-9, -9, 900, 900], [0, 0, 100, 50], True),
        ([-9, 10, 0, 20], [0, 10, 0, 20], True),
        ([-9, 10, -0.01, 20], [0, 10, 0, 20], False),
        ([10, -9, 20, -0.01], [10, 0, 20, 0], False),
        ([100.01, 10, 120, 20], [100, 10, 100, 20], False),
        ([10, 50.01, 20, 60], [10, 50, 20, 50], False),
    ],
)
def test_boxes_are_clipped_to_a_frame_of_100_by_50(box, clipped, touches):
    boxes, inside = clip_to_frame(np.array([box], np.float64), (50, 100))
    assert boxes.dtype == np.float32
    assert boxes.tolist() == [clipped]
    assert inside.tolist() == [touches]


def boxes_in(frame_size, corner, other):
    """One box [1, 4] of a frame, from parts of its sides."""
    (y1, y2), (x1, x2) = (sorted((side * a, side * b)) for side, a, b in zip(frame_size, corner, other, strict=True))
    return np.array([[x1, y1, x2, y2]])


def native(frame_size, scale=1.0, spec=ROOMY):
    (view,) = place(frame_size, spec, [scale])
    return view


def resized(frame_size, scale):
    """Sides as the original cuts them, and at least one pixel."""
    return tuple(max(1, int(side * scale)) for side in frame_size)


def next_side(side, modulus=128):
    """The smallest side that holds ``side`` pixels and is one less than a multiple of the modulus, by trying."""
    return next(new for new in range(side, side + modulus) if (new + 1) % modulus == 0)


# Native geometry: the original's test code.

scales = st.floats(0.5, 1.5)


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
