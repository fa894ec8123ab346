"""Networks that see what a test says, and what a detector must find with them."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
from cases.small import SMALL_SPEC

from cornernet_export.targets import encode_boxes, ideal_maps
from cornernet_export.verification.matching import FP32, View, compare_detections
from cornernet_runtime import Detector
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps, output_channels

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


def assert_same_but_near_ties(reference, frame, found, maps):
    """Compare detections, and the maps that they come from, with what ``reference`` finds in the frame by itself.

    Random weights give many scores and embeddings that differ by less than rounding does: decisions between those may
    go either way, and nothing else may differ.
    """
    expected, placement = reference.corner_maps(frame)
    for name in OUTPUT_NAMES:
        want, have = getattr(expected, name), getattr(maps, name)
        assert np.abs(have - want).max() <= 1e-5 * np.abs(want).max(), name  # another order of sums gives about 1e-6
    view = View.within(reference, expected, maps, placement, FP32.tie)
    check = compare_detections(reference.finish(expected, placement), found, "", "", FP32, view)
    assert check.passed, check
    assert check.matched >= 10, check


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
