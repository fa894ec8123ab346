"""The detector against PyTorch, and against networks whose maps are made from known boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import SMALL_SPEC
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_export.torch_backend import open_checkpoint
from cornernet_runtime import Detector
from cornernet_runtime.bundle import ONNX_NAME
from cornernet_runtime.errors import FrameError
from cornernet_runtime.geometry import cells_to_input, fit
from cornernet_runtime.maps import OUTPUT_NAMES, CornerMaps

# A frame of 4000 by 3000 is shrunk 16 times, so that objects of a tenth of it still are several cells large.
SPEC = replace(SMALL_SPEC, input_size=(191, 255), largest_size=(191, 255))
SIZES = [(191, 255), (382, 510), (480, 640), (640, 480), (1080, 1920), (3000, 4000), (100, 37), (20, 300), (7, 5)]


class PlantedBackend:
    """A network that sees known objects: boxes [N, 4] in input pixels, and their labels, by the frame's grey level."""

    name = "planted"

    def __init__(self, objects, spec=SPEC, max_batch=4):
        self.objects, self.spec, self.max_batch = objects, spec, max_batch
        self.batches, self.closed = [], False

    def __call__(self, images):
        assert images.dtype == np.float32
        assert images.shape[1:] == (3, *self.spec.input_size)
        mean, std = self.spec.normalisation.mean[0], self.spec.normalisation.std[0]
        levels = [round(float((image[0].max() * std + mean) * 255)) for image in images]
        self.batches.append(levels)
        maps = [self.maps(*self.objects[level]) for level in levels]
        return CornerMaps(*(np.stack([getattr(one, name) for one in maps]) for name in OUTPUT_NAMES))

    def maps(self, boxes, labels):
        classes = len(self.spec.class_names)
        sizes = {"map_size": self.spec.map_size, "input_size": self.spec.input_size}
        return ideal_maps(encode_boxes(np.asarray(boxes, float), np.asarray(labels), classes=classes, **sizes))

    def close(self):
        self.closed = True


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def grey(height, width, level=0):
    return np.full((height, width, 3), level, np.uint8)


def detect_planted(boxes, labels, frame_size):
    """Return what a detector finds in a frame where the network sees boxes of the input."""
    return Detector(PlantedBackend({0: (boxes, labels)}), SPEC)(grey(*frame_size))


def assert_equal(found, expected):
    assert np.array_equal(found.boxes, expected.boxes)
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.labels, expected.labels)


def missed(expected, found):
    """Count the expected detections without a counterpart of their own among those found."""
    free = np.ones(len(found), bool)
    count = 0
    for box, score, label in zip(expected.boxes, expected.scores, expected.labels, strict=True):
        alike = free & (found.labels == label) & (np.abs(found.scores - score) < 1e-4)
        alike &= (np.abs(found.boxes - box) < 0.01 * max(1, np.abs(box).max() / 100)).all(axis=1)
        if alike.any():
            free[np.flatnonzero(alike)[0]] = False
        else:
            count += 1
    return count


# Planted objects: everything around the network, end to end.


@pytest.mark.parametrize("frame_size", SIZES)
def test_planted_boxes_come_back_in_pixels_of_the_frame(frame_size):
    height, width = frame_size
    parts = np.array([[0.1, 0.1, 0.45, 0.5], [0.55, 0.2, 0.9, 0.8], [0, 0, 1, 1], [0.05, 0.6, 0.4, 0.95]])
    boxes = parts * [width, height, width, height]
    labels = np.array([0, 1, 2, 1])
    found = detect_planted(fit(frame_size, SPEC.input_size).to_input(boxes), labels, frame_size)
    assert len(found) == 4
    # Offsets are float32 of cells up to 64 and a cell is 64 pixels of the largest frame, so 0.001 is lost at most.
    for box, label in zip(boxes, labels, strict=True):
        errors = np.abs(found.boxes[found.labels == label] - box).max(axis=1)
        assert errors.min() < 0.05
    assert (found.scores[:3] > 0.9999).all(), "a peak of an ideal map is 1 to five digits"


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


def test_the_score_is_the_mean_of_both_corners_scores():
    backend = PlantedBackend({0: ([[40, 40, 120, 130]], [1])})
    maps = backend.maps(*backend.objects[0])
    for heat, score in ((maps.tl_heat, 0.9), (maps.br_heat, 0.3)):
        heat[1] = np.where(heat[1] == heat[1].max(), np.log(score / (1 - score)), -12)
    found = Detector(backend, SPEC).finish(maps, fit((191, 255), SPEC.input_size))
    assert found.scores == pytest.approx([0.6], abs=1e-6)  # a logit and a sigmoid in float32


