"""Mirror images and scales: what the views of a frame find, and how they are merged."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cases.detector import (
    FIVE_SCALES,
    NATIVE,
    SCENE,
    SEVERAL,
    SPEC,
    RandomBackend,
    SeeingBackend,
    assert_scene,
    noise,
    reach_of,
    scene,
)

from cornernet_runtime import Detector
from cornernet_runtime.errors import SizeError
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.geometry import fit, place
from cornernet_runtime.processing.nms import soft_nms
from cornernet_runtime.processing.preprocess import Preprocessor


@pytest.mark.parametrize(
    ("spec", "frame_size"),
    [(NATIVE, (210, 201)), (NATIVE, (255, 255)), (NATIVE, (210, 256)), (SPEC, (210, 201)), (SEVERAL, (230, 201))],
    ids=["odd", "just fits", "even", "fitted", "several sizes"],
)
def test_flip_finds_each_object_once_and_in_its_place(spec, frame_size):
    found = Detector(SeeingBackend(spec), spec, flip=True)(scene(*frame_size, SCENE))
    scale = fit(frame_size, (255, 191)).scale[0] if spec is SEVERAL else min(1, fit(frame_size, (191, 255)).scale[0])
    # The second sight of an object has an overlap of nearly 1, which leaves exp(-1 / 0.5) = 0.14 of its score.
    assert_scene(found.above(0.25), SCENE, reach_of(scale))


def test_flip_shows_the_network_each_input_and_its_reverse():
    backend = SeeingBackend(NATIVE)
    Detector(backend, NATIVE, flip=True)(scene(210, 201, SCENE))
    ((plain, mirrored),) = backend.runs
    assert plain.shape == (3, 223, 207)
    assert np.array_equal(mirrored, plain[:, :, ::-1])
    assert not np.array_equal(mirrored, plain)


def test_flip_finds_what_only_the_mirror_image_shows():
    class LeftHalfBackend(SeeingBackend):
        def see(self, image):
            left = image.copy()
            left[:, :, image.shape[2] // 2 :] = image.min()
            return super().see(left)

    frame = scene(100, 201, [(10, 20, 60, 80), (120, 30, 190, 95)])
    assert Detector(LeftHalfBackend(NATIVE), NATIVE)(frame).labels.tolist() == [0]
    both = Detector(LeftHalfBackend(NATIVE), NATIVE, flip=True)(frame)
    assert_scene(both, [(10, 20, 60, 80), (120, 30, 190, 95)], reach_of(1))


@pytest.mark.parametrize("frame_size", [(40, 61), (47, 77)])
def test_with_flip_a_mirrored_frame_has_mirrored_detections(frame_size):
    # Odd widths have the same border left and right, so both frames have the same two views, in the other order.
    frame, width = noise(*frame_size), frame_size[1]
    detector = Detector(RandomBackend(NATIVE), NATIVE, flip=True)
    found, reverse = detector(frame), detector(frame[:, ::-1])
    assert len(found) == 100
    assert np.array_equal(reverse.labels, found.labels)
    assert reverse.scores == pytest.approx(found.scores, rel=1e-5)  # decays of overlaps in float32
    x1, y1, x2, y2 = found.boxes.T
    assert np.abs(reverse.boxes - np.stack([width - x2, y1, width - x1, y2], 1)).max() < 1e-4  # float32 below 128


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("spec", "frame_size", "smallest"),
    [(NATIVE, (210, 201), 0.5), (SPEC, (210, 201), 0.9 / 3), (SEVERAL, (230, 201), 0.9 / 3)],
    ids=["native", "fitted", "several sizes"],
)
def test_scales_merge_to_one_box_where_the_object_is(spec, frame_size, smallest, flip):
    detector = Detector(SeeingBackend(spec), spec, scales=FIVE_SCALES, flip=flip)
    found = detector(scene(*frame_size, SCENE))
    # Boxes of the smallest view are off by this at most, and a merged one lies between those that it is made of. They
    # overlap by 0.9 and more, which leaves exp(-0.81 / 0.5) = 0.2 of a second sight.
    assert_scene(found.above(0.25), SCENE, reach_of(smallest))


def test_several_scales_are_several_inputs_of_the_network():
    backend = SeeingBackend(NATIVE, max_batch=8)
    Detector(backend, NATIVE, scales=(0.5, 1.0, 1.5), flip=True)(scene(210, 201, SCENE))
    assert [run.shape for run in backend.runs] == [(2, 3, 111, 111), (2, 3, 223, 207), (2, 3, 319, 303)]


def test_scales_find_what_only_one_of_them_shows():
    class NearSightedBackend(SeeingBackend):
        def see(self, image):
            return super().see(image if image.shape[1] > 250 else np.full_like(image, image.min()))

    frame = scene(210, 201, SCENE)
    assert len(Detector(NearSightedBackend(NATIVE), NATIVE)(frame)) == 0
    found = Detector(NearSightedBackend(NATIVE), NATIVE, scales=(0.5, 1.0, 1.5))(frame)
    assert_scene(found, SCENE, reach_of(1.5))


# The union of several views.


def union_of(backend, spec, frame, scales, *, flip):
    """Run each view alone, and bring its candidates back by the formulas of the original; native geometry."""
    columns = [[], [], [], []]
    for scale in scales:
        height, width = (max(1, int(side * scale)) for side in frame.shape[:2])
        rows, across = height | 15, width | 15
        top, left = rows // 2 - height // 2, across // 2 - width // 2
        plain = np.empty((1, 3, rows, across), np.float32)
        Preprocessor(spec.normalisation)(frame, place(frame.shape[:2], spec, [scale])[0], plain[0])
        for mirrored in (False, True) if flip else (False,):
            found = decode(backend(plain[..., ::-1].copy() if mirrored else plain)[0], spec.decode)
            x1, y1, x2, y2 = found.boxes.astype(float).T
            cells_across, cells_down = (across + 1) // 4, (rows + 1) // 4
            if mirrored:
                x1, x2 = cells_across - x2, cells_across - x1
            x1, x2 = (x * across / cells_across - left for x in (x1, x2))
            y1, y2 = (y * rows / cells_down - top for y in (y1, y2))
            keep = (x2 >= 0) & (y2 >= 0) & (x1 <= width) & (y1 <= height)
            low, high = np.array([0, 0, 0, 0]), np.array([width, height, width, height])
            boxes = np.minimum(np.stack([x1, y1, x2, y2], 1).clip(low, high) / scale, [*frame.shape[1::-1]] * 2)
            corner_scores = np.stack([found.tl_scores, found.br_scores], 1)
            for column, values in zip(columns, (boxes, found.scores, corner_scores, found.labels), strict=True):
                column.append(values[keep])
    boxes, scores, corner_scores, labels = map(np.concatenate, columns)
    return boxes.astype(np.float32), scores, corner_scores, labels


def merged_by_loops(boxes, scores, corner_scores, labels, parameters):
    """Gaussian soft-NMS with merging as the facts say, in float64: rows of box, score and label, best first."""

    def weight(one, other):
        extent = parameters.pixel_extent
        width = max(0, min(one[2], other[2]) - max(one[0], other[0]) + extent)
        height = max(0, min(one[3], other[3]) - max(one[1], other[1]) + extent)
        areas = sum((box[2] - box[0] + extent) * (box[3] - box[1] + extent) for box in (one, other))
        return math.exp(-((width * height / (areas - width * height)) ** 2) / parameters.sigma)

    boxes, corners = boxes.astype(float).tolist(), corner_scores.astype(float).tolist()
    left = {index: float(score) for index, score in enumerate(scores) if score >= parameters.score_floor}
    rows = []
    while left and len(rows) < parameters.max_detections:
        best = max(left, key=lambda index: (left[index], -index))
        score = left.pop(best)
        sums, totals = [value * corners[best][side // 2] for side, value in enumerate(boxes[best])], list(corners[best])
        for other in [index for index in left if labels[index] == labels[best]]:
            decay = weight(boxes[best], boxes[other])
            for corner in (0, 1):
                share = (1 - decay) ** parameters.merge_exponent * corners[other][corner]
                totals[corner] += share
                for side in (2 * corner, 2 * corner + 1):
                    sums[side] += share * boxes[other][side]
            left[other] *= decay
            if left[other] < parameters.score_floor:
                del left[other]
        rows.append(([value / totals[side // 2] for side, value in enumerate(sums)], score, labels[best]))
    return rows


@pytest.mark.parametrize("frame_size", [(60, 90), (63, 95), (47, 30), (5, 40)])
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((1.0,), True), ((0.75,), True), ((1.5,), False)])
def test_the_views_of_one_scale_are_suppressed_together(frame_size, scales, flip):
    backend, frame = RandomBackend(NATIVE), noise(*frame_size)
    boxes, scores, _, labels = union_of(backend, NATIVE, frame, scales, flip=flip)
    kept, final = soft_nms(boxes, scores, labels, NATIVE.nms)
    found = Detector(backend, NATIVE, scales=scales, flip=flip)(frame)
    assert found.labels.tolist() == labels[kept].tolist()
    # The same formulas in float64, rounded once to float32 of numbers below 128; decays in float32.
    assert np.abs(found.boxes - boxes[kept]).max() < 1e-4
    assert found.scores == pytest.approx(final, rel=1e-4)


@pytest.mark.parametrize("frame_size", [(60, 90), (63, 95), (5, 40)])
@pytest.mark.parametrize(("scales", "flip"), [((0.5, 1.0, 1.5), False), ((0.75, 1.0), True)])
def test_the_views_of_several_scales_are_merged_as_the_loops_merge_them(frame_size, scales, flip):
    spec = replace(NATIVE, nms=replace(NATIVE.nms, max_detections=20))
    backend, frame = RandomBackend(spec), noise(*frame_size)
    expected = merged_by_loops(*union_of(backend, spec, frame, scales, flip=flip), spec.nms)
    found = Detector(backend, spec, scales=scales, flip=flip)(frame)
    assert found.labels.tolist() == [label for _, _, label in expected]
    # Sums of up to a thousand boxes, and decays, in float32.
    assert np.abs(found.boxes - np.array([box for box, _, _ in expected])).max() < 0.01
    assert found.scores == pytest.approx([score for _, score, _ in expected], rel=1e-3)


def test_second_sights_are_merged_with_what_remains_of_their_class():
    # What was picked before no longer counts, however much it overlaps.
    backend, frame, scales = SeeingBackend(NATIVE), scene(210, 201, SCENE), (0.5, 0.75, 1.0, 1.25)
    expected = merged_by_loops(*union_of(backend, NATIVE, frame, scales, flip=False), NATIVE.nms)
    found = Detector(backend, NATIVE, scales=scales)(frame)
    assert len(expected) > 2 * len(SCENE)
    assert found.labels.tolist() == [label for _, _, label in expected]
    assert np.abs(found.boxes - np.array([box for box, _, _ in expected])).max() < 0.01  # as above
    assert found.scores == pytest.approx([score for _, score, _ in expected], rel=1e-3)


def test_at_most_as_many_as_the_model_keeps_come_of_all_views_together():
    spec = replace(NATIVE, nms=replace(NATIVE.nms, max_detections=7))
    found = Detector(RandomBackend(spec), spec, flip=True, scales=FIVE_SCALES)(noise(60, 90))
    assert len(found) == 7
    assert (np.diff(found.scores) <= 0).all()


# Scales and sizes that cannot be.


def test_the_scales_used_are_those_the_model_can_take():
    assert Detector(RandomBackend(NATIVE), NATIVE, scales=(0.5, 1.0, 1.5)).scales == (0.5, 1.0, 1.5)
    assert Detector(RandomBackend(SPEC), SPEC, scales=(0.5, 2.0)).scales == (0.25, 1.0)


@pytest.mark.parametrize("scales", [(), (0,), (-1.0,), (1.0, 1.0), (math.nan,), (math.inf,)])
def test_scales_that_are_no_distinct_positive_numbers_are_refused(scales):
    with pytest.raises(SizeError, match=r"^scales: expected distinct positive numbers, got "):
        Detector(RandomBackend(NATIVE), NATIVE, scales=scales)
