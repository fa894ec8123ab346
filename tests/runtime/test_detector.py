"""The detector against PyTorch, and against networks whose maps are made from known boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases.detector import (
    SIZES,
    SPEC,
    PlantedBackend,
    assert_equal,
    assert_same_but_near_ties,
    detect_planted,
    grey,
    noise,
)
from cases.small import SMALL_SPEC

from cornernet_export.torch_backend.cpu import open_checkpoint
from cornernet_runtime import Detector
from cornernet_runtime.bundle.manifest import ONNX_NAME
from cornernet_runtime.errors import FrameError
from cornernet_runtime.processing.geometry import fit
from cornernet_runtime.processing.maps import OUTPUT_NAMES

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
        assert len(reference(frame)) > 50
        assert_same_but_near_ties(reference, frame, exported(frame), exported.corner_maps(frame)[0])


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
    # Scores pass through a logit and a sigmoid. Rounding moves a logit by 1e-6 of the largest, 12, and a score by a
    # quarter of that at most.
    assert found.scores == pytest.approx(np.array([score for _, _, score in planted]), abs=4e-6)
