"""Against bilinear resampling written as a matrix of weights, and the normalisation formula in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime.errors import FrameError
from cornernet_runtime.geometry import fit
from cornernet_runtime.preprocess import Preprocessor, check_frame
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
parts = st.floats(0, 1)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def run(frame, normalisation=PLAIN, input_size=INPUT):
    output = np.full((3, *input_size), np.nan, np.float32)
    return output, prepare(Preprocessor(normalisation), frame, output)


def prepare(preprocess, frame, output):
    placement = fit(check_frame(frame).shape[:2], output.shape[1:])
    preprocess(frame, placement, output)
    return placement


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
    assert placement.size == INPUT
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
    preprocess = Preprocessor(normalisation)
    output = np.empty((3, *INPUT), np.float32)
    sizes = [(63, 95), (40, 20), (20, 40), (63, 95), (1, 1), (30, 300), (200, 10), (200, 10), (126, 190)]
    for seed, size in enumerate(sizes):
        placement = prepare(preprocess, noise(*size, seed), output)
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
    preprocess = Preprocessor(PLAIN)
    output = np.empty((3, *INPUT), np.float32)
    prepare(preprocess, noise(40, 20), output)
    with pytest.raises(FrameError):
        prepare(preprocess, noise(40, 20).astype(np.float32), output)
    prepare(preprocess, noise(40, 20, 1), output)
    assert np.array_equal(output, run(noise(40, 20, 1))[0])
