"""Placements of a fitted frame, against plain formulas in float64 and worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases.geometry import INPUT, LARGEST, frame_sizes, input_sizes, parts
from cases.small import SMALL_SPEC
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_runtime.processing.geometry import cells_to_input, clip_to_frame, fit

extremes = [(1, 1), (1, 4000), (3000, 1), LARGEST, (511, 511), (2, 3)]


def with_extremes(test):
    for size in extremes:
        test = example(frame_size=size, input_size=(511, 511), corner=(0.0, 1.0), other=(1.0, 0.0))(test)
    return test


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
