"""Target maps: what decode makes of them again, and the radius against every move of both corners."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from cases.small import SMALL_SPEC
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cornernet_export.targets import PEAK_LOGIT, corner_radius, encode_boxes, ideal_maps
from cornernet_runtime.bundle.spec import DecodeParameters
from cornernet_runtime.processing.decode import decode, sigmoid
from cornernet_runtime.processing.geometry import cells_to_input

CLASSES = len(SMALL_SPEC.class_names)
INPUT_SIZE = SMALL_SPEC.input_size  # 63x95: not square, so that an exchange of x and y is seen
MAP_SIZE = SMALL_SPEC.map_size  # 16x24
HEIGHT, WIDTH = MAP_SIZE
# Room for every cell, so that nothing is lost to a cut.
ALL = DecodeParameters(top_k=CLASSES * HEIGHT * WIDTH, candidates=100_000)
TRUE_SCORE = float(sigmoid(np.float32(PEAK_LOGIT)))


def encode(boxes, labels, *, map_size=MAP_SIZE, input_size=INPUT_SIZE, classes=CLASSES):
    return encode_boxes(
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(labels, np.int64),
        classes=classes,
        map_size=map_size,
        input_size=input_size,
    )


def decoded(boxes, labels):
    """Return the boxes in input pixels with scores and labels that decode finds in the ideal maps."""
    candidates = decode(ideal_maps(encode(boxes, labels)), ALL)
    return cells_to_input(candidates.boxes, INPUT_SIZE, SMALL_SPEC.stride), candidates.scores, candidates.labels


def assert_decodes_to_itself(boxes, labels):
    found, scores, found_labels = decoded(boxes, labels)
    true = scores > 0.4  # a pair of background has twice sigmoid(-12); half a true pair would have 0.5
    np.testing.assert_allclose(scores[true], TRUE_SCORE, rtol=1e-6)
    assert np.count_nonzero(true) == len(boxes), "true objects, and no pair of a corner with background"
    # The same pairs in another order: sort both by class and box.
    rows = np.column_stack([found_labels[true], found[true]])
    wanted = np.column_stack([labels, np.reshape(boxes, (-1, 4))])
    # Float32 rounds cell + offset (up to 24 cells of 4 pixels) to 4e-6 of a pixel, the offset by itself to less.
    rows, wanted = (table[np.lexsort(table.round(3).T[::-1])] for table in (rows, wanted))
    np.testing.assert_allclose(rows, wanted, atol=2e-5)


@st.composite
def scenes(draw):
    """Draw boxes in the input with labels; no two share the cell of a corner."""
    height, width = INPUT_SIZE
    xs, ys = (st.integers(0, 8 * side).map(lambda eighths: eighths / 8) for side in (width, height))
    count = draw(st.integers(0, 12))
    boxes, labels, taken = [], [], set()
    for _ in range(count):
        x1, x2 = sorted((draw(xs), draw(xs)))
        y1, y2 = sorted((draw(ys), draw(ys)))
        cells = {
            ("tl", cell_of(x1, width, WIDTH), cell_of(y1, height, HEIGHT)),
            ("br", cell_of(x2, width, WIDTH), cell_of(y2, height, HEIGHT)),
        }
        if not cells & taken:
            taken |= cells
            boxes.append((x1, y1, x2, y2))
            labels.append(draw(st.integers(0, CLASSES - 1)))
    return boxes, labels


def cell_of(place, side, cells):
    return min(math.floor(place * cells / side), cells - 1)


# There and back.


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(scenes())
def test_decode_gives_back_the_encoded_boxes(scene):
    boxes, labels = scene
    assert_decodes_to_itself(boxes, labels)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 95, 63),
        (0, 20, 30, 40),
        (20, 0, 40, 30),
        (60, 20, 95, 40),
        (20, 40, 40, 63),
        (0, 0, 0, 0),
        (95, 63, 95, 63),
        (95, 0, 95, 63),
        (0, 63, 95, 63),
        (94.9, 62.9, 95, 63),
    ],
    ids=str,
)
@pytest.mark.parametrize("label", range(CLASSES))
def test_box_on_the_border_comes_back(box, label):
    assert_decodes_to_itself([box], [label])


def test_objects_side_by_side_do_not_pair_with_each_other():
    assert_decodes_to_itself([(4, 4, 20, 20), (30, 4, 46, 20), (4, 30, 20, 46)], [1, 1, 2])


def true_boxes(boxes, labels):
    """Return what decode finds beyond the ground, label and rounded box of each."""
    found, scores, found_labels = decoded(boxes, labels)
    # Pairs of a corner with the ground of its class have 0.5: an embedding has no class, so it fits there as well.
    true = scores > 0.6
    return {(int(label), *box) for label, box in zip(found_labels[true], found[true].round(3).tolist(), strict=True)}


@pytest.mark.parametrize("labels", [(0, 1), (1, 1)], ids=["two classes", "one class"])
@pytest.mark.parametrize("order", [1, -1])
def test_objects_that_share_a_corner_are_both_found(labels, order):
    boxes = [(8, 8, 24, 24), (8, 8, 60, 40)][::order]
    assert true_boxes(boxes, labels) == {(label, *box) for label, box in zip(labels, boxes, strict=True)}


@pytest.mark.parametrize("order", [1, -1])
def test_objects_linked_through_a_third_are_all_found(order):
    # The second shares its top-left corner with the first and its bottom-right one with the third.
    boxes = [(8, 8, 24, 24), (8, 8, 60, 40), (36, 28, 60, 40)][::order]
    labels = [0, 1, 2][::order]
    assert true_boxes(boxes, labels) == {(label, *box) for label, box in zip(labels, boxes, strict=True)}


@pytest.mark.parametrize("order", [1, -1])
def test_the_smaller_of_two_objects_in_one_cell_is_exact(order):
    # The cells of x are 95/24 pixels wide: both corners lie in the third, 0.5 pixels apart in x.
    boxes = [(8.5, 8, 20, 20), (8, 8, 60, 40)][::order]
    labels = [0, 1][::order]
    found = true_boxes(boxes, labels)
    assert (0, 8.5, 8.0, 20.0, 20.0) in found
    assert (1, 8.5, 8.0, 60.0, 40.0) in found


@pytest.mark.parametrize("label", range(CLASSES))
def test_first_object_does_not_pair_with_background(label):
    """The embedding of the background is zero, so no object may have that one."""
    _, scores, _ = decoded([(8, 8, 40, 40)], [label])
    assert scores[0] == pytest.approx(TRUE_SCORE, rel=1e-6)
    assert (scores[1:] < 1e-4).all()


def test_no_object_gives_empty_targets_and_no_detection():
    targets = encode([], [])
    assert targets.tl_heat.shape == targets.br_heat.shape == (CLASSES, HEIGHT, WIDTH)
    assert not targets.tl_heat.any()
    assert not targets.br_heat.any()
    assert targets.tl_cells.shape == targets.br_cells.shape == targets.labels.shape == (0,)
    assert targets.tl_offsets.shape == targets.br_offsets.shape == (0, 2)
    _, scores, _ = decoded([], [])
    assert (scores < 1e-4).all()


def test_ideal_maps_have_the_types_and_shapes_of_the_network():
    maps = ideal_maps(encode([(4, 4, 20, 20)], [0]))
    assert [(plane.shape[0], plane.shape[1:], plane.dtype.name) for plane in map(np.asarray, fields(maps))] == [
        (channels, MAP_SIZE, "float32") for channels in (CLASSES, CLASSES, 1, 1, 2, 2)
    ]


def fields(maps):
    return (maps.tl_heat, maps.br_heat, maps.tl_embed, maps.br_embed, maps.tl_offset, maps.br_offset)


# What encoding says of one corner.


def test_cells_and_offsets_worked_out_by_hand():
    # 16 cells over 63 rows and 24 over 95 columns: x 19 is cell 4.8, x 57 is 14.4, y 6.3 is 1.6, y 31.5 is 8.0.
    targets = encode([(19, 6.3, 57, 31.5)], [2])
    assert targets.tl_cells.tolist() == [1 * WIDTH + 4]
    assert targets.br_cells.tolist() == [8 * WIDTH + 14]
    np.testing.assert_allclose(targets.tl_offsets, [[0.8, 0.6]], atol=1e-6)
    np.testing.assert_allclose(targets.br_offsets, [[0.4, 0.0]], atol=1e-6)
    assert targets.labels.tolist() == [2]


def test_far_edge_goes_to_the_last_cell_with_an_offset_of_one():
    targets = encode([(0, 0, 95, 63)], [0])
    assert targets.br_cells.tolist() == [HEIGHT * WIDTH - 1]
    np.testing.assert_allclose(targets.br_offsets, [[1, 1]], atol=1e-6)


def test_heat_is_one_at_the_cells_of_the_corners_only():
    targets = encode([(19, 6.3, 57, 31.5)], [2])
    assert np.argwhere(targets.tl_heat == 1).tolist() == [[2, 1, 4]]
    assert np.argwhere(targets.br_heat == 1).tolist() == [[2, 8, 14]]


def test_heat_of_other_classes_stays_zero():
    targets = encode([(4, 4, 60, 60)], [1])
    assert not targets.tl_heat[[0, 2]].any()
    assert not targets.br_heat[[0, 2]].any()


@pytest.mark.parametrize("corner", ["tl", "br"])
def test_heat_falls_as_a_gaussian_within_the_radius_and_is_zero_beyond(corner):
    """exp(-(dx^2 + dy^2) / (2 sigma^2)), sigma a sixth of the diameter 2 r + 1."""
    # 40 by 40 cells in a map of 64: the least bound is both corners inwards, (80 - sqrt(1920)) / 4 = 9.05.
    targets = encode([(10, 10, 50, 50)], [0], map_size=(64, 64), input_size=(64, 64), classes=1)
    heat, (center_y, center_x), radius = (
        (targets.tl_heat[0], (10, 10), 9) if corner == "tl" else (targets.br_heat[0], (50, 50), 9)
    )
    sigma = 19 / 6
    for y, x in itertools.product(range(64), repeat=2):
        dy, dx = y - center_y, x - center_x
        inside = max(abs(dx), abs(dy)) <= radius
        expected = math.exp(-(dx**2 + dy**2) / (2 * sigma**2)) if inside else 0.0
        assert heat[y, x] == pytest.approx(expected, rel=1e-6), (y, x)


def test_gaussian_is_cut_at_the_border_and_keeps_its_values():
    whole = encode([(20, 20, 60, 60)], [0], map_size=(64, 64), input_size=(64, 64), classes=1).tl_heat[0]
    cut = encode([(2, 3, 42, 43)], [0], map_size=(64, 64), input_size=(64, 64), classes=1).tl_heat[0]
    np.testing.assert_array_equal(cut[:20, :20], whole[17:37, 18:38])


def test_overlapping_gaussians_take_the_maximum():
    boxes = [(4, 4, 60, 50), (12, 6, 70, 58), (8, 10, 90, 60)]
    together = encode(boxes, [0, 0, 0])
    apart = [encode([box], [0]) for box in boxes]
    for name in ("tl_heat", "br_heat"):
        alone = np.stack([getattr(targets, name) for targets in apart])
        assert (np.count_nonzero(alone, axis=0) > 1).any(), "the boxes must overlap for this to say anything"
        np.testing.assert_array_equal(getattr(together, name), alone.max(axis=0))


def test_order_of_the_objects_does_not_matter_to_the_heat():
    boxes, labels = [(4, 4, 60, 50), (12, 6, 70, 58), (8, 10, 90, 60)], [0, 1, 0]
    one, other = encode(boxes, labels), encode(boxes[::-1], labels[::-1])
    np.testing.assert_array_equal(one.tl_heat, other.tl_heat)
    np.testing.assert_array_equal(one.br_heat, other.br_heat)


# The radius, against every move of both corners.


def iou_after(width, height, move):
    """Return the IoU of a box with itself after its corners moved by (x1, y1, x2, y2)."""
    x1, y1, x2, y2 = move[0], move[1], width + move[2], height + move[3]
    if x2 <= x1 or y2 <= y1:
        return 0.0
    shared = max(0.0, min(width, x2) - max(0.0, x1)) * max(0.0, min(height, y2) - max(0.0, y1))
    return shared / (width * height + (x2 - x1) * (y2 - y1) - shared)


def worst_iou(width, height, radius):
    """Return the least IoU when each of the four coordinates moves by the radius, one way or the other."""
    return min(iou_after(width, height, move) for move in itertools.product((-radius, radius), repeat=4))


sides = st.floats(0.5, 200)


@settings(max_examples=300, deadline=None)
@given(width=sides, height=sides)
def test_corners_within_the_radius_keep_the_iou(width, height):
    assert worst_iou(width, height, corner_radius(width, height)) >= 0.3 - 1e-9  # rounding of the roots


@settings(max_examples=300, deadline=None)
@given(width=sides, height=sides)
def test_corners_one_cell_beyond_the_radius_can_lose_the_iou(width, height):
    assert worst_iou(width, height, corner_radius(width, height) + 1) < 0.3 + 1e-9


@settings(max_examples=30, deadline=None)
@given(width=st.floats(1, 20), height=st.floats(1, 20))
def test_no_move_within_the_radius_is_worse_than_the_extremes(width, height):
    radius = corner_radius(width, height)
    assume(radius <= 3)  # 7 ** 4 moves
    moves = itertools.product(range(-radius, radius + 1), repeat=4)
    assert min(iou_after(width, height, move) for move in moves) >= 0.3 - 1e-9


@pytest.mark.parametrize("width", range(1, 17))
def test_every_move_of_both_corners_of_a_small_box_within_the_radius_keeps_the_iou(width):
    for height in range(1, 17):
        radius = corner_radius(width, height)
        steps = np.arange(-radius, radius + 1)
        x1, y1, x2, y2 = np.meshgrid(steps, steps, steps + width, steps + height)
        sides = np.maximum(x2 - x1, 0), np.maximum(y2 - y1, 0)
        shared = np.minimum(x2, width) - np.maximum(x1, 0), np.minimum(y2, height) - np.maximum(y1, 0)
        overlap = np.maximum(shared[0], 0) * np.maximum(shared[1], 0)
        iou = overlap / (width * height + sides[0] * sides[1] - overlap)
        # Whole numbers: only the division rounds.
        assert iou.min() >= 0.3 - 1e-12, (width, height, radius)


@settings(max_examples=100, deadline=None)
@given(width=sides, height=sides, minimum=st.floats(0.05, 0.95))
def test_radius_holds_for_other_overlaps(width, height, minimum):
    radius = corner_radius(width, height, minimum)
    assert worst_iou(width, height, radius) >= minimum - 1e-9
    assert worst_iou(width, height, radius + 1) < minimum + 1e-9


@pytest.mark.parametrize("size", [(0, 0), (0, 50), (50, 0), (1, 1)], ids=str)
def test_boxes_without_room_have_no_radius(size):
    assert corner_radius(*size) == 0
