"""``cornernet-train shapes``: what it writes, read by pycocotools and OpenCV, and what it refuses."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from cornernet_train import shapes_dataset
from cornernet_train.cli import main
from cornernet_train.shapes import CLASS_NAMES, make_scene

IMAGES = 4
SEED = 5


def shapes(output, images=IMAGES, seed=SEED):
    return main(["shapes", "--output", str(output), "--images", str(images), "--seed", str(seed)])


def hashes(folder):
    """Return the SHA-256 of every file below ``folder``, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "set"
    assert shapes(folder) == 0
    return folder


@pytest.fixture(scope="module")
def truth(data_set):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(data_set / "annotations.json"))


# What is written.


def test_the_folder_holds_annotations_and_pictures_only(data_set):
    pictures = {f"images/{index:06d}.png" for index in range(IMAGES)}
    assert set(hashes(data_set)) == {"annotations.json"} | pictures


def test_categories_number_the_classes_from_1(truth):
    categories = truth.loadCats(truth.getCatIds())
    assert [(item["id"], item["name"]) for item in categories] == list(enumerate(CLASS_NAMES, start=1))


def test_pycocotools_finds_each_scene_and_its_size(truth):
    images = truth.loadImgs(truth.getImgIds())
    assert [item["file_name"] for item in images] == [f"{index:06d}.png" for index in range(IMAGES)]
    assert [(item["height"], item["width"]) for item in images] == [
        make_scene(SEED, index).image.shape[:2] for index in range(IMAGES)
    ]


def test_boxes_and_labels_are_those_of_the_scenes(truth):
    for index, image_id in enumerate(truth.getImgIds()):
        scene = make_scene(SEED, index)
        rows = truth.loadAnns(truth.getAnnIds(imgIds=[image_id]))
        x, y, width, height = np.array([row["bbox"] for row in rows]).T
        # A difference of two float32 numbers is exact in JSON's float64, and so is the sum that undoes it.
        np.testing.assert_array_equal(np.stack([x, y, x + width, y + height], 1), scene.boxes.astype(np.float64))
        names = [truth.loadCats([row["category_id"]])[0]["name"] for row in rows]
        assert names == [CLASS_NAMES[label] for label in scene.labels]


def test_annotations_have_what_an_evaluation_reads(truth):
    rows = truth.dataset["annotations"]
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert {row["iscrowd"] for row in rows} == {0}
    for row in rows:
        assert row["area"] == row["bbox"][2] * row["bbox"][3]


def test_pictures_are_the_scenes_without_loss(data_set):
    for index in range(IMAGES):
        picture = cv2.imread(str(data_set / "images" / f"{index:06d}.png"))
        np.testing.assert_array_equal(picture, make_scene(SEED, index).image)


def test_the_same_arguments_give_the_same_bytes(data_set, tmp_path):
    assert shapes(tmp_path / "again") == 0
    assert hashes(tmp_path / "again") == hashes(data_set)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(data_set, tmp_path):
    assert shapes(tmp_path / "two", images=2) == 0
    smaller, larger = hashes(tmp_path / "two"), hashes(data_set)
    del smaller["annotations.json"]
    assert len(smaller) == 2
    assert smaller.items() <= larger.items()
    annotations = [json.loads((folder / "annotations.json").read_text()) for folder in (tmp_path / "two", data_set)]
    assert annotations[0]["images"] == annotations[1]["images"][:2]


def test_another_seed_gives_other_pictures(data_set, tmp_path):
    assert shapes(tmp_path / "other", seed=SEED + 1) == 0
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(data_set).values())


def test_the_seed_is_0_unless_given(tmp_path):
    assert main(["shapes", "--output", str(tmp_path / "implicit"), "--images", "1"]) == 0
    assert shapes(tmp_path / "explicit", images=1, seed=0) == 0
    assert hashes(tmp_path / "implicit") == hashes(tmp_path / "explicit")


def test_missing_parents_and_an_empty_folder_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep"):
        assert shapes(folder, images=1) == 0
        assert len(hashes(folder)) == 2


def test_nothing_goes_to_standard_output(tmp_path, capfd):
    assert shapes(tmp_path / "quiet", images=1) == 0
    assert capfd.readouterr().out == ""


# What is refused.


def test_a_folder_with_content_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert shapes(tmp_path / "full", images=1) == 1
    assert hashes(tmp_path) == {"full/mine.txt": hashlib.sha256(b"mine").hexdigest()}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: {tmp_path / 'full'} exists")


def test_the_refusal_names_no_option_that_the_command_lacks(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert shapes(tmp_path, images=1) == 1
    assert "--force" not in capsys.readouterr().err


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert shapes(tmp_path / "file", images=1) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'file'} is a file: choose the name of a folder\n"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("images", ["0", "-3", "many", "1.5", ""])
def test_a_count_that_is_no_positive_number_is_wrong_usage(tmp_path, images, capsys):
    with pytest.raises(SystemExit) as caught:
        shapes(tmp_path / "set", images=images)
    assert caught.value.code == 2
    assert "--images" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "seed",
    ["x", "-1"],
)
def test_a_seed_that_is_no_natural_number_is_wrong_usage(tmp_path, seed, capsys):
    with pytest.raises(SystemExit) as caught:
        shapes(tmp_path / "set", images=1, seed=seed)
    assert caught.value.code == 2
    assert "--seed" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["shapes"], ["shapes", "--images", "1"], ["shapes", "--output", "set"]])
def test_missing_arguments_are_wrong_usage(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupted(seed, index):
        if index == 2:
            raise KeyboardInterrupt
        return make_scene(seed, index)

    monkeypatch.setattr(shapes_dataset, "make_scene", interrupted)
    assert shapes(tmp_path / "set") == 130
    assert list(tmp_path.iterdir()) == []
