"""True maps, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest
from cases.oracle import CELL, CELLS, SPEC, ideal, ignorance

from cornernet_bench.oracle.maps import true_maps, with_truth
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.geometry import fit, place
from cornernet_runtime.processing.maps import OUTPUT_NAMES

CLOSE = 1e-5  # cells: float32 of numbers up to 64


def truth_of(*objects, view=None, pixel=CELL):
    boxes = np.array([box for box, _ in objects], np.float64).reshape(-1, 4) * pixel
    labels = np.array([label for _, label in objects], np.int64)
    return true_maps(boxes, labels, view or place((255, 255), SPEC)[0], classes=2, stride=4)


def told(plane):
    return np.argwhere(~np.isnan(plane)).tolist()


def test_an_offset_points_to_the_corner_from_its_cell_and_as_near_as_it_can_from_beside_it():
    maps = truth_of(([10.25, 20.75, 12.25, 22.75], 0)).maps  # two cells wide: reach is one cell
    x, y = maps.tl_offset
    assert told(x) == told(y) == [[row, column] for row in (19, 20, 21) for column in (9, 10, 11)]
    np.testing.assert_allclose(x[19:22, 9:12], [[1, 0.25, 0]] * 3, atol=CLOSE)
    np.testing.assert_allclose(y[19:22, 9:12], np.transpose([[1, 0.75, 0]] * 3), atol=CLOSE)


def test_an_embedding_is_told_around_both_corners_and_nowhere_else():
    maps = truth_of(([10.25, 20.75, 12.25, 22.75], 0)).maps
    assert told(maps.tl_embed[0]) == [[row, column] for row in (19, 20, 21) for column in (9, 10, 11)]
    assert told(maps.br_embed[0]) == [[row, column] for row in (21, 22, 23) for column in (11, 12, 13)]
    assert np.nanmin(maps.tl_embed) == np.nanmax(maps.tl_embed) == np.nanmin(maps.br_embed)


def test_large_objects_reach_as_far_as_the_radius_of_their_heat():
    maps = truth_of(([10.5, 10.5, 50.5, 50.5], 0)).maps
    warm = np.flatnonzero(maps.tl_heat[0, 10] > maps.tl_heat.min())
    assert len(warm) > 5
    assert np.flatnonzero(~np.isnan(maps.tl_embed[0, 10])).tolist() == warm.tolist()


def test_between_two_corners_the_nearer_counts_and_of_two_as_near_that_of_the_smaller():
    large, small = ([10.5, 10.5, 40.5, 40.5], 0), ([14.5, 10.5, 24.5, 20.5], 1)
    for objects in ((large, small), (small, large)):
        embed = truth_of(*objects).maps.tl_embed[0, 10]
        assert embed[10] == embed[11]
        assert embed[13] == embed[14]
        assert embed[12] == embed[14] != embed[10]


def test_objects_embed_apart_by_more_than_decode_accepts_and_together_where_they_share_a_cell():
    apart = truth_of(([5.5, 5.5, 9.5, 9.5], 0), ([30.5, 30.5, 40.5, 40.5], 0))
    assert apart.shared == 0
    assert abs(apart.maps.tl_embed[0, 5, 5] - apart.maps.tl_embed[0, 30, 30]) > SPEC.decode.embedding_distance
    together = truth_of(([5.25, 5.25, 9.5, 9.5], 0), ([5.75, 5.75, 40.5, 40.5], 1), ([30.5, 30.5, 35.5, 35.5], 0))
    assert together.shared == 2
    assert together.maps.br_embed[0, 9, 9] == together.maps.br_embed[0, 40, 40] == together.maps.tl_embed[0, 5, 5]
    assert together.maps.tl_offset[0, 5, 5] == pytest.approx(0.25, abs=CLOSE)  # of the smaller


def test_all_true_maps_decode_to_the_boxes_and_to_nothing_else():
    objects = [([5.25, 6.5, 30.75, 20.5], 0), ([8.5, 10.5, 40.25, 50.5], 0), ([20.5, 20.5, 22.5, 23.75], 1)]
    found = decode(with_truth(ignorance(), truth_of(*objects).maps, ("heat", "embed", "offset")), SPEC.decode)
    order = np.argsort(found.boxes[:, 0])
    np.testing.assert_allclose(found.boxes[order], sorted(box for box, _ in objects), atol=CLOSE)
    assert found.labels[order].tolist() == [0, 0, 1]


def test_what_is_not_exchanged_stays_and_offsets_stay_where_there_is_no_true_one():
    predicted, truth = ideal([([40.5, 40.5, 44.5, 44.5], 1)]), truth_of(([10.25, 20.75, 12.25, 22.75], 0)).maps
    predicted.tl_offset[:] = 0.125
    changed = with_truth(predicted, truth, ("offset",))
    for name in OUTPUT_NAMES[:4]:
        np.testing.assert_array_equal(getattr(changed, name), getattr(predicted, name))
    expected = np.where(np.isnan(truth.tl_offset), np.float32(0.125), truth.tl_offset)
    np.testing.assert_array_equal(changed.tl_offset, expected)
    assert changed.tl_offset.dtype == np.float32
    np.testing.assert_array_equal(with_truth(predicted, truth, ("heat",)).tl_heat, truth.tl_heat)
    np.testing.assert_array_equal(with_truth(predicted, truth, ("embed",)).br_embed, truth.br_embed)


def test_boxes_are_cut_at_the_frame_and_left_out_where_nothing_is_left():
    view = fit((100, 200), (255, 255))
    beyond = truth_of(([150, 50, 260, 130], 0), ([210, 10, 220, 20], 0), ([5, 5, 5, 9], 1), view=view, pixel=1)
    assert len(beyond.targets.labels) == 1
    y, x = np.divmod(beyond.targets.br_cells, CELLS)
    # The far corner of the frame: the right edge of the input, and down at 64 + 127 of its 255 pixels.
    assert x + beyond.targets.br_offsets[0, 0] == pytest.approx(CELLS, abs=1e-3)
    assert y + beyond.targets.br_offsets[0, 1] == pytest.approx((view.top + view.size[0]) / CELL, abs=1e-3)


def test_a_picture_without_objects_has_maps_of_ground():
    truth = truth_of()
    assert truth.maps.tl_heat.shape == (2, CELLS, CELLS)
    assert (truth.maps.tl_heat == truth.maps.tl_heat.min()).all()
    assert np.isnan(truth.maps.tl_embed).all()
    assert truth.shared == 0
