"""Frames of any size, fitted or native, and the maps of the largest view."""

from __future__ import annotations

import numpy as np
import pytest
from cases.detector import (
    FIVE_SCALES,
    NATIVE,
    SPEC,
    RandomBackend,
    SeeingBackend,
    assert_scene,
    detect_planted,
    noise,
    reach_of,
    scene,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime import Detector
from cornernet_runtime.processing.geometry import cells_to_input, fit, place
from cornernet_runtime.processing.maps import OUTPUT_NAMES

# From and to, as parts of a side; not on one edge of the frame alone, where rounding decides whether it is touched.
sides = st.tuples(st.floats(0, 0.99), st.floats(0.01, 1)).map(sorted)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(frame_size=st.tuples(st.integers(1, 3000), st.integers(1, 4000)), x=sides, y=sides, label=st.integers(0, 2))
@example(frame_size=(1, 1), x=[0.0, 1.0], y=[0.0, 1.0], label=0)
@example(frame_size=(3000, 4000), x=[0.0, 1.0], y=[0.0, 1.0], label=2)
@example(frame_size=(3000, 4000), x=[0.5, 0.5], y=[0.25, 0.25], label=1)
@example(frame_size=(1, 4000), x=[0.3, 0.7], y=[0.0, 1.0], label=1)
def test_one_planted_box_comes_back_from_a_frame_of_any_size(frame_size, x, y, label):
    height, width = frame_size
    box = np.array([[x[0] * width, y[0] * height, x[1] * width, y[1] * height]])
    found = detect_planted(fit(frame_size, SPEC.input_size).to_input(box), [label], frame_size)
    assert found.labels.tolist() == [label]
    # As above; a frame of one row leaves 4000 pixels to 255, the same scale.
    assert np.abs(found.boxes - box).max() < 0.05


def test_cells_are_input_side_over_map_side():
    # The bar of the planted tests rests on encode_boxes and cells_to_input being inverse; this is the number itself.
    assert cells_to_input(np.array([[1, 1, 64, 48]]), SPEC.input_size, SPEC.stride).tolist() == [
        [255 / 64, 191 / 48, 255, 191]
    ]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("frame_size", [(1200, 900), (512, 100), (4000, 300), (511, 511), (513, 513)])
def test_a_frame_larger_than_the_model_takes_is_scaled_down(frame_size, flip):
    height, width = frame_size
    boxes = [(width // 10, height // 10, width * 7 // 10, height // 2), (0, 0, width, height)]
    backend = SeeingBackend(NATIVE)
    found = Detector(backend, NATIVE, flip=flip)(scene(height, width, boxes))
    assert_scene(found.above(0.25), boxes, reach_of(min(1, 510 / max(frame_size))))
    assert max(backend.runs[0].shape[2:]) <= 511


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    frame_size=st.tuples(st.integers(1, 600), st.integers(1, 600)),
    scale=st.floats(0.5, 1.5),
    x=sides,
    y=sides,
    flip=st.booleans(),
)
@example(frame_size=(1, 1), scale=0.5, x=[0.0, 1.0], y=[0.0, 1.0], flip=True)
@example(frame_size=(511, 511), scale=1.0, x=[0.0, 1.0], y=[0.0, 1.0], flip=False)
def test_one_object_comes_back_from_a_native_frame_of_any_size(frame_size, scale, x, y, flip):
    height, width = frame_size
    # At least four pixels where there are as many, so that some samples of the smallest view are fully bright.
    spans = []
    for (first, last), side in ((x, width), (y, height)):
        start = min(round(first * side), max(0, side - 4))
        spans.append((start, min(side, max(start + 4, round(last * side)))))
    box = (spans[0][0], spans[1][0], spans[0][1], spans[1][1])
    found = Detector(SeeingBackend(NATIVE), NATIVE, scales=(scale,), flip=flip)(scene(height, width, [box]))
    # Small objects of two sights may overlap little, so the best one is asked for.
    assert found.labels[0] == 0
    assert np.abs(found.boxes[0] - box).max() <= reach_of(min(scale, 510 / max(frame_size)))


@pytest.mark.parametrize("frame_size", [(101, 33), (3, 500), (511, 511), (700, 90)])
def test_boxes_of_every_view_are_within_the_frame(frame_size):
    height, width = frame_size
    found = Detector(RandomBackend(NATIVE), NATIVE, flip=True, scales=FIVE_SCALES)(noise(*frame_size))
    assert len(found) > 0
    assert found.boxes.min() >= 0
    assert found.boxes[:, [0, 2]].max() <= width
    assert found.boxes[:, [1, 3]].max() <= height


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.5, 1.0), (0.5, 0.25)])
def test_corner_maps_are_those_of_the_largest_view(scales, flip):
    backend, frame = RandomBackend(NATIVE), noise(60, 90)
    maps, view = Detector(backend, NATIVE, scales=scales, flip=flip).corner_maps(frame)
    assert view == place((60, 90), NATIVE, [max(scales)])[0]
    assert not view.mirrored
    (run,) = backend.runs
    expected = backend.see(run[0])
    for name in OUTPUT_NAMES:
        assert np.array_equal(getattr(maps, name), getattr(expected, name))
    height, width = view.input_size
    assert maps.tl_heat.shape == (3, (height + 1) // 4, (width + 1) // 4)


def test_the_largest_view_of_a_fitted_frame_fills_the_input():
    _, view = Detector(RandomBackend(SPEC), SPEC, scales=(0.5, 1.5)).corner_maps(noise(60, 90))
    assert view == fit((60, 90), SPEC.input_size)
