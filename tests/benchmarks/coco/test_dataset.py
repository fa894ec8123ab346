"""Data sets in COCO format: what each error and note says; what pycocotools would misread is judged right."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
from cases.small import SMALL_SPEC

from cornernet_bench.accuracy.evaluate import evaluate
from cornernet_bench.coco.dataset import read_coco
from cornernet_runtime.detections import Detections
from cornernet_runtime.errors import FrameError

CATEGORIES = [{"id": 8, "name": "bee"}, {"id": 3, "name": "ant"}]


def picture(key=1, name="a.png", **more):
    return {"id": key, "file_name": name, **more}


def thing(bbox, image=1, category=3, **more):
    return {"id": 7, "image_id": image, "category_id": category, "bbox": bbox, **more}


@pytest.fixture
def read(tmp_path):
    """Return a function that writes a set, with ``a.png`` of 60 x 40 pixels beside it, and reads it."""
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((40, 60, 3), np.uint8))

    def run(objects=(), images=None, categories=CATEGORIES, encoding="utf-8"):
        content = {"images": [picture()] if images is None else images, "categories": categories}
        content["annotations"] = list(objects) if isinstance(objects, (list, tuple)) else objects
        (tmp_path / "set.json").write_text(json.dumps(content), encoding=encoding)
        return read_coco(tmp_path / "set.json", tmp_path)

    return run


def refusal(path, function):
    """Return what an error says behind the name of the file."""
    with pytest.raises(FrameError) as caught:
        function()
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


# Errors.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as COCO annotations (JSONDecodeError: Expecting value: line 1 column 1 (char 0))"),
        (b"\xff\xfe", "cannot be read as COCO annotations (UnicodeDecodeError: "),
        (b"[" * 100_000, "cannot be read as COCO annotations (RecursionError: "),
        (b"[]", "not COCO annotations: expected a list of objects under 'images'"),
        (b'{"images": 7}', "not COCO annotations: expected a list of objects under 'images'"),
        (b'{"images": [7]}', "not COCO annotations: expected a list of objects under 'images'"),
        (b'{"images": []}', "not COCO annotations: expected a list of objects under 'categories'"),
        (b'{"images": [], "categories": []}', "not COCO annotations: expected a list of objects under 'annotations'"),
        (b'{"images": [], "categories": [], "annotations": []}', "lists no picture"),
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path, content, said):
    path = tmp_path / "set.json"
    path.write_bytes(content)
    assert refusal(path, lambda: read_coco(path, tmp_path)).startswith(said)


def test_a_file_that_is_not_there_is_refused_in_the_words_of_the_system(tmp_path):
    said = refusal(tmp_path / "no.json", lambda: read_coco(tmp_path / "no.json", tmp_path))
    assert said == "cannot be read as COCO annotations (No such file or directory)"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"images": [{"id": 1}]}, "number 1 of images: expected an id and a file_name, got 1 and None"),
        ({"images": [picture(1.5)]}, "number 1 of images: expected an id and a file_name, got 1.5 and 'a.png'"),
        ({"images": [picture(), picture(2, "")]}, "number 2 of images: expected an id and a file_name, got 2 and ''"),
        ({"images": [picture(), picture(1, "b.png")]}, "number 2 of images: id 1 is that of a.png already"),
        ({"images": [picture(), picture("2")]}, "images: expected ids of one kind, got numbers and texts"),
        ({"images": [picture(width="60")]}, "number 1 of images: expected a width in pixels, got '60'"),
        ({"images": [picture(height=-4)]}, "number 1 of images: expected a height in pixels, got -4"),
        ({"images": [picture(height=math.nan)]}, "number 1 of images: expected a height in pixels, got nan"),
        ({"categories": [{"id": 3}]}, "number 1 of categories: expected an id and a name, got 3 and None"),
        (
            {"categories": [{"id": 3, "name": "ant"}, {"id": 3, "name": "bee"}]},
            "number 2 of categories: id 3 is that of ant already",
        ),
        (
            {"categories": [{"id": 3, "name": "ant"}, {"id": 4, "name": "ant"}]},
            "expected categories with distinct names, got ['ant', 'ant']",
        ),
        ({"objects": [thing([1, 2, 3, 4], image=9)]}, "annotation 7 is of picture 9, which is not listed"),
        ({"objects": [thing([1, 2, 3, 4], image="1")]}, "annotation 7 is of picture '1', which is not listed"),
        ({"objects": [thing([1, 2, 3, 4], image=[1])]}, "annotation 7 is of picture [1], which is not listed"),
        ({"objects": [thing([1, 2, 3, 4], category=1)]}, "annotation 7 is of category 1, which is not listed"),
        ({"objects": [{"bbox": [1, 2, 3, 4]}]}, "annotation number 1 is of picture None, which is not listed"),
        (
            {"objects": [{"id": 7, "image_id": 1, "category_id": 3, "segmentation": []}]},
            "annotation 7 has no bbox: boxes are needed, outlines are not used",
        ),
        ({"objects": [thing([1, 2, 3])]}, "annotation 7: expected a bbox of four numbers, got [1, 2, 3]"),
        ({"objects": [thing("1234")]}, "annotation 7: expected a bbox of four numbers, got '1234'"),
        ({"objects": [thing([1, 2, 3, None])]}, "annotation 7: expected a bbox of four numbers, got [1, 2, 3, None]"),
        ({"objects": [thing([1, 2, 3, 10**400])]}, "annotation 7: expected a bbox of four numbers, got [1, 2, 3, 1"),
    ],
)
def test_a_row_that_does_not_hold_is_named(read, tmp_path, rows, said):
    assert refusal(tmp_path / "set.json", lambda: read(**rows)).startswith(said)


# What is taken as it is meant.


def test_annotations_are_numbered_from_1_whatever_their_ids(read):
    data = read([thing([1, 2, 3, 4], id=0), thing([5, 6, 7, 8], id=0), thing([9, 1, 2, 3], id="x")])
    assert [row["id"] for row in data.truth.dataset["annotations"]] == [1, 2, 3]
    assert sorted(data.truth.anns) == [1, 2, 3]


def test_what_a_box_lacks_follows_from_it(read):
    data = read([thing([1, 2, 3, 4]), thing([1, 2, 5, 4], area=None), thing([1, 2, 6, 4], area=9.5, iscrowd=1)])
    rows = data.truth.dataset["annotations"]
    assert [(row["area"], row["iscrowd"]) for row in rows] == [(12, 0), (20, 0), (9.5, 1)]
    assert [row["bbox"] for row in rows] == [[1, 2, 3, 4], [1, 2, 5, 4], [1, 2, 6, 4]]


def test_categories_are_in_the_order_of_their_ids(read):
    assert list(read().categories.items()) == [("ant", 3), ("bee", 8)]


def test_a_byte_order_mark_is_no_part_of_the_file(read):
    assert read([thing([1, 2, 3, 4])], encoding="utf-8-sig").notes == ()


def test_pictures_are_where_the_file_says_and_missing_ones_are_told(read, tmp_path):
    data = read([thing([1, 2, 3, 4])], images=[picture(5, "b.png"), picture(1)])
    assert list(data.paths.items()) == [(5, tmp_path / "b.png"), (1, tmp_path / "a.png")]
    assert data.absent == (tmp_path / "b.png",)


# Notes.

LOST = "boxes without area or outside their picture, which nobody can find"
BEYOND = "boxes that reach beyond their picture (a bbox is left, top, width, height)"


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        (
            [thing([5, 5, 0, 9]), thing([5, 5, 9, -1]), thing([61, 5, 1, 9]), thing([5, 5, math.nan, 9], id=8)],
            f"4 {LOST}: annotation 7, annotation 7, annotation 7, ...",
        ),
        (
            [thing([0.1, 0.2, 0.5, 0.9]), thing([1, 1, 0.5, 2], id=8)],
            "1 boxes smaller than a pixel (a bbox is in pixels): annotation 7",
        ),
        (
            # By more than a pixel to the right, below, to the left and above; by one.
            [thing(box) for box in ([50, 5, 12, 9], [5, 30, 9, 12], [-2, 5, 9, 9], [5, -2, 9, 9], [50, 5, 11, 9])],
            f"4 {BEYOND}: annotation 7, annotation 7, annotation 7, ...",
        ),
        (
            [thing([1, 2, 3, 4]), thing([1, 2, 3, 4], id=8), thing([1, 2, 3, 4], category=8), thing([1, 2, 3, 5])],
            "1 annotations that repeat another: annotation 8",
        ),
        ([], "there is no object on any picture"),
        ([thing([1, 2, 3, 4], iscrowd=1), thing([1, 2, 3, 4], iscrowd=1)], "there is no object on any picture"),
    ],
)
def test_what_looks_wrong_is_noted_with_its_names(read, objects, said):
    assert said in read(objects, images=[picture(width=60, height=40)]).notes


def test_a_sound_set_has_no_note(read):
    sound = [thing([0, 0, 60, 40]), thing([1, 2, 3, 4]), thing([59, 0, 2, 41], category=8)]
    assert read(sound, images=[picture(width=60, height=40)]).notes == ()
    assert read([thing([500, 5, 9, 9])], images=[picture()]).notes == ()


def turned_jpeg(image):
    """Return a JPEG whose EXIF says that the camera was turned by a quarter (orientation 6)."""
    plain = cv2.imencode(".jpg", image)[1].tobytes()
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\x00\x01" + entry + b"\0\0\0\0"
    return plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]


def test_a_picture_of_another_size_than_listed_is_noted(read):
    (note,) = read([thing([1, 2, 3, 4])], images=[picture(width=40, height=60)]).notes
    said = "pictures are not of the size listed (as they are shown, turned by what EXIF says): "
    assert note == f"{said}a.png is 60x40, not 40x60"


def test_the_size_of_a_picture_is_that_which_it_is_shown_in(read, tmp_path):
    (tmp_path / "t.jpg").write_bytes(turned_jpeg(np.zeros((40, 60, 3), np.uint8)))
    shown, stored = picture(1, "t.jpg", width=40, height=60), picture(1, "t.jpg", width=60, height=40)
    assert read([thing([1, 2, 3, 4])], images=[shown]).notes == ()
    assert "t.jpg is 40x60, not 60x40" in read([thing([1, 2, 3, 4])], images=[stored]).notes[0]


def test_a_picture_that_cannot_be_read_is_no_matter_of_its_size(read, tmp_path):
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert read([thing([0, 0, 3, 4])], images=[picture(1, "b.png", width=4, height=4)]).notes == ()


# As judged.


class Finder:
    """Finds the same boxes, all ants, on every picture."""

    spec, scales, class_names = SMALL_SPEC, (1.0,), ("ant",)

    def __init__(self, *boxes):
        self.boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in boxes], np.float32)

    def __call__(self, _frame):
        count = len(self.boxes)
        return Detections(self.boxes, np.linspace(0.9, 0.8, count), np.zeros(count, np.int64), self.class_names)


FIRST, SECOND = [2, 3, 20, 30], [30, 5, 25, 30]


def judged(tmp_path, *boxes):
    return evaluate(Finder(*boxes), tmp_path / "set.json", tmp_path)


@pytest.mark.parametrize("ids", [(1, 2), (0, 1), (0, 0), (5, 5), ("a", "b"), (None, None)], ids=str)
def test_two_objects_found_exactly_are_100_points_whatever_their_ids(read, tmp_path, ids):
    read([thing(FIRST, id=ids[0]), thing(SECOND, id=ids[1])])
    # Exact fractions, save an epsilon of pycocotools' own in its divisions.
    assert judged(tmp_path, FIRST, SECOND).metrics["ap"] == pytest.approx(100, abs=1e-6)


def test_ids_of_pictures_and_categories_may_be_texts(read, tmp_path):
    kinds = [{"id": "a", "name": "ant"}, {"id": "ab", "name": "bee"}]
    read([thing(FIRST, "p", "a"), thing(SECOND, "p", "a")], images=[picture("p")], categories=kinds)
    accuracy = judged(tmp_path, FIRST, SECOND)
    assert accuracy.metrics["ap"] == pytest.approx(100, abs=1e-6)
    assert accuracy.notes == ()


def test_a_box_of_nan_counts_as_not_found(read, tmp_path):
    read([thing(FIRST), thing([1, 2, math.nan, 4])])
    # One of two found: precision 1 at 51 of 101 recalls.
    assert judged(tmp_path, FIRST).metrics["ap"] == pytest.approx(100 * 51 / 101, abs=1e-6)


def test_a_crowd_is_neither_to_be_found_nor_wrong_to_be_found(read, tmp_path):
    read([thing(FIRST), thing(SECOND, iscrowd=1)])
    for boxes in ([FIRST], [FIRST, SECOND]):
        accuracy = judged(tmp_path, *boxes)
        assert accuracy.metrics["ap"] == pytest.approx(100, abs=1e-6)
        assert accuracy.objects == 1


def test_a_box_without_area_counts_by_its_sides(read, tmp_path):
    # 40 x 40 pixels lie between 32 x 32 and 96 x 96.
    read([thing([5, 0, 40, 40])])
    metrics = judged(tmp_path, [5, 0, 40, 40]).metrics
    assert metrics["ap_medium"] == pytest.approx(100, abs=1e-6)
    assert math.isnan(metrics["ap_small"])
    assert math.isnan(metrics["ap_large"])


def test_objects_of_classes_that_the_model_lacks_are_counted_and_named(read, tmp_path):
    kinds = [{"id": number, "name": name} for number, name in enumerate(("cat", "dog", "ant", "bee"))]
    strange = [thing(FIRST, category=0), thing(SECOND, category=0), thing(SECOND, category=1)]
    read([thing(FIRST, category=2), *strange, thing(SECOND, category=3, iscrowd=1)], categories=kinds)
    accuracy = judged(tmp_path, FIRST)
    assert accuracy.notes == ("3 objects of cat, dog, which the model does not know, count as not found",)
    assert accuracy.objects == 4
    assert accuracy.metrics["ap"] == pytest.approx(100 / 3, abs=1e-6)