def test_what_lies_wholly_in_the_border_is_dropped():
    # The frame is twice as wide as high: rows 0 to 31 and 159 to 190 of the input are border.
    boxes = [[20, 4, 90, 28], [100, 162, 200, 188], [40, 60, 120, 140]]
    found = detect_planted(boxes, [0, 1, 2], (128, 255))
    placement = fit((128, 255), SPEC.input_size)
    assert (placement.size, placement.top, placement.left) == ((128, 255), 31, 0)
    assert found.labels.tolist() == [2]
    assert found.boxes == pytest.approx(np.array([[40, 29, 120, 109]]), abs=0.05)


def test_what_reaches_into_the_border_is_clipped_to_the_frame():
    found = detect_planted([[20, 4, 90, 100], [100, 80, 254, 190]], [0, 1], (128, 255))
    order = np.argsort(found.labels)
    expected = np.array([[20, 0, 90, 69], [100, 49, 254, 128]])
    assert found.boxes[order] == pytest.approx(expected, abs=0.05)


def test_boxes_are_within_the_frame_for_noise(bundle_path):
    with Detector.open(bundle_path) as detector:
        for height, width in [(480, 640), (30, 500), (1, 1), (500, 3)]:
            boxes = detector(noise(height, width)).boxes
            assert len(boxes) > 0
            assert boxes.min() >= 0
            assert boxes[:, [0, 2]].max() <= width
            assert boxes[:, [1, 3]].max() <= height
            assert (boxes[:, :2] <= boxes[:, 2:]).all()


def test_a_network_that_sees_nothing_gives_no_detections():
    found = detect_planted(np.empty((0, 4)), np.empty(0, int), (48, 64))
    # Ideal maps are at -12 everywhere else: 6e-6, far below the floor of 0.001.
    assert len(found) == 0
    assert (found.boxes.shape, found.boxes.dtype) == ((0, 4), np.float32)
    assert (found.scores.shape, found.scores.dtype) == ((0,), np.float32)
    assert (found.labels.shape, found.labels.dtype) == ((0,), np.int64)
    assert found.class_names == ("ant", "bee", "cat")


def test_detections_are_limited_and_descend(bundle_path):
    with Detector.open(bundle_path) as detector:
        few = replace(detector.spec, nms=replace(detector.spec.nms, max_detections=7))
        frame = noise(63, 95)
        everything, best = detector(frame), Detector(detector.backend, few)(frame)
    assert len(everything) == 100
    assert (np.diff(everything.scores) <= 0).all()
    assert len(best) == 7
    assert np.array_equal(best.scores, everything.scores[:7])


# The exported network against PyTorch.


@pytest.mark.parametrize("size", [(63, 95), (480, 640), (200, 90), (5, 7)])
def test_detections_of_the_bundle_are_those_of_pytorch(bundle_path, checkpoint_path, size):
    frame = noise(*size)
    with Detector.open(bundle_path) as exported, open_checkpoint(checkpoint_path) as reference:
        expected, found = reference(frame), exported(frame)
    assert len(expected) > 50
    # Random weights give scores that differ by less than rounding; such a pair may come in the other order, which
    # changes who lowers whose score, and what falls behind the cut at 100.
    assert missed(expected, found) <= 0.05 * len(expected)
    assert missed(found, expected) <= 0.05 * len(found)


def test_maps_of_the_bundle_are_those_of_pytorch(bundle_path, checkpoint_path):
    frame = noise(480, 640)
    with Detector.open(bundle_path) as exported, open_checkpoint(checkpoint_path) as reference:
        (expected, place), (found, same_place) = reference.corner_maps(frame), exported.corner_maps(frame)
        assert place == same_place
        for name in OUTPUT_NAMES:
            want, have = getattr(expected, name), getattr(found, name)
            assert have.shape == want.shape
            # The same sums in another order: 1e-4 of the largest value is what export asks for.
            assert np.abs(have - want).max() <= 1e-4 * np.abs(want).max(), name


def test_the_onnx_file_alone_finds_what_the_bundle_finds(bundle_path, tmp_path):
    alone = tmp_path / "elsewhere.onnx"
    alone.write_bytes((bundle_path / ONNX_NAME).read_bytes())
    frame = noise(100, 150)
    with Detector.open(bundle_path) as bundle, Detector.open(str(alone)) as file:
        assert file.spec == bundle.spec == SMALL_SPEC
        assert file.class_names == ("ant", "bee", "cat")
        assert_equal(file(frame), bundle(frame))


