"""``cornernet-train shapes --video``: shapes that move smoothly, their boxes, and the file, read by PyAV."""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from cases.video_clips import decoded

from cornernet_train.cli import main
from cornernet_train.shapes import CLASS_NAMES
from cornernet_train.shapes_video import FRAME, OBJECTS, moving_shapes

SEED = 5


@pytest.fixture(scope="module")
def scenes():
    return list(moving_shapes(SEED, 30))


def test_the_same_numbers_give_the_same_frames_and_another_seed_others(scenes):
    for scene, again in zip(scenes, moving_shapes(SEED, 3), strict=False):
        assert (scene.image == again.image).all()
        assert (scene.boxes == again.boxes).all()
    assert (next(moving_shapes(SEED + 1, 1)).image != scenes[0].image).mean() > 0.5


def test_every_class_is_in_every_frame_and_keeps_its_place_in_the_list(scenes):
    for scene in scenes:
        assert scene.image.shape == (*FRAME, 3)
        assert scene.labels.tolist() == list(range(len(CLASS_NAMES)))
        assert scene.boxes.shape == (OBJECTS, 4)


def test_shapes_move_smoothly_and_within_the_picture(scenes):
    centres = np.array([(scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2 for scene in scenes])
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=2)
    # The largest speed of a swing of 6 s over half the picture in both axes, and a pixel for the turning box.
    assert steps.max() <= 2 * np.pi / 6 / 25 * np.hypot(320, 180) + 1
    assert steps.max(axis=0).min() > 0.5
    bends = np.linalg.norm(np.diff(centres, 2, axis=0), axis=2)
    assert bends.max() < 1
    boxes = np.array([scene.boxes for scene in scenes])
    assert boxes.min() >= 0
    assert (boxes[..., 2:].max((0, 1)) <= [640, 360]).all()


def test_what_changes_from_frame_to_frame_lies_in_the_boxes(scenes):
    for before, after in pairwise(scenes):
        inside = np.zeros(FRAME, bool)
        for left, top, right, bottom in np.concatenate([before.boxes, after.boxes]):
            # A pixel more: OpenCV fills the cells that an edge runs through.
            inside[max(0, int(top) - 1) : int(bottom) + 2, max(0, int(left) - 1) : int(right) + 2] = True
        changed = (before.image != after.image).any(axis=2)
        assert changed.sum() > 1000
        assert not changed[~inside].any()


def test_the_last_shape_reaches_each_side_of_its_box(scenes):
    """Nothing lies on it, so the pixels of a frame that the same frame without it lacks are its own."""
    scene = scenes[0]
    left, top, right, bottom = scene.boxes[-1]
    rows, columns = np.s_[int(top) - 3 : int(bottom) + 4], np.s_[int(left) - 3 : int(right) + 4]
    patch = scene.image[rows, columns].astype(int)
    colour = np.median(patch[np.abs(patch - patch[0, 0]).sum(axis=2) > 100], axis=0)
    own = np.argwhere(np.abs(patch - colour).sum(axis=2) < 60)
    found = np.concatenate([own.min(0), own.max(0) + 1])[[1, 0, 3, 2]] + np.tile([int(left) - 3, int(top) - 3], 2)
    assert np.abs(found - scene.boxes[-1]).max() < 3


def test_the_file_holds_the_frames_at_25_a_second(tmp_path, capsys):
    path = tmp_path / "new" / "shapes.mp4"
    assert main(["shapes", "--video", str(path), "--seconds", "2", "--seed", str(SEED)]) == 0
    assert capsys.readouterr().err == f"{path}: 50 frames of 6 shapes\n"
    for index, ((time, image), scene) in enumerate(zip(decoded(path), moving_shapes(SEED, 50), strict=True)):
        assert time == Fraction(index, 25)
        assert np.abs(image.astype(int) - scene.image).mean() < 6  # what the codec costs


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--output", "folder"],
        ["--images", "3"],
        ["--output", "folder", "--video", "a.mp4"],
        ["--video", "a.mp4", "--seconds", "0"],
    ],
)
def test_wrong_usage_is_told(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["shapes", *arguments])
    assert caught.value.code == 2
    said = "--seconds: expected a whole number" if "--seconds" in arguments else "(--output DIR --images N) or a video"
    assert said in capsys.readouterr().err


def test_a_name_that_is_no_mp4_and_a_missing_pyav_are_errors_of_one_line(tmp_path, capsys, monkeypatch):
    assert main(["shapes", "--video", str(tmp_path / "a.avi")]) == 1
    assert capsys.readouterr().err.endswith("choose a name that ends in .mp4\n")
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["shapes", "--video", str(tmp_path / "a.mp4")]) == 1
    assert capsys.readouterr().err.startswith("error: videos need PyAV, which is not installed; pip install ")
    assert list(tmp_path.iterdir()) == []
