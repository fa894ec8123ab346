"""Where labelled pictures come from: scenes of shapes, and COCO folders as they come."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest

from cornernet_runtime.errors import CornerNetError, FrameError
from cornernet_train.pictures import CocoPictures, ShapeScenes
from cornernet_train.shapes import CLASS_NAMES, make_scene
from cornernet_train.shapes_dataset import write_shapes

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
    assert str(caught.value).startswith(f"{path}: ")


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
    said = (
        "boxes without area or outside their picture, which nobody can find: annotation 1, annotation 2, annotation 3"
    )
    assert pictures.warnings[0] == f"{folder / 'annotations.json'}: 7 {said}, ..."
    assert pictures.objects == 1


def test_pictures_that_are_not_there_are_left_out_counted_and_named(folder):
    (folder / "images" / "first.png").unlink()
    write(folder, [annotation(500, 7, [1, 1, 9, 9]), annotation(3, 2, [5, 6, 7, 8])], images=SIZED)
    pictures = CocoPictures(folder)
    assert len(pictures) == 1
    assert pictures[0].labels.tolist() == [0]
    assert pictures.name(0) == str(folder / "images" / "second.png")
    assert pictures.warnings == [f"{folder / 'annotations.json'}: 1 picture missing: {folder}/images/first.png"]


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
