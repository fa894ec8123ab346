"""Which corners pair, and in which order; what becomes of the inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases.decode import ALL, Corner, assert_same, loop_pairs, placed, random_maps

from cornernet_runtime.bundle.spec import DecodeParameters
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

# Pairs.


def test_corners_of_different_classes_never_pair():
    maps = placed((2, 4, 4), [Corner(0, 0, 0, 3.0)], [Corner(1, 3, 3, 3.0)])
    assert_same(decode(maps, DecodeParameters()), [], DecodeParameters())


@pytest.mark.parametrize(("distance", "base"), [(0.5, 1.0), (0.5, -2.0), (0.25, 60.0), (0.0, 0.7)])
def test_embeddings_exactly_at_the_distance_pair_and_the_next_float_does_not(distance, base):
    at = np.float32(base) + np.float32(distance)
    beyond = np.nextafter(at, np.float32(math.inf))
    parameters = DecodeParameters(embedding_distance=distance)
    for low, high in [(base, at), (at, base)]:
        assert len(decode(placed((1, 2, 2), [Corner(0, 0, 0, 0.0, low)], [Corner(0, 1, 1, 0.0, high)]), parameters))
    for low, high in [(base, beyond), (beyond, base)]:
        maps = placed((1, 2, 2), [Corner(0, 0, 0, 0.0, low)], [Corner(0, 1, 1, 0.0, high)])
        assert len(decode(maps, parameters)) == 0


def test_the_embedding_distance_is_compared_in_float32():
    # float32(0.3) is above 0.3: in float64 the two embeddings would be too far apart.
    maps = placed((1, 2, 2), [Corner(0, 0, 0)], [Corner(0, 1, 1, 0.0, 0.3)])
    assert len(decode(maps, DecodeParameters(embedding_distance=0.3))) == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_a_box_turned_inside_out_by_one_float_is_rejected(axis):
    maps = placed((1, 3, 3), [Corner(0, 1, 1, 0.0, 0.0, (0.5, 0.5))], [Corner(0, 1, 1, 0.0, 0.0, (0.5, 0.5))])
    assert decode(maps, DecodeParameters()).boxes.tolist() == [[1.5, 1.5, 1.5, 1.5]]
    # One spacing of the sum, 1.5, not of the offset, 0.5: less would round away.
    maps.br_offset[axis, 1, 1] = np.nextafter(np.float32(1.5), np.float32(0.0)) - np.float32(1.0)
    assert len(decode(maps, DecodeParameters())) == 0


@pytest.mark.parametrize(
    ("offset", "kept_when_rejecting"),
    [((0.0, 0.0), 0), ((0.5, 0.0), 0), ((0.0, 0.5), 0), ((0.5, 0.5), 1)],
)
def test_boxes_of_zero_width_or_height_are_kept_unless_rejected(offset, kept_when_rejecting):
    maps = placed((1, 4, 4), [Corner(0, 2, 1)], [Corner(0, 2, 1, 0.0, 0.0, offset)])
    expected = [[1.0, 2.0, 1.0 + offset[0], 2.0 + offset[1]]]
    assert decode(maps, DecodeParameters()).boxes.tolist() == expected
    rejecting = DecodeParameters(reject_empty=True)
    assert decode(maps, rejecting).boxes.tolist() == expected[:kept_when_rejecting]


def test_a_small_limit_keeps_the_first_of_all_candidates():
    maps = random_maps((3, 12, 11), seed=5)
    everything = decode(maps, ALL)
    assert len(everything) > 50
    for limit in (1, 7, 50, len(everything)):
        found = decode(maps, DecodeParameters(top_k=1000, candidates=limit))
        for name in ("boxes", "scores", "tl_scores", "br_scores", "labels"):
            np.testing.assert_array_equal(getattr(found, name), getattr(everything, name)[:limit])


def test_pairs_of_equal_score_are_ordered_by_the_rank_of_their_top_left_corner():
    # (high, low) and (low, high) have one score: the pair of the better top-left corner has the lower index.
    top_left = [Corner(0, 0, 0, -1.0), Corner(0, 0, 2, 1.0)]
    bottom_right = [Corner(0, 3, 3, 1.0), Corner(0, 3, 5, -1.0)]
    found = decode(placed((1, 4, 6), top_left, bottom_right), DecodeParameters())
    expected = [[2.0, 0.0, 3.0, 3.0], [2.0, 0.0, 5.0, 3.0], [0.0, 0.0, 3.0, 3.0], [0.0, 0.0, 5.0, 3.0]]
    assert found.boxes.tolist() == expected


# Inputs.


def test_inputs_are_not_modified():
    maps = random_maps((3, 9, 8), seed=3)
    maps.tl_heat[0, 0] = np.nan
    before = {name: getattr(maps, name).copy() for name in OUTPUT_NAMES}
    decode(maps, DecodeParameters())
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(maps, name), array)


def test_read_only_inputs_are_accepted_and_results_are_no_views_of_them():
    maps = random_maps((3, 9, 8), seed=3)
    expected = decode(maps, DecodeParameters())
    for name in OUTPUT_NAMES:
        getattr(maps, name).setflags(write=False)
    found = decode(maps, DecodeParameters())
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    assert not any(np.shares_memory(found.boxes, getattr(maps, name)) for name in OUTPUT_NAMES)


@pytest.mark.parametrize(
    "strided",
    [
        lambda array: np.ascontiguousarray(array.transpose(1, 2, 0)).transpose(2, 0, 1),
        np.asfortranarray,
        lambda array: np.repeat(np.repeat(array, 2, axis=2), 3, axis=1)[:, ::3, ::2],
        lambda array: array[:, ::-1, ::-1].copy()[:, ::-1, ::-1],
        lambda array: np.stack([array * 0, array, array + 1])[1],
    ],
    ids=["channels-last", "fortran", "every-second", "reversed", "of-a-batch"],
)
def test_memory_layout_does_not_matter(strided):
    maps = random_maps((3, 9, 8), seed=11)
    parameters = DecodeParameters(top_k=30)
    views = CornerMaps(*(strided(getattr(maps, name)) for name in OUTPUT_NAMES))
    assert_same(decode(views, parameters), loop_pairs(maps, parameters), parameters)
