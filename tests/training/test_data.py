"""Pictures to examples: the runtime's pixels, targets where the boxes land, and COCO folders as they come."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch
from conftest import SMALL_SPEC

from cornernet_export.model import CornerTensors
from cornernet_runtime.errors import CornerNetError, FrameError
from cornernet_runtime.geometry import fit
from cornernet_runtime.preprocess import Preprocessor
from cornernet_train.data import Examples, Unreadable, collate
from cornernet_train.losses import corner_losses
from cornernet_train.pictures import CocoPictures, ShapeScenes
from cornernet_train.recipe import Augmentation
from cornernet_train.shapes import CLASS_NAMES, Scene, make_scene
from cornernet_train.shapes_dataset import write_shapes

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
    assert missing.reason == "picture 1 cannot be decoded"
    batch = collate(items)
    assert len(batch.images) == len(batch.targets.present) == 2
    assert sorted(batch.names) == ["picture 0", "picture 2"]
    assert batch.unreadable == ("picture 1 cannot be decoded",)


def test_pictures_that_cannot_be_read_make_no_batch_but_a_reason():
    batch = collate([Examples(Planted(None), SMALL_SPEC)[0]])
    assert batch.reason == "no picture of a whole batch could be read; the first: picture 0 cannot be decoded"


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


# Shapes, fresh and from disk.


def test_shape_scenes_are_the_generators():
    scenes = ShapeScenes(9, 5)
    assert len(scenes) == 5
    assert scenes.class_names == CLASS_NAMES
    for index in (0, 4):
        np.testing.assert_array_equal(scenes[index].image, make_scene(9, index).image)
        np.testing.assert_array_equal(scenes[index].boxes, make_scene(9, index).boxes)


def test_a_written_set_reads_back_as_the_scenes(tmp_path):
    write_shapes(tmp_path / "set", 3, seed=9)
    read, fresh = CocoPictures(tmp_path / "set"), ShapeScenes(9, 3)
    assert len(read) == len(fresh)
    assert read.class_names == fresh.class_names
    for index in range(3):
        np.testing.assert_array_equal(read[index].image, fresh[index].image)
        np.testing.assert_array_equal(read[index].labels, fresh[index].labels)
        assert read[index].boxes.dtype == np.float32
        # Width and height are rounded to float32 before they are added: one unit in the last place of 500 pixels.
        np.testing.assert_allclose(read[index].boxes, fresh[index].boxes, rtol=0, atol=1e-4)


# Other COCO folders.

CATEGORIES = [{"id": 30, "name": "cat"}, {"id": 2, "name": "ant"}, {"id": 7, "name": "bee"}]


def annotation(image_id, category_id, bbox, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def numbered(annotations):
    """Give annotations the ids that pycocotools needs, unless they have one or are not even objects."""
    return [
        {"id": number, **item} if isinstance(item, dict) else item for number, item in enumerate(annotations, start=1)
    ]


@pytest.fixture
def folder(tmp_path):
    """A folder with two pictures, of uniform level 10 and 20."""
    (tmp_path / "images").mkdir()
    for name, level in (("first.png", 10), ("second.png", 20)):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((40, 60, 3), level, np.uint8))
    return tmp_path


def write(folder, annotations, categories=CATEGORIES, images=None):
    if images is None:
        images = [{"id": 500, "file_name": "first.png"}, {"id": 3, "file_name": "second.png"}]
    content = {"images": images, "categories": categories, "annotations": numbered(annotations)}
    (folder / "annotations.json").write_text(json.dumps(content))


def test_labels_follow_the_order_of_category_ids_with_gaps(folder):
    write(folder, [annotation(3, 30, [1, 2, 3, 4]), annotation(3, 2, [5, 6, 7, 8]), annotation(3, 7, [1, 1, 1, 1])])
    pictures = CocoPictures(folder)
    assert pictures.class_names == ("ant", "bee", "cat")
    assert pictures[1].labels.tolist() == [2, 0, 1]


def test_pictures_keep_the_order_of_the_file_and_their_own_objects(folder):
    write(folder, [annotation(3, 2, [1.5, 2, 3, 4.25]), annotation(500, 7, [10, 20, 30, 15])])
    pictures = CocoPictures(folder)
    assert [int(pictures[index].image[0, 0, 0]) for index in range(2)] == [10, 20]
    assert pictures[0].boxes.tolist() == [[10, 20, 40, 35]]
    assert pictures[1].boxes.tolist() == [[1.5, 2, 4.5, 6.25]]


def test_crowds_are_skipped(folder):
    rows = [annotation(3, 2, [1, 2, 3, 4], iscrowd=1), annotation(3, 7, [5, 6, 7, 8], iscrowd=0)]
    write(folder, rows)
    assert CocoPictures(folder)[1].labels.tolist() == [1]


def test_a_picture_without_annotations_has_no_objects(folder):
    write(folder, [])
    assert CocoPictures(folder).warnings == [f"{folder / 'annotations.json'}: there is no object on any picture"]
    scene = CocoPictures(folder)[0]
    assert (scene.boxes.shape, scene.boxes.dtype) == ((0, 4), np.float32)
    assert (scene.labels.shape, scene.labels.dtype) == ((0,), np.int64)


BROKEN = {
    "not JSON": "{",
    "empty": "",
    "binary": b"\xff\xfe\x00",
    "a list": "[]",
    "without categories": json.dumps({"images": [], "annotations": []}),
    "without images": json.dumps({"categories": [], "annotations": []}),
    "without annotations": json.dumps({"images": [{"id": 1, "file_name": "a"}], "categories": []}),
    "of an unknown picture": {"annotations": [annotation(4, 2, [1, 2, 3, 4])]},
    "of an unknown category": {"annotations": [annotation(3, 1, [1, 2, 3, 4])]},
    "without a box": {"annotations": [{"image_id": 3, "category_id": 2}]},
    "without a file name": {"annotations": [], "images": [{"id": 1}]},
    "with an annotation that is none": {"annotations": [[]]},
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_annotations_are_an_error_that_names_the_file(folder, what):
    content, path = BROKEN[what], folder / "annotations.json"
    if isinstance(content, dict):
        write(folder, **content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FrameError) as caught:
        CocoPictures(folder)
    assert str(caught.value).startswith(f"{path}: not COCO annotations")


def test_missing_annotations_are_an_error_that_names_the_file(tmp_path):
    with pytest.raises(FrameError) as caught:
        CocoPictures(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'annotations.json'}: no such file")


def test_a_set_without_pictures_is_an_error(folder):
    write(folder, [], images=[])
    with pytest.raises(FrameError) as caught:
        CocoPictures(folder)
    assert str(caught.value) == f"{folder / 'annotations.json'}: lists no picture"


@pytest.mark.parametrize("names", [[], ["ant", "ant"], [""]])
def test_categories_that_cannot_name_classes_are_an_error(folder, names):
    write(folder, [], categories=[{"id": number, "name": name} for number, name in enumerate(names)])
    with pytest.raises(CornerNetError, match="categories"):
        CocoPictures(folder)


@pytest.mark.parametrize("bbox", [[1, 2, 3], [1, 2, 3, "four"], 7, None])
def test_a_box_without_four_numbers_is_an_error_that_names_it(folder, bbox):
    write(folder, [annotation(500, 2, bbox, id=77)])
    with pytest.raises(FrameError, match="annotation 77: expected a bbox of four numbers, got "):
        CocoPictures(folder)


def test_unknown_pictures_and_categories_are_named(folder):
    for row, said in (
        (annotation(4, 2, [1, 2, 3, 4], id=9), "annotation 9 is of picture 4, which is not listed"),
        (annotation(3, 1, [1, 2, 3, 4], id=9), "annotation 9 is of category 1, which is not listed"),
    ):
        write(folder, [row])
        with pytest.raises(FrameError, match=said):
            CocoPictures(folder)


SIZED = [
    {"id": 500, "file_name": "first.png", "width": 60, "height": 40},
    {"id": 3, "file_name": "second.png", "width": 60, "height": 40},
]
USELESS = [[5, 5, 0, 9], [5, 5, 9, 0], [5, 5, -3, 9], [60, 5, 9, 9], [5, 40, 9, 9], [-9, 5, 9, 9], [5, 5, math.nan, 9]]


def test_boxes_without_area_or_outside_are_left_out_counted_and_named(folder):
    rows = [annotation(3, 2, bbox) for bbox in USELESS] + [annotation(3, 7, [50, 30, 90, 90])]
    write(folder, rows, images=SIZED)
    pictures = CocoPictures(folder)
    assert pictures[1].boxes.tolist() == [[50, 30, 140, 120]]
    said = "7 boxes left out, without area or outside: annotation 1, annotation 2, annotation 3, ..."
    assert pictures.warnings == [f"{folder / 'annotations.json'}: {said}"]


def test_pictures_that_are_not_there_are_left_out_counted_and_named(folder):
    (folder / "images" / "first.png").unlink()
    write(folder, [annotation(500, 7, [1, 1, 9, 9]), annotation(3, 2, [5, 6, 7, 8])], images=SIZED)
    pictures = CocoPictures(folder)
    assert len(pictures) == 1
    assert pictures[0].labels.tolist() == [0]
    assert pictures.name(0) == str(folder / "images" / "second.png")
    assert pictures.warnings == [f"{folder / 'annotations.json'}: 1 pictures missing: {folder}/images/first.png"]


def test_a_set_of_which_no_picture_is_there_is_an_error(folder):
    for name in ("first.png", "second.png"):
        (folder / "images" / name).unlink()
    write(folder, [])
    with pytest.raises(FrameError, match=r"none of its 2 pictures is there, such as .*first\.png"):
        CocoPictures(folder)


def test_a_sound_set_gives_no_warning(folder):
    write(folder, [annotation(3, 2, [5, 6, 7, 8])], images=SIZED)
    assert CocoPictures(folder).warnings == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_picture_that_cannot_be_decoded_is_an_error_that_names_it(folder, content):
    (folder / "images" / "second.png").write_bytes(content)
    write(folder, [])
    pictures = CocoPictures(folder)
    assert len(pictures[0].image) == 40
    with pytest.raises(FrameError) as caught:
        _ = pictures[1]
    assert str(caught.value) == f"{folder / 'images' / 'second.png'}: cannot be decoded as a picture"


def test_a_picture_that_vanishes_is_an_error_that_names_it_and_nothing_of_opencv(folder, capfd):
    write(folder, [])
    pictures = CocoPictures(folder)
    (folder / "images" / "second.png").unlink()
    with pytest.raises(FrameError) as caught:
        _ = pictures[1]
    assert str(caught.value).startswith(f"{folder / 'images' / 'second.png'}: cannot be ")
    assert capfd.readouterr().err == ""