# Batches and state.


def test_a_batch_is_cut_to_what_the_backend_takes_and_keeps_its_order():
    boxes = {level: ([[10 * level, 20, 10 * level + 60, 120]], [level % 3]) for level in range(1, 8)}
    backend = PlantedBackend(boxes, max_batch=3)
    sizes = SIZES[:7]
    frames = [grey(*size, level) for level, size in enumerate(sizes, start=1)]
    found = Detector(backend, SPEC).batch(frames)
    assert backend.batches == [[1, 2, 3], [4, 5, 6], [7]]
    for level, (size, detections) in enumerate(zip(sizes, found, strict=True), start=1):
        (height, width), placement = size, fit(size, SPEC.input_size)
        expected = placement.to_frame(np.array(boxes[level][0], float)).clip(0, [width, height, width, height])
        assert detections.labels.tolist() == [level % 3]
        assert detections.boxes == pytest.approx(expected, abs=0.05)  # as for planted boxes


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_finds_what_single_frames_give(bundle_path, count):
    frames = [noise(*size, seed) for seed, size in enumerate([(63, 95), (200, 90), (5, 7), (480, 640), (63, 95)])]
    with Detector.open(bundle_path) as detector:
        alone = [detector(frame) for frame in frames[:count]]
        together = detector.batch(frames[:count])
    assert len(together) == count
    for one, other in zip(together, alone, strict=True):
        assert_equal(one, other)


def test_a_batch_of_pytorch_finds_what_single_frames_give(checkpoint_path):
    frames = [noise(*size, seed) for seed, size in enumerate([(63, 95), (200, 90), (480, 640)])]
    with open_checkpoint(checkpoint_path) as detector:
        for frame, found in zip(frames, detector.batch(frames), strict=True):
            expected = detector(frame)
            # Convolutions sum in another order for another batch size; ties as above.
            assert missed(expected, found) <= 0.05 * len(expected)


def test_an_empty_batch_gives_an_empty_list():
    backend = PlantedBackend({})
    assert Detector(backend, SPEC).batch([]) == []
    assert backend.batches == []


def test_results_are_the_same_each_time_whatever_came_between(bundle_path):
    frame = noise(90, 120)
    with Detector.open(bundle_path) as detector:
        first = detector(frame)
        copy = replace(first, boxes=first.boxes.copy(), scores=first.scores.copy(), labels=first.labels.copy())
        detector(noise(33, 200, 1))
        detector.batch([noise(10, 10), noise(63, 95)])
        again = detector(frame)
    assert_equal(again, copy)
    assert_equal(first, copy)  # later frames must not write into earlier results


def test_the_frame_is_not_changed(bundle_path):
    for size in ((90, 120), (63, 95)):
        frame = noise(*size)
        with Detector.open(bundle_path) as detector:
            detector(frame)
        assert np.array_equal(frame, noise(*size))


@pytest.mark.parametrize(
    "frame",
    [None, "a.png", [[0]], np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))],
    ids=["None", "path", "list", "grey", "four channels", "float"],
)
def test_what_is_no_frame_is_refused_before_the_network_runs(frame):
    backend = PlantedBackend({0: (np.empty((0, 4)), [])})
    detector = Detector(backend, SPEC)
    for call in (lambda: detector(frame), lambda: detector.batch([grey(4, 4), frame])):
        with pytest.raises(FrameError, match=r"a frame is .*uint8 \[H, W, 3\]"):
            call()
    assert backend.batches == []


def test_the_backend_is_closed_at_the_end_of_the_block():
    backend = PlantedBackend({})
    with pytest.raises(KeyError), Detector(backend, SPEC):
        raise KeyError
    assert backend.closed


def test_the_planted_model_finds_its_objects(planted_model, planted):
    with Detector.open(planted_model) as detector:
        found = detector(grey(126, 190))
    assert [name for _, _, name in found] == [name for name, _, _ in planted]
    assert found.boxes == pytest.approx(np.array([box for _, box, _ in planted]), abs=0.05)  # as for planted boxes
    # Scores pass through a logit and a sigmoid in float32.
    assert found.scores == pytest.approx(np.array([score for _, _, score in planted]), abs=1e-6)


def test_cells_are_input_side_over_map_side():
    # The bar of the planted tests rests on encode_boxes and cells_to_input being inverse; this is the number itself.
    assert cells_to_input(np.array([[1, 1, 64, 48]]), SPEC.input_size, SPEC.stride).tolist() == [
        [255 / 64, 191 / 48, 255, 191]
    ]
