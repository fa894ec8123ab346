"""The detector against PyTorch, and against networks whose maps are made from known boxes."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from cases.small import SMALL_SPEC, small_model
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_export.torch_backend import TorchBackend, open_checkpoint
from cornernet_runtime import Detector
from cornernet_runtime.bundle import ONNX_NAME
from cornernet_runtime.decode import decode
from cornernet_runtime.errors import FrameError, SizeError
from cornernet_runtime.geometry import cells_to_input, fit, place
from cornernet_runtime.maps import OUTPUT_NAMES, CornerMaps, output_channels
from cornernet_runtime.nms import soft_nms
from cornernet_runtime.preprocess import Preprocessor

# A frame of 4000 by 3000 is shrunk 16 times, so that objects of a tenth of it still are several cells large.
SPEC = replace(SMALL_SPEC, input_size=(191, 255), largest_size=(191, 255))
SIZES = [(191, 255), (382, 510), (480, 640), (640, 480), (1080, 1920), (3000, 4000), (100, 37), (20, 300), (7, 5)]


# Frames at their own resolution, up to 511 pixels; and one of several inputs.
NATIVE = replace(SMALL_SPEC, input_size=(255, 255), largest_size=(511, 511), dynamic=True, geometry="native")
SEVERAL = replace(SPEC, largest_size=(255, 255), other_sizes=((255, 191), (127, 127)))
FIVE_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5)


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
        return maps_of(boxes, labels, self.spec, self.spec.input_size)

    def close(self):
        self.closed = True


class SizedBackend:
    """A network of any size; what it sees in one image is for the kinds below. Keeps a copy of each run's images."""

    name = "sized"

    def __init__(self, spec, max_batch=4):
        self.spec, self.max_batch, self.runs = spec, max_batch, []

    def __call__(self, images):
        assert images.dtype == np.float32
        assert 1 <= len(images) <= self.max_batch
        assert images.shape[1] == 3
        self.spec.check_input_size(images.shape[2:])
        assert np.isfinite(images).all()
        self.runs.append(images.copy())
        maps = [self.see(image) for image in images]
        return CornerMaps(*(np.stack([getattr(one, name) for one in maps]) for name in OUTPUT_NAMES))

    def close(self):
        pass


class SeeingBackend(SizedBackend):
    """A network that sees one object of each class: what is bright in the channel of that number."""

    def see(self, image):
        boxes, labels = [], []
        for label, plane in enumerate(image):
            mean, std = self.spec.normalisation.mean[label], self.spec.normalisation.std[label]
            rows, columns = np.nonzero(plane * std + mean >= 0.5)
            if len(rows):
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
                labels.append(label)
        return maps_of(np.reshape(boxes, (-1, 4)), labels, self.spec, image.shape[1:])


