"""Against plain formulas in float64; the resampling against a matrix of bilinear weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import SMALL_SPEC
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime.errors import FrameError
from cornernet_runtime.geometry import (
    Placement,
    Preprocessor,
    cells_to_input,
    check_frame,
    clip_to_frame,
    fit,
)
from cornernet_runtime.spec import Normalisation

INPUT = (63, 95)
# Output is the grey level over 255, so that tests can speak of grey levels.
PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
MMDETECTION = Normalisation(
    "rgb",
    mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
    std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
    pad=(123.675, 116.28, 103.53),
)
LARGEST = (3000, 4000)

frame_sizes = st.tuples(st.integers(1, LARGEST[0]), st.integers(1, LARGEST[1]))
input_sizes = st.sampled_from([(511, 511), (511, 767), (767, 511), (255, 255), INPUT])
parts = st.floats(0, 1)
extremes = [(1, 1), (1, 4000), (3000, 1), LARGEST, (511, 511), (2, 3)]


def with_extremes(test):
    for size in extremes:
        test = example(frame_size=size, input_size=(511, 511), corner=(0.0, 1.0), other=(1.0, 0.0))(test)
    return test


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def run(frame, normalisation=PLAIN, input_size=INPUT):
    output = np.full((3, *input_size), np.nan, np.float32)
    placement = Preprocessor(input_size, normalisation)(frame, output)
    return output, placement


def window(output, placement):
    height, width = placement.size
    return output[:, placement.top : placement.top + height, placement.left : placement.left + width]


def border(output, placement):
    """The values [3, N] around the frame."""
    inside = np.zeros(output.shape[1:], bool)
    window(inside[None], placement)[:] = True
    return output[:, ~inside]


def bilinear_weights(new, old):
    """Weights [new, old] of each old sample in each new one: pixel centres at a half, edges repeated."""
    weights = np.zeros((new, old))
    for row in range(new):
        place = min(max((row + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        below = int(place)
        weights[row, below] += 1 - (place - below)
        weights[row, min(below + 1, old - 1)] += place - below
    return weights


def resample(frame, size):
    """Return float64 [3, height, width] in the channel order of the frame."""
    rows, columns = (bilinear_weights(new, old) for new, old in zip(size, frame.shape, strict=False))
    return np.stack([rows @ frame[..., channel].astype(np.float64) @ columns.T for channel in range(3)])


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
    assert np.abs(placement.to_frame(cells_to_input(cells, spec)) - box).max() < 0.01


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
    assert fit(frame_size, input_size) == Placement(frame_size, size, top, left)


def test_128_cells_span_511_pixels():
    spec = replace(SMALL_SPEC, modulus=128, input_size=(511, 767), largest_size=(511, 767))
    boxes = cells_to_input(np.array([[0, 0, 192, 128], [96, 64, 1, 1]], np.float32), spec)
    # One product in float64.
    assert boxes == pytest.approx(np.array([[0, 0, 767, 511], [383.5, 255.5, 767 / 192, 511 / 128]]), abs=1e-9)


def test_no_boxes_map_to_no_boxes():
    none = np.empty((0, 4), np.float32)
    placement = fit((480, 640), INPUT)
    assert cells_to_input(none, SMALL_SPEC).shape == (0, 4)
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


# Pixels.


@settings(max_examples=60, deadline=None, derandomize=True)
@given(height=st.integers(1, 200), width=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
@example(height=1, width=1, seed=0)
@example(height=1, width=200, seed=0)
@example(height=126, width=190, seed=0)
@example(height=63, width=95, seed=0)
def test_pixels_are_those_of_bilinear_resampling(height, width, seed):
    frame = noise(height, width, seed)
    output, placement = run(frame)
    found = window(output, placement) * 255
    # OpenCV's weights have 11 bits and its result is a whole grey level.
    assert np.abs(found - resample(frame, placement.size)).max() <= 1


@pytest.mark.parametrize("size", [(3000, 200), (200, 4000), (5, 4000), (511, 513)])
def test_pixels_of_large_frames_are_those_of_bilinear_resampling(size):
    frame = noise(*size)
    output, placement = run(frame, input_size=(255, 383))
    # As above; the weights of a sample far to the right have lost more of float32.
    assert np.abs(window(output, placement) * 255 - resample(frame, placement.size)).max() <= 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    frame_size=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    start=st.tuples(parts, parts),
    extent=st.tuples(parts, parts),
)
def test_a_rectangle_shows_up_where_its_box_maps_to(frame_size, start, extent):
    placement = fit(frame_size, INPUT)
    top, bottom, left, right = (0,) * 4
    for axis, (old, new) in enumerate(zip(frame_size, placement.size, strict=True)):
        # Two pixels of the input, so that samples lie inside, and of the frame, so that some of these are fully bright.
        least = min(old, max(2, -(-2 * old // new)))
        first = round(start[axis] * (old - least))
        last = first + least + round(extent[axis] * (old - first - least))
        top, bottom, left, right = (first, last, left, right) if axis == 0 else (top, bottom, first, last)
    frame = np.zeros((*frame_size, 3), np.uint8)
    frame[top:bottom, left:right] = 255
    level, _ = run(frame)
    rows, columns = np.nonzero(level[0] >= 0.5)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = placement.to_input(np.array([[left, top, right, bottom]]))[0]
    # A pixel is bright when its centre is inside, so an edge is found within half a pixel. 0.01 because half of 255
    # is no whole level, and a ramp over many pixels meets it a little later.
    assert np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_values_are_exactly_the_formula_in_the_order_of_the_channels(order):
    normalisation = Normalisation(order, mean=(0.41, 0.45, 0.47), std=(0.29, 0.27, 0.28))
    frame = noise(*INPUT)
    output, placement = run(frame, normalisation)
    assert placement == Placement(INPUT, INPUT, 0, 0)
    levels = frame.astype(np.float64) if order == "bgr" else frame[..., ::-1].astype(np.float64)
    expected = (levels / 255 - np.array([0.41, 0.45, 0.47])) / np.array([0.29, 0.27, 0.28])
    assert np.array_equal(output, expected.transpose(2, 0, 1).astype(np.float32))


def test_each_channel_of_the_frame_goes_to_its_own_channel_of_the_input():
    frame = np.empty((10, 10, 3), np.uint8)
    frame[:] = (255, 51, 0)  # blue, green, red
    bgr, rgb = (run(frame, replace(PLAIN, channel_order=order)) for order in ("bgr", "rgb"))
    assert np.array_equal(np.unique(window(*bgr).reshape(3, -1), axis=1)[:, 0], np.array([1, 0.2, 0], np.float32))
    assert np.array_equal(np.unique(window(*rgb).reshape(3, -1), axis=1)[:, 0], np.array([0, 0.2, 1], np.float32))


@pytest.mark.parametrize("order", ["bgr", "rgb"])
def test_the_border_is_exactly_the_pad_normalised_in_the_order_of_the_channels(order):
    normalisation = Normalisation(order, mean=(0.41, 0.45, 0.47), std=(0.29, 0.27, 0.28), pad=(10.0, 20.0, 255.0))
    output, placement = run(noise(40, 20), normalisation)
    values = border(output, placement)
    expected = (np.array([10, 20, 255]) / 255 - [0.41, 0.45, 0.47]) / [0.29, 0.27, 0.28]
    assert values.shape == (3, INPUT[0] * INPUT[1] - 63 * 32)
    assert (values == expected.astype(np.float32)[:, None]).all()


def test_the_mean_pixel_as_pad_is_zero_after_normalising():
    output, placement = run(noise(40, 20), MMDETECTION)
    # In float32 the mean is exact to 6e-8, and the standard deviation is about a quarter.
    assert np.abs(border(output, placement)).max() < 1e-6


@pytest.mark.parametrize("normalisation", [Normalisation(), MMDETECTION], ids=["bgr", "rgb"])
def test_every_frame_is_prepared_as_if_it_were_the_first(normalisation):
    preprocess = Preprocessor(INPUT, normalisation)
    output = np.empty((3, *INPUT), np.float32)
    sizes = [(63, 95), (40, 20), (20, 40), (63, 95), (1, 1), (30, 300), (200, 10), (200, 10), (126, 190)]
    for seed, size in enumerate(sizes):
        placement = preprocess(noise(*size, seed), output)
        alone, expected = run(noise(*size, seed), normalisation)
        assert placement == expected
        assert np.array_equal(output, alone), f"frame {seed} of size {size}"


VIEWS = {
    "upside down": lambda frame: frame[::-1],
    "mirrored": lambda frame: frame[:, ::-1],
    "RGB as BGR": lambda frame: frame[..., ::-1],
    "every other pixel": lambda frame: frame[::2, ::2],
    "cut out": lambda frame: frame[3:-3, 5:-5],
    "transposed": lambda frame: frame.transpose(1, 0, 2),
    "column-major": np.asfortranarray,
    "planar": lambda frame: np.ascontiguousarray(frame.transpose(2, 0, 1)).transpose(1, 2, 0),
    "one row repeated": lambda frame: np.broadcast_to(frame[:1], frame.shape),
}


@pytest.mark.parametrize("size", [(80, 70), (126, 190), INPUT])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_is_prepared_like_its_copy(view, size):
    frame = view(noise(*size))
    assert np.array_equal(run(frame)[0], run(frame.copy(order="C"))[0])


@pytest.mark.parametrize("size", [INPUT, (80, 70)])
def test_a_read_only_frame_is_read_only(size):
    frame = noise(*size)
    before = frame.copy()
    frame.flags.writeable = False
    output, _ = run(frame)
    assert np.array_equal(output, run(before)[0])
    assert np.array_equal(frame, before)


@pytest.mark.parametrize(
    ("frame", "came"),
    [
        (np.zeros((4, 5, 3), np.float32), r"float32 \[4, 5, 3\]"),
        (np.zeros((4, 5, 3), np.uint16), r"uint16 \[4, 5, 3\]"),
        (np.zeros((4, 5, 3), np.int8), r"int8 \[4, 5, 3\]"),
        (np.zeros((4, 5, 3), bool), r"bool \[4, 5, 3\]"),
        (np.zeros((4, 5), np.uint8), r"uint8 \[4, 5\]"),
        (np.zeros((4, 5, 1), np.uint8), r"uint8 \[4, 5, 1\]"),
        (np.zeros((4, 5, 4), np.uint8), r"uint8 \[4, 5, 4\]"),
        (np.zeros((3, 4, 5), np.uint8), r"uint8 \[3, 4, 5\]"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"uint8 \[1, 4, 5, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"uint8 \[0, 5, 3\]"),
        (np.zeros((4, 0, 3), np.uint8), r"uint8 \[4, 0, 3\]"),
        (np.zeros((), np.uint8), r"uint8 \[\]"),
        ([[[0, 0, 0]]], "list"),
        (None, "NoneType"),
        ("picture.png", "str"),
    ],
)
def test_what_is_no_frame_is_refused_by_what_came(frame, came):
    with pytest.raises(FrameError, match=rf"uint8 \[H, W, 3\] in BGR order, got {came}$"):
        check_frame(frame)
    with pytest.raises(FrameError):
        run(frame)


def test_a_bad_frame_does_not_disturb_the_next():
    preprocess = Preprocessor(INPUT, PLAIN)
    output = np.empty((3, *INPUT), np.float32)
    preprocess(noise(40, 20), output)
    with pytest.raises(FrameError):
        preprocess(noise(40, 20).astype(np.float32), output)
    preprocess(noise(40, 20, 1), output)
    assert np.array_equal(output, run(noise(40, 20, 1))[0])
