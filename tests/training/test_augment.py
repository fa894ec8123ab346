"""Varied pictures: their boxes go where their pixels go."""

from __future__ import annotations

import numpy as np
import pytest

from cornernet_train.augment import augment
from cornernet_train.recipe import ORIGINAL_AUGMENTATION, Augmentation
from cornernet_train.shapes import Scene

PAD = (10.0, 20.0, 30.0)
INPUT = (63, 95)


def painted(size, boxes, labels=None):
    """Return a grey scene in which object ``k`` is a plain rectangle of level 100 + 20 k, on whole pixels."""
    image = np.full((*size, 3), 50, np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2] = 100 + 20 * number
    return Scene(image, np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)) if labels is None else labels)


def extents(scene):
    """Return the box of the pixels of each object that is left, by label."""
    found = {}
    for label in range(5):
        rows, columns = np.nonzero((scene.image == 100 + 20 * label).all(2))
        if len(rows):
            found[label] = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return found


def varied(scene, seed, **amounts):
    return augment(scene, Augmentation(**amounts), np.random.default_rng(seed), INPUT, PAD)


def test_no_augmentation_returns_the_very_scene():
    scene = painted((40, 60), [[5, 6, 20, 30]])
    assert varied(scene, 0) is scene


def test_a_mirror_moves_boxes_with_their_pixels():
    scene = painted((40, 61), [[5, 6, 20, 30], [40, 1, 61, 9]])
    mirrored = varied(scene, 0, flip=1.0)
    np.testing.assert_array_equal(mirrored.image, scene.image[:, ::-1])
    assert mirrored.boxes.tolist() == [[41, 6, 56, 30], [0, 1, 21, 9]]
    assert {label: list(box) for label, box in extents(mirrored).items()} == {0: [41, 6, 56, 30], 1: [0, 1, 21, 9]}
    assert scene.boxes[0].tolist() == [5, 6, 20, 30]


def test_about_as_many_pictures_are_mirrored_as_asked_for():
    scene = painted((8, 9), [[0, 0, 3, 3]])
    count = sum(varied(scene, seed, flip=0.25).boxes[0, 0] > 0 for seed in range(400))
    # Of 400 draws a quarter has a standard deviation of 8.7: this is four of them.
    assert 65 <= count <= 135


@pytest.mark.parametrize("size", [(63, 95), (100, 60), (200, 333)])
def test_boxes_of_crops_are_those_of_their_pixels(size):
    height, width = size
    boxes = [[3, 2, 20, 15], [width - 30, height - 25, width - 1, height - 3], [width // 2, 20, width // 2 + 9, 41]]
    scene, left, beyond = painted(size, boxes), set(), 0
    for seed in range(60):
        crop = varied(scene, seed, scales=(0.6, 1.4))
        assert {int(label): box for label, box in zip(crop.labels, crop.boxes.tolist(), strict=True)} == extents(crop)
        left.add(len(crop.labels))
        beyond += (crop.image == PAD).all(2).any()
    # Some crops lose objects, some show the border.
    assert len(left) > 1
    assert beyond > 5


def test_crops_have_the_aspect_of_the_input_and_scales_within_the_bounds():
    # A picture of twice the input fits at a half, so that a crop of scale 1 is twice the input.
    scales = []
    for seed in range(100):
        height, width = varied(painted((126, 190), []), seed, scales=(0.6, 1.4)).image.shape[:2]
        assert width / height == pytest.approx(95 / 63, rel=0.01)
        scales.append(width / 190)
    assert 0.595 <= min(scales) < 0.65
    assert 1.35 < max(scales) <= 1.405


def test_a_crop_without_an_object_is_a_picture_without_one():
    crops = [varied(painted((100, 100), [[0, 0, 2, 2]]), seed, scales=(0.6, 0.6)) for seed in range(30)]
    empty = [crop for crop in crops if not len(crop.labels)]
    assert empty
    assert {(crop.boxes.shape, crop.boxes.dtype) for crop in empty} == {((0, 4), np.dtype(np.float32))}


def test_colours_change_within_their_bounds_and_boxes_do_not():
    image = np.random.default_rng(0).integers(60, 120, (20, 30, 3), dtype=np.uint8)
    scene = Scene(image, np.array([[1, 2, 9, 8]], np.float32), np.array([0]))
    factors = []
    for seed in range(200):
        changed = varied(scene, seed, jitter=0.4)
        factors.append(changed.image.mean() / image.mean())
        assert changed.boxes is scene.boxes
    # Contrast and saturation leave the mean alone, brightness multiplies it.
    assert 0.58 < min(factors) < 0.65
    assert 1.35 < max(factors) < 1.42


class Scripted:
    """Chance that does one kind of change only, by a factor of 1.5: 0 brightness, 1 contrast, 2 saturation."""

    def __init__(self, kind):
        self.kind = kind

    def permutation(self, _count):
        return [self.kind]

    def uniform(self, _low, high):
        return high

    def random(self):
        return 0.5

    def normal(self, _mean, _deviation, count):
        return np.zeros(count)


# Grey is 0.114 blue + 0.587 green + 0.299 red: 100.55 and 43.7, 72.125 in the mean.
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (0, [[150, 75, 255], [30, 60, 90]]),
        (1, [[114, 39, 255], [0, 24, 54]]),  # 1.5 v - 36.0625
        (2, [[100, 25, 250], [8, 38, 68]]),  # 1.5 v - 50.275 and 1.5 v - 21.85
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_each_change_of_colour_worked_out_by_hand(kind, expected):
    image = np.array([[[100, 50, 200], [20, 40, 60]]], np.uint8)
    scene = Scene(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert augment(scene, Augmentation(jitter=0.5), Scripted(kind), INPUT, PAD).image.tolist() == [expected]


def test_lighting_shifts_every_pixel_alike_along_the_principal_colours():
    image = np.full((4, 5, 3), 128, np.uint8)
    scene = Scene(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    shifts = []
    for seed in range(500):
        changed = varied(scene, seed, lighting=0.1).image.astype(int) - 128
        assert (changed == changed[0, 0]).all()
        shifts.append(changed[0, 0])
    # 255 * 0.1 times the spreads and directions; the first is nearly grey. Rounding adds a variance of 1/12.
    spread, directions = (
        np.array([0.2141788, 0.01817699, 0.00341571]),
        np.array([[0.5875, 0.6956, 0.4134], [0.5833, 0.0099, 0.8122], [0.5609, 0.7183, 0.4116]]),
    )
    expected = np.sqrt(((25.5 * spread * directions) ** 2).sum(1) + 1 / 12)
    np.testing.assert_allclose(np.std(shifts, axis=0), expected, rtol=0.15)


def test_colours_stay_within_their_range():
    image = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (9, 9, 3))
    scene = Scene(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    for seed in range(20):
        # What wrapped around would turn white to black.
        changed = varied(scene, seed, jitter=0.4, lighting=0.1).image.astype(int)
        assert changed[image == 255].mean() > changed[image == 0].mean()


def test_chance_alone_decides():
    scene = painted((60, 80), [[5, 6, 40, 30]])
    first, again, other = (
        augment(scene, ORIGINAL_AUGMENTATION, np.random.default_rng(seed), INPUT, PAD).image for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or (first != other).any()