class RandomBackend(SizedBackend):
    """A network that says the same of equal images, alone or in a batch, and something else of all others."""

    def see(self, image):
        random = np.random.default_rng(zlib.crc32(image.tobytes()))
        cells = [(side + 1) // self.spec.stride for side in image.shape[1:]]
        shapes = {name: (channels, *cells) for name, channels in output_channels(self.spec).items()}
        maps = {name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()}
        return CornerMaps(**maps)


def maps_of(boxes, labels, spec, input_size):
    """Ideal maps for boxes [N, 4] of the input."""
    height, width = input_size
    sizes = {"map_size": ((height + 1) // spec.stride, (width + 1) // spec.stride), "input_size": (height, width)}
    boxes, labels = np.asarray(boxes, float), np.asarray(labels, int)
    return ideal_maps(encode_boxes(boxes, labels, classes=len(spec.class_names), **sizes))


def scene(height, width, boxes):
    """A black frame with a bright rectangle (x1 y1 x2 y2) in each channel that has one."""
    frame = np.zeros((height, width, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        frame[y1:y2, x1:x2, channel] = 255
    return frame


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


# Mirror images and scales: networks that see what is in the frame.


# A rectangle in a view is off by half a pixel, for its samples are in or out, by another that native resizing cuts off,
# and by the rounding of planted boxes.
def reach_of(scale):
    return 1.5 / scale + 0.05


SCENE = [(12, 30, 150, 160), (60, 8, 170, 120), (90, 70, 197, 203)]  # of a frame of 210 rows and 201 columns


def assert_scene(found, boxes, within):
    """Each class once, where it is; ``found`` without what suppression has left of duplicates."""
    assert sorted(found.labels.tolist()) == list(range(len(boxes)))
    order = np.argsort(found.labels)
    assert np.abs(found.boxes[order] - np.array(boxes)).max() <= within
    assert found.scores.min() > 0.9999, "a peak of an ideal map is 1 to five digits"


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


# Batches of frames and views.

MIXED = [(60, 90), (30, 30), (60, 90), (200, 17), (1, 1), (600, 40), (31, 47), (60, 91), (30, 30)]


@pytest.mark.parametrize("max_batch", [1, 2, 4])
@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((1.0,), True), ((0.5, 1.0, 1.5), True)])
@pytest.mark.parametrize("spec", [NATIVE, SPEC, SEVERAL], ids=["native", "fitted", "several sizes"])
def test_frames_of_all_sizes_find_in_batches_what_they_find_alone(spec, scales, flip, max_batch):
    frames = [noise(*size, seed) for seed, size in enumerate(MIXED[:6])]
    alone = [Detector(RandomBackend(spec), spec, scales=scales, flip=flip)(frame) for frame in frames]
    together = Detector(RandomBackend(spec, max_batch), spec, scales=scales, flip=flip).batch(frames)
    assert len(together) == len(alone)
    for one, other in zip(together, alone, strict=True):
        assert_equal(one, other)
    assert min(len(one) for one in together[:4]) > 0, "only a frame of a pixel may show nothing"


@pytest.mark.parametrize("max_batch", [1, 2, 4])
def test_every_view_of_every_frame_is_run_exactly_once(max_batch):
    # That no run is larger than the backend takes is for SizedBackend to see.
    frames = [noise(*size, seed) for seed, size in enumerate(MIXED)]
    expected = Counter()
    for frame in frames:
        for view in place(frame.shape[:2], NATIVE, (0.5, 1.0), flip=True):
            image = np.empty((3, *view.input_size), np.float32)
            Preprocessor(NATIVE.normalisation)(frame, view, image)
            expected[image.tobytes()] += 1
    backend = RandomBackend(NATIVE, max_batch)
    Detector(backend, NATIVE, scales=(0.5, 1.0), flip=True).batch(frames)
    assert Counter(image.tobytes() for run in backend.runs for image in run) == expected


@pytest.mark.parametrize(("max_batch", "runs"), [(1, [1] * 10), (2, [2] * 5), (3, [3, 3, 3, 1]), (4, [4, 4, 2])])
def test_views_of_one_size_fill_the_runs(max_batch, runs):
    backend = RandomBackend(NATIVE, max_batch)
    Detector(backend, NATIVE, flip=True).batch([noise(60, 90, seed) for seed in range(5)])
    assert sorted((len(run) for run in backend.runs), reverse=True) == runs


def test_no_frames_are_no_runs_whatever_the_views():
    backend = RandomBackend(NATIVE)
    assert Detector(backend, NATIVE, flip=True, scales=FIVE_SCALES).batch([]) == []
    assert backend.runs == []


@pytest.mark.parametrize("place_of_bad", [0, 1, 4])
def test_a_bad_frame_among_good_ones_is_refused_before_any_run(place_of_bad):
    backend = RandomBackend(NATIVE, max_batch=1)
    frames = [noise(20, 30, seed) for seed in range(4)]
    frames.insert(place_of_bad, np.zeros((20, 30), np.uint8))
    with pytest.raises(FrameError, match=r"a frame is .*uint8 \[H, W, 3\]"):
        Detector(backend, NATIVE, flip=True).batch(frames)
    assert backend.runs == []


def test_results_with_views_are_the_same_whatever_came_between():
    detector = Detector(RandomBackend(NATIVE), NATIVE, flip=True, scales=(0.5, 1.0))
    first = detector(noise(60, 90))
    copy = replace(first, boxes=first.boxes.copy(), scores=first.scores.copy(), labels=first.labels.copy())
    detector.batch([noise(300, 200), noise(1, 1), noise(60, 90, 1)])
    assert_equal(detector(noise(60, 90)), copy)
    assert_equal(first, copy)


# A real network in PyTorch, at sizes that it was not made for.


def test_a_real_network_finds_in_mixed_batches_what_it_finds_alone():
    detector = Detector(TorchBackend(small_model()), NATIVE, flip=True)
    frames = [noise(*size, seed) for seed, size in enumerate([(60, 90), (40, 30), (60, 90)])]
    for frame, found in zip(frames, detector.batch(frames), strict=True):
        expected = detector(frame)
        assert len(expected) > 10
        # Convolutions sum in another order for another batch size; ties as above.
        assert missed(expected, found) <= 0.05 * len(expected)


# Maps of the largest view.


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


# Scales and sizes that cannot be.


def test_the_scales_used_are_those_the_model_can_take():
    assert Detector(RandomBackend(NATIVE), NATIVE, scales=(0.5, 1.0, 1.5)).scales == (0.5, 1.0, 1.5)
    assert Detector(RandomBackend(SPEC), SPEC, scales=(0.5, 2.0)).scales == (0.25, 1.0)


@pytest.mark.parametrize("scales", [(), (0,), (-1.0,), (1.0, 1.0), (math.nan,), (math.inf,)])
def test_scales_that_are_no_distinct_positive_numbers_are_refused(scales):
    with pytest.raises(SizeError, match=r"^scales: expected distinct positive numbers, got "):
        Detector(RandomBackend(NATIVE), NATIVE, scales=scales)


# What a broken network says.


class BrokenBackend(SeeingBackend):
    """Sees the scene, but says the same number everywhere in some outputs of mirrored or large images."""

    def __init__(self, spec, broken, **outputs):
        super().__init__(spec)
        self.broken, self.outputs = broken, outputs

    def see(self, image):
        maps = super().see(image)
        if self.broken(image):
            maps = replace(
                maps, **{name: np.full_like(getattr(maps, name), said) for name, said in self.outputs.items()}
            )
        return maps


@pytest.mark.parametrize("name", OUTPUT_NAMES)
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
def test_a_view_of_nothing_but_nan_leaves_the_others(name, scales):
    first = []

    def second_or_later(image):
        first.append(image.shape)
        return len(first) > 1

    backend = BrokenBackend(NATIVE, second_or_later, **{name: math.nan})
    found = Detector(backend, NATIVE, flip=True, scales=scales)(scene(210, 201, SCENE))
    assert_scene(found, SCENE, reach_of(1))


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
def test_views_of_nothing_but_nan_find_nothing(scales):
    backend = BrokenBackend(NATIVE, lambda _: True, **dict.fromkeys(OUTPUT_NAMES, math.nan))
    found = Detector(backend, NATIVE, flip=True, scales=scales)(scene(210, 201, SCENE))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
@pytest.mark.parametrize("dead", [-200.0, -np.inf])
def test_boxes_are_finite_where_one_kind_of_corner_has_no_heat_at_all(dead, scales):
    # The sigmoid of -200 is 0 in float32, the mean with the other corner is not: such pairs are candidates.
    backend = BrokenBackend(NATIVE, lambda _: True, tl_heat=dead, tl_embed=0.0, br_embed=0.0)
    found = Detector(backend, NATIVE, scales=scales)(scene(210, 201, SCENE))
    assert len(found) > 0
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()
