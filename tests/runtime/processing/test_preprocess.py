"""Against bilinear resampling written as a matrix of weights, and the normalisation formula in float64."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from cases.small import SMALL_SPEC
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime.bundle.spec import Normalisation
from cornernet_runtime.errors import FrameError
from cornernet_runtime.processing.geometry import fit, place
from cornernet_runtime.processing.preprocess import Preprocessor, check_frame

INPUT = (63, 95)
# Output is the grey level over 255, so that tests can speak of grey levels.
PLAIN = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
MMDETECTION = Normalisation(
    "rgb",
    mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
    std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
    pad=(123.675, 116.28, 103.53),
)
# A modulus of 16 keeps the inputs small; frames of 15, 31 and 47 pixels are those that just fit.
NATIVE = replace(SMALL_SPEC, input_size=(63, 95), largest_size=(1023, 1023), dynamic=True, geometry="native")
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


def run_view(frame, view, normalisation=PLAIN):
    """Return the input for one view, every value of it written."""
    output = np.full((3, *view.input_size), np.nan, np.float32)
    Preprocessor(normalisation)(frame, view, output)
    return output


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


# Views at the frame's own resolution, and mirror images.

families = pytest.mark.parametrize("normalisation", [Normalisation(), MMDETECTION], ids=["bgr", "rgb"])
small_sizes = st.tuples(st.integers(1, 100), st.integers(1, 100))


def half_canvases(picture, input_size, pad):
    """Pad as the original crops: half an input on each side of the picture's centre, pasted about the input's centre.

    Sides are odd, so twice a half is one pixel less than the input: the last row and column are always border.
    """
    canvas = np.empty((*input_size, 3))
    canvas[:] = pad
    centres, halves = [side // 2 for side in picture.shape[:2]], [side // 2 for side in input_size]
    spans = zip(centres, halves, picture.shape[:2], strict=True)
    taken = [(max(0, centre - half), min(centre + half, side)) for centre, half, side in spans]
    (y1, y2), (x1, x2) = taken
    y, x = (half - centre for centre, half in zip(centres, halves, strict=True))
    canvas[y + y1 : y + y2, x + x1 : x + x2] = picture[y1:y2, x1:x2]
    return canvas


def normalised(canvas, normalisation):
    levels = canvas if normalisation.channel_order == "bgr" else canvas[..., ::-1]
    return ((levels / 255 - normalisation.mean) / normalisation.std).transpose(2, 0, 1)


@families
@settings(max_examples=40, deadline=None, derandomize=True)
@given(frame_size=small_sizes, scale=st.sampled_from([0.5, 0.75, 1.0, 1.25, 1.5]))
@example(frame_size=(31, 47), scale=1.0)
@example(frame_size=(62, 30), scale=0.5)
@example(frame_size=(15, 16), scale=1.0)
@example(frame_size=(1, 1), scale=0.5)
@example(frame_size=(3, 95), scale=1.0)
def test_a_native_input_is_the_picture_cropped_as_the_original_does(normalisation, frame_size, scale):
    frame = noise(*frame_size)
    height, width = (max(1, int(side * scale)) for side in frame_size)
    picture = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    input_size = (height | 15, width | 15)
    pad = normalisation.pad if normalisation.channel_order == "bgr" else normalisation.pad[::-1]
    expected = normalised(half_canvases(picture, input_size, pad), normalisation)
    (view,) = place(frame_size, NATIVE, [scale])
    found = run_view(frame, view, normalisation)
    assert found.shape == expected.shape
    assert np.array_equal(found, expected.astype(np.float32))


def test_a_frame_too_large_for_the_model_is_shown_at_the_scale_that_fits():
    spec = replace(NATIVE, input_size=(63, 63), largest_size=(63, 63))
    frame = noise(248, 124)
    (view,) = place((248, 124), spec)
    # 62 of 63 rows, for the last one would be lost: a quarter.
    picture = cv2.resize(frame, (31, 62), interpolation=cv2.INTER_LINEAR)
    expected = normalised(half_canvases(picture, (63, 31), 0), PLAIN)
    assert np.array_equal(run_view(frame, view), expected.astype(np.float32))


@families
@settings(max_examples=40, deadline=None, derandomize=True)
@given(frame_size=small_sizes, native=st.booleans(), scale=st.sampled_from([0.5, 0.7, 1.0, 1.5]))
@example(frame_size=(31, 47), native=True, scale=1.0)
@example(frame_size=(46, 30), native=True, scale=0.5)
@example(frame_size=(1, 1), native=True, scale=0.5)
@example(frame_size=(1, 1), native=False, scale=1.0)
@example(frame_size=(100, 1), native=True, scale=1.0)
@example(frame_size=(63, 95), native=False, scale=1.0)
@example(frame_size=(63, 94), native=False, scale=1.0)
def test_a_mirrored_input_is_the_input_reversed_border_and_all(normalisation, frame_size, native, scale):
    plain, mirrored = place(frame_size, NATIVE if native else SMALL_SPEC, [scale if native else scale / 1.5], flip=True)
    frame = noise(*frame_size)
    expected = run_view(frame, plain, normalisation)[:, :, ::-1]
    assert np.array_equal(run_view(frame, mirrored, normalisation), expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    frame_size=st.tuples(st.integers(4, 300), st.integers(4, 300)),
    scale=st.floats(0.5, 1.5),
    start=st.tuples(parts, parts),
    extent=st.tuples(parts, parts),
    mirrored=st.booleans(),
)
@example(frame_size=(31, 47), scale=1.0, start=(0.0, 0.0), extent=(1.0, 1.0), mirrored=True)
@example(frame_size=(255, 9), scale=1.0, start=(1.0, 1.0), extent=(0.0, 0.0), mirrored=False)
def test_a_rectangle_shows_up_where_its_box_maps_to_in_native_views(frame_size, scale, start, extent, mirrored):
    view = place(frame_size, NATIVE, [scale], flip=True)[int(mirrored)]
    # At least four pixels of the frame, so that there are two of the smallest view, whose samples lie inside.
    edges = []
    for side, begin, length in zip(frame_size, start, extent, strict=True):
        first = round(begin * (side - 4))
        edges.append((first, first + 4 + round(length * (side - first - 4))))
    (top, bottom), (left, right) = edges
    frame = np.zeros((*frame_size, 3), np.uint8)
    frame[top:bottom, left:right] = 255
    rows, columns = np.nonzero(run_view(frame, view)[0] >= 0.5)
    found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    expected = view.to_input(np.array([[left, top, right, bottom]]))[0]
    # Half a pixel as for fitted frames; one more because a resized side is cut to whole pixels while boxes keep the
    # scale, or because the last row or column is lost.
    assert np.abs(found - expected).max() <= 1.51


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_native_pixel_lies_exactly_where_its_box_says_at_scale_one(mirrored):
    frame = np.zeros((20, 33, 3), np.uint8)
    frame[7, 30] = 255
    view = place((20, 33), NATIVE, flip=True)[int(mirrored)]
    rows, columns = np.nonzero(run_view(frame, view)[0])
    ((x1, y1, x2, y2),) = view.to_input(np.array([[30, 7, 31, 8]])).tolist()
    assert (columns.tolist(), rows.tolist()) == ([x1], [y1])
    assert (x2, y2) == (x1 + 1, y1 + 1)


@families
def test_every_view_is_prepared_as_if_it_were_the_first(normalisation):
    preprocess = Preprocessor(normalisation)
    for seed, size in enumerate([(31, 47), (90, 20), (20, 90), (1, 1), (100, 100), (31, 47)]):
        frame = noise(*size, seed)
        fitted, native = place(size, SMALL_SPEC, [1.0, 0.5], flip=True), place(size, NATIVE, [1.0, 0.5], flip=True)
        for view in (*native, *fitted):
            output = np.full((3, *view.input_size), np.nan, np.float32)
            preprocess(frame, view, output)
            assert np.array_equal(output, run_view(frame, view, normalisation)), f"frame {seed}: {view}"


def test_a_frame_a_little_larger_than_all_before_is_prepared_alike():
    preprocess = Preprocessor(PLAIN)
    for seed, size in enumerate([(30, 40), (35, 40), (45, 40), (50, 47)]):
        (view,) = place(size, NATIVE)
        output = np.full((3, *view.input_size), np.nan, np.float32)
        preprocess(noise(*size, seed), view, output)
        assert np.array_equal(output, run_view(noise(*size, seed), view))


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_a_strided_frame_is_mirrored_like_its_copy_and_stays_as_it_is(view, scale):
    frame = view(noise(47, 46))
    copy = frame.copy(order="C")
    mirrored = place(frame.shape[:2], NATIVE, [scale], flip=True)[1]
    assert np.array_equal(run_view(frame, mirrored), run_view(copy, mirrored))
    assert np.array_equal(frame, copy)
