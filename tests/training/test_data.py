"""Pictures to examples: the runtime's pixels, targets where the boxes land, and COCO folders as they come."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from cases.small import SMALL_SPEC

from cornernet_export.model import CornerTensors
from cornernet_runtime.bundle.spec import Normalisation
from cornernet_runtime.errors import FrameError
from cornernet_runtime.processing.geometry import fit
from cornernet_runtime.processing.preprocess import Preprocessor
from cornernet_train.data import Examples, Unreadable, collate
from cornernet_train.losses import corner_losses
from cornernet_train.recipe import Augmentation
from cornernet_train.shapes import Scene

HEIGHT, WIDTH = SMALL_SPEC.input_size  # 63 x 95
ROWS, COLUMNS = SMALL_SPEC.map_size  # 16 x 24


class Planted:
    """Scenes given one by one."""

    class_names = SMALL_SPEC.class_names
    identity = "these"

    def __init__(self, *scenes):
        self.scenes = scenes

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        if self.scenes[index] is None:
            raise FrameError(f"picture {index} cannot be decoded")
        return self.scenes[index]

    def name(self, index):
        return f"picture {index}"


def scene_of(size, boxes, labels, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    return Scene(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))


def example_of(scene):
    return Examples(Planted(scene), SMALL_SPEC)[0]


def ones(heat):
    """Return (label, row, column) of each cell that is exactly 1."""
    return {tuple(cell) for cell in np.argwhere(heat == 1).tolist()}


# Examples.


@pytest.mark.parametrize("size", [(63, 95), (40, 200), (300, 60), (1, 1)])
def test_the_image_is_what_the_runtime_feeds_the_network(size):
    scene = scene_of(size, [], [])
    expected = np.empty((3, HEIGHT, WIDTH), np.float32)
    Preprocessor(SMALL_SPEC.normalisation)(scene.image, fit(size, SMALL_SPEC.input_size), expected)
    found = example_of(scene).image
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_examples_do_not_share_their_images():
    examples = Examples(Planted(), SMALL_SPEC)
    wide, narrow = scene_of((63, 95), [], [], 1), scene_of((50, 50), [], [], 2)
    first = examples.example(wide).image
    before = first.copy()
    assert np.any(examples.example(narrow).image != before)
    np.testing.assert_array_equal(first, before)
    # Nor does the border of the second, narrower picture stay in the first when that is made again.
    np.testing.assert_array_equal(examples.example(wide).image, before)


def test_targets_of_a_picture_of_the_input_size_by_hand():
    targets = example_of(scene_of((63, 95), [[10, 20, 50, 60]], [1])).targets
    # 95 pixels are 24 cells and 63 are 16: 2.526, 5.079, 12.632 and 15.238.
    assert ones(targets.tl_heat) == {(1, 5, 2)}
    assert ones(targets.br_heat) == {(1, 15, 12)}
    assert targets.tl_cells.tolist() == [5 * 24 + 2]
    assert targets.br_cells.tolist() == [15 * 24 + 12]
    np.testing.assert_allclose(targets.tl_offsets, [[240 / 95 - 2, 320 / 63 - 5]], rtol=1e-5)
    np.testing.assert_allclose(targets.br_offsets, [[1200 / 95 - 12, 960 / 63 - 15]], rtol=1e-5)
    assert targets.labels.tolist() == [1]


def test_targets_of_a_picture_of_twice_the_input_size_are_the_same():
    small = example_of(scene_of((63, 95), [[10, 20, 50, 60], [0, 0, 95, 63]], [1, 2])).targets
    large = example_of(scene_of((126, 190), [[20, 40, 100, 120], [0, 0, 190, 126]], [1, 2])).targets
    for name in ("tl_heat", "br_heat", "tl_cells", "br_cells", "labels"):
        np.testing.assert_array_equal(getattr(small, name), getattr(large, name))
    np.testing.assert_allclose(small.tl_offsets, large.tl_offsets, atol=1e-6)


@pytest.mark.parametrize("size", [(100, 100), (40, 300), (500, 90), (63, 95)])
def test_corners_land_in_the_cells_where_the_picture_lies(size):
    rng = np.random.default_rng(size[0])
    corners = rng.uniform(0.02, 0.98, (12, 2, 2)) * size[::-1]
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
    labels = rng.integers(0, 3, 12)
    targets = example_of(scene_of(size, boxes, labels)).targets
    # The picture is scaled to touch two sides of the input, in whole pixels, and centred.
    scale = min(HEIGHT / size[0], WIDTH / size[1])
    new_height, new_width = round(size[0] * scale), round(size[1] * scale)
    top, left = (HEIGHT - new_height) // 2, (WIDTH - new_width) // 2
    expected = {"tl": set(), "br": set()}
    for number, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        for kind, x, y in (("tl", x1, y1), ("br", x2, y2)):
            column = (x * new_width / size[1] + left) * COLUMNS / WIDTH
            row = (y * new_height / size[0] + top) * ROWS / HEIGHT
            assert getattr(targets, f"{kind}_cells")[number] == math.floor(row) * COLUMNS + math.floor(column)
            offset = [column - math.floor(column), row - math.floor(row)]
            np.testing.assert_allclose(getattr(targets, f"{kind}_offsets")[number], offset, atol=1e-5)
            expected[kind].add((int(labels[number]), math.floor(row), math.floor(column)))
    assert ones(targets.tl_heat) == expected["tl"]
    assert ones(targets.br_heat) == expected["br"]


def test_what_reaches_beyond_the_picture_is_cut_and_what_lies_outside_is_no_object():
    boxes = [[-20, -5, 40, 30], [60, 40, 300, 200], [-30, 10, -5, 40], [95, 0, 120, 20], [10, 20, 10, 40]]
    targets = example_of(scene_of((63, 95), boxes, [0, 1, 2, 2, 2])).targets
    cut = example_of(scene_of((63, 95), [[0, 0, 40, 30], [60, 40, 95, 63]], [0, 1])).targets
    for name in ("tl_heat", "br_heat", "tl_cells", "br_cells", "tl_offsets", "br_offsets", "labels"):
        np.testing.assert_array_equal(getattr(targets, name), getattr(cut, name))
    assert targets.labels.tolist() == [0, 1]


def test_a_picture_without_objects_has_empty_targets():
    targets = example_of(scene_of((80, 60), [], [])).targets
    assert targets.tl_heat.shape == targets.br_heat.shape == (3, ROWS, COLUMNS)
    assert not targets.tl_heat.any()
    assert not targets.br_heat.any()
    assert (targets.tl_cells.shape, targets.tl_offsets.shape, targets.labels.shape) == ((0,), (0, 2), (0,))


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_crop_shows_the_mean_pixel_beyond_the_picture_whatever_the_order_of_channels(order):
    mean = (0.5, 0.4, 0.3)
    normalisation = Normalisation(order, mean, (0.2, 0.2, 0.2), tuple(255 * level for level in mean))
    spec = replace(SMALL_SPEC, normalisation=normalisation)
    white = Scene(np.full((63, 95, 3), 255, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    examples = Examples(Planted(white), spec, augmentation=Augmentation(scales=(1.4, 1.4)))
    for position in range(5):
        image = examples[position].image
        # A crop larger than its picture shows the border in a corner; white is at least 2.5 there. Crops hold whole
        # grey levels, so the mean is off by half a level at most.
        corners = np.abs(image[:, [0, 0, -1, -1], [0, -1, 0, -1]]).max(0)
        assert corners.min() <= 0.5 / 255 / 0.2 + 1e-5


# Batches.


def test_collate_pads_objects_to_the_most_of_a_picture():
    scenes = [
        scene_of((63, 95), [[10, 20, 50, 60]], [1], 1),
        scene_of((63, 95), [], [], 2),
        scene_of((63, 95), [[5, 5, 30, 30], [40, 9, 90, 50], [60, 30, 80, 60]], [0, 1, 2], 3),
    ]
    examples = [example_of(scene) for scene in scenes]
    images, targets, *_ = collate(examples)
    assert images.shape == (3, 3, HEIGHT, WIDTH)
    assert images.dtype == torch.float32
    assert targets.present.tolist() == [[True, False, False], [False] * 3, [True] * 3]
    for index, example in enumerate(examples):
        count = len(example.targets.labels)
        np.testing.assert_array_equal(images[index], example.image)
        np.testing.assert_array_equal(targets.tl_heat[index], example.targets.tl_heat)
        np.testing.assert_array_equal(targets.br_heat[index], example.targets.br_heat)
        for name in ("tl_cells", "br_cells", "tl_offsets", "br_offsets", "labels"):
            padded = getattr(targets, name)[index].numpy()
            assert len(padded) == 3
            np.testing.assert_array_equal(padded[:count], getattr(example.targets, name))
            assert not padded[count:].any()


def test_a_batch_without_any_object_has_one_empty_slot_and_finite_losses():
    images, targets, *_ = collate([example_of(scene_of((63, 95), [], [])) for _ in range(2)])
    assert targets.present.tolist() == [[False], [False]]
    assert targets.tl_offsets.shape == (2, 1, 2)
    maps = [torch.zeros(2, channels, ROWS, COLUMNS) for channels in (3, 3, 1, 1, 2, 2)]
    assert torch.isfinite(corner_losses([CornerTensors(*maps)], targets).total)
    assert len(images) == 2


def test_a_picture_that_cannot_be_read_is_left_out_of_its_batch_and_named():
    examples = Examples(Planted(scene_of((63, 95), [], [], 1), None, scene_of((63, 95), [], [], 2)), SMALL_SPEC)
    items = [examples[position] for position in range(3)]
    (missing,) = (item for item in items if isinstance(item, Unreadable))
    assert missing.unreadable == ("picture 1 cannot be decoded",)
    batch = collate(items)
    assert len(batch.images) == len(batch.targets.present) == 2
    assert sorted(batch.names) == ["picture 0", "picture 2"]
    assert batch.unreadable == ("picture 1 cannot be decoded",)


def test_pictures_that_cannot_be_read_make_no_batch_but_a_reason():
    batch = collate([Examples(Planted(None), SMALL_SPEC)[0]] * 2)
    assert isinstance(batch, Unreadable)
    assert batch.unreadable == ("picture 0 cannot be decoded",) * 2


# The order, and what it does not depend on.


def test_every_picture_comes_once_before_any_comes_again():
    examples = Examples(Planted(*[None] * 7), SMALL_SPEC, seed=3)
    rounds = [[examples.index(7 * number + place) for place in range(7)] for number in range(4)]
    assert [sorted(order) for order in rounds] == [list(range(7))] * 4
    assert len({tuple(order) for order in rounds}) > 1


def test_the_order_is_that_of_the_seed_from_wherever_one_begins():
    def orders(seed, positions):
        examples = Examples(Planted(*[None] * 5), SMALL_SPEC, seed=seed)
        return {position: examples.index(position) for position in positions}

    forwards = orders(1, range(20))
    assert orders(1, reversed(range(20))) == forwards
    assert orders(2, range(20)) != forwards


def test_an_example_is_a_function_of_its_position():
    scenes = [scene_of((60, 80), [[10, 10, 50, 40]], [1], seed) for seed in range(3)]
    varied = Augmentation(scales=(0.6, 1.4), flip=0.5, jitter=0.4, lighting=0.1)
    first, second = (Examples(Planted(*scenes), SMALL_SPEC, 4, varied) for _ in range(2))
    late = second[5].image.copy()
    for position in range(6):
        found = first[position].image
    np.testing.assert_array_equal(found, late)
    # The same picture comes again in another round, varied otherwise.
    again = next(position for position in range(6, 9) if first.index(position) == first.index(5))
    assert np.any(first[again].image != late)
