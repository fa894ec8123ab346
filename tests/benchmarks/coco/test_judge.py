"""Sets of pictures drawn anew, against pycocotools on a data set in which pictures really stand several times."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from cases.oracle import SIDE, write_set

from cornernet_bench.coco.dataset import read_coco
from cornernet_bench.coco.judge import judge
from cornernet_runtime.detections import Detections

IDS = [7, 3]
PICTURES = 12
EXACT = 1e-9  # points: the same sums in another order


def detections(rng, objects):
    """Find most objects, not exactly, and some things that are none."""
    boxes = [np.array(box) * SIDE / 64 + rng.normal(0, 4, 4) for box, _ in objects if rng.random() < 0.8]
    labels = [label for _, label in objects][: len(boxes)]
    for _ in range(rng.integers(0, 4)):
        corner = rng.uniform(0, 150, 2)
        boxes.append(np.concatenate([corner, corner + rng.uniform(20, 90, 2)]))
        labels.append(int(rng.integers(2)))
    scores = -np.sort(-rng.choice([0.25, 0.5, 0.75, 0.9], len(boxes)))  # with ties
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.float32(scores), np.array(labels, int), ("a", "b"))


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    rng = np.random.default_rng(5)
    truth = {}
    for number in range(1, PICTURES + 1):
        corners = rng.uniform(2, 30, (rng.integers(0, 5), 2))
        truth[number] = [([*corner, *(corner + rng.uniform(6, 30, 2))], int(rng.integers(2))) for corner in corners]
    data = read_coco(*write_set(tmp_path_factory.mktemp("judge"), truth))
    return data.truth, [detections(rng, objects) for objects in truth.values()]


def test_every_picture_once_is_the_verdict_itself(case):
    truth, found = case
    verdict = judge(truth, range(1, PICTURES + 1), found, IDS, by_area=True)
    assert 10 < verdict.ap < 90
    assert verdict.resampled(np.ones((1, PICTURES), int)) == pytest.approx([verdict.ap], abs=EXACT)


def test_pictures_that_come_several_times_or_never_count_so(case):
    truth, found = case
    weights = np.random.default_rng(2).multinomial(PICTURES, [1 / PICTURES] * PICTURES, 6)
    expected = []
    for row in weights:
        repeated, again = copy.deepcopy(truth), []
        repeated.dataset["images"], repeated.dataset["annotations"] = [], []
        for picture in np.repeat(np.arange(PICTURES), row):
            # Copies stand side by side, as pycocotools breaks ties of scores by the order of the pictures.
            number = len(repeated.dataset["images"]) + 1
            repeated.dataset["images"].append({"id": number})
            for one in truth.imgToAnns[int(picture) + 1]:
                key = len(repeated.dataset["annotations"]) + 1
                repeated.dataset["annotations"].append(one | {"image_id": number, "id": key})
            again.append(found[picture])
        repeated.createIndex()
        expected.append(judge(repeated, range(1, len(again) + 1), again, IDS).ap)
    verdict = judge(truth, range(1, PICTURES + 1), found, IDS)
    # A copy's equal scores may come before or after it: within such ties precision is cut at other places.
    assert verdict.resampled(weights) == pytest.approx(expected, abs=0.7)
    assert np.ptp(expected) > 5


def test_areas_are_told_only_where_they_are_asked_for(case):
    truth, found = case
    whole = judge(truth, range(1, PICTURES + 1), found, IDS, by_area=True).metrics
    assert list(whole) == ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
    short = judge(truth, range(1, PICTURES + 1), found, IDS).metrics
    assert short == {name: whole[name] for name in ("ap", "ap50", "ap75")}


def test_pictures_that_are_left_out_do_not_count(case):
    truth, found = case
    kept = [number for number in range(1, PICTURES + 1) if truth.imgToAnns[number]][::2]
    some = judge(truth, kept, [found[number - 1] for number in kept], IDS)
    weights = np.isin(np.arange(1, PICTURES + 1), kept).astype(int)[None]
    whole = judge(truth, range(1, PICTURES + 1), found, IDS)
    assert 5 < some.ap != whole.ap
    assert some.ap == pytest.approx(whole.resampled(weights)[0], abs=EXACT)


def test_nothing_found_is_0_and_nothing_to_find_has_no_value(case):
    truth, found = case
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int), ("a", "b"))
    verdict = judge(truth, range(1, PICTURES + 1), [empty] * PICTURES, IDS)
    assert verdict.ap == 0
    assert verdict.resampled(np.ones((1, PICTURES), int)) == [0]
    bare = [number for number in range(1, PICTURES + 1) if not truth.imgToAnns[number]][:1]
    assert bare, "a picture without objects is needed"
    nothing = judge(truth, bare, [found[bare[0] - 1]], IDS)
    assert math.isnan(nothing.ap)
    assert np.isnan(nothing.resampled(np.ones((1, 1), int))).all()
