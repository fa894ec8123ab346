from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from cornernet_runtime.detections import Candidates, Detections
from cornernet_runtime.errors import CornerNetError

FOUND = Detections(
    boxes=np.array([[1, 2, 11, 22], [0.5, 0.25, 100, 50], [7, 8, 7, 8]], np.float32),
    scores=np.array([0.9, 0.3, 0.125], np.float32),
    labels=np.array([2, 0, 2]),
    class_names=("ant", "bee", "cat"),
)
NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), ("ant",))


@pytest.mark.parametrize(
    ("score", "count"), [(0.0, 3), (0.125, 3), (0.126, 2), (0.3, 2), (0.31, 1), (0.9, 1), (0.91, 0), (1.0, 0)]
)
def test_above_keeps_those_of_at_least_the_score(score, count):
    # 0.3 and 0.9 are no float32; a score that came from the same decimal counts as reaching it.
    kept = FOUND.above(score)
    assert len(kept) == count
    assert np.array_equal(kept.boxes, FOUND.boxes[:count])
    assert np.array_equal(kept.scores, FOUND.scores[:count])
    assert np.array_equal(kept.labels, FOUND.labels[:count])
    assert kept.class_names == FOUND.class_names


def test_above_leaves_the_original_alone():
    FOUND.above(0.5)
    assert len(FOUND) == 3


def test_iteration_gives_box_score_and_name():
    rows = [(box.tolist(), score, name) for box, score, name in FOUND]
    assert rows == [
        ([1, 2, 11, 22], float(np.float32(0.9)), "cat"),
        ([0.5, 0.25, 100, 50], float(np.float32(0.3)), "ant"),
        ([7, 8, 7, 8], 0.125, "cat"),
    ]
    assert all(type(score) is float for _, score, _ in FOUND)


def test_to_coco_gives_corner_and_size_under_the_given_ids():
    rows = FOUND.to_coco(image_id=42, category_ids=[10, 20, 90])
    assert rows == [
        {"image_id": 42, "category_id": 90, "bbox": [1, 2, 10, 20], "score": float(np.float32(0.9))},
        {"image_id": 42, "category_id": 10, "bbox": [0.5, 0.25, 99.5, 49.75], "score": float(np.float32(0.3))},
        {"image_id": 42, "category_id": 90, "bbox": [7, 8, 0, 0], "score": 0.125},
    ]


def test_to_coco_can_be_written_as_json():
    rows = FOUND.to_coco(1, [1, 2, 3])
    assert json.loads(json.dumps(rows)) == rows


def test_to_coco_leaves_the_boxes_alone():
    before = FOUND.boxes.copy()
    FOUND.to_coco(1, [1, 2, 3])
    assert np.array_equal(FOUND.boxes, before)


def test_nothing_found_stays_nothing():
    assert len(NOTHING) == 0
    assert list(NOTHING) == []
    assert NOTHING.to_coco(1, [1]) == []
    assert NOTHING.above(0.0).boxes.shape == (0, 4)


# Candidates of several views.


def candidates(*rows):
    """Candidates of which each number tells its row and column."""
    table = np.array([[10 * row + column for column in range(8)] for row in rows], np.float32).reshape(-1, 8)
    return Candidates(table[:, :4], table[:, 4], table[:, 5], table[:, 6], table[:, 7].astype(np.int64))


def rows_of(found):
    columns = (found.boxes, found.scores[:, None], found.tl_scores[:, None], found.br_scores[:, None])
    return np.concatenate([*columns, found.labels[:, None]], axis=1).tolist()


def test_candidates_are_joined_one_view_after_the_other():
    joined = Candidates.joined([candidates(3, 1), candidates(), candidates(2)])
    assert rows_of(joined) == [[10.0 * row + column for column in range(8)] for row in (3, 1, 2)]


@pytest.mark.parametrize("parts", [[()], [(), ()]])
def test_views_without_candidates_join_to_none(parts):
    joined = Candidates.joined([candidates(*rows) for rows in parts])
    assert len(joined) == 0
    assert joined.boxes.shape == (0, 4)


def test_joined_candidates_keep_their_types():
    joined = Candidates.joined([candidates(1), candidates(2)])
    columns = (joined.boxes, joined.scores, joined.tl_scores, joined.br_scores)
    assert [column.dtype for column in columns] == [np.float32] * 4
    assert joined.labels.dtype == np.int64


def test_a_mask_chooses_candidates():
    chosen = candidates(0, 1, 2, 3)[np.array([False, True, False, True])]
    assert rows_of(chosen) == [[10.0 * row + column for column in range(8)] for row in (1, 3)]


def test_to_supervision_has_the_same_objects_and_their_names():
    supervision = pytest.importorskip("supervision")
    found = FOUND.to_supervision()
    assert isinstance(found, supervision.Detections)
    assert np.array_equal(found.xyxy, FOUND.boxes)
    assert np.array_equal(found.confidence, FOUND.scores)
    assert np.array_equal(found.class_id, FOUND.labels)
    assert found.data["class_name"].tolist() == ["cat", "ant", "cat"]
    (best,) = found[found.confidence > 0.5]  # its own way of choosing: box, mask, score, class, track, data
    assert (best[0].tolist(), best[3], best[5]["class_name"]) == ([1, 2, 11, 22], 2, "cat")


def test_to_supervision_of_nothing_is_empty_and_can_be_merged():
    supervision = pytest.importorskip("supervision")
    nothing = NOTHING.to_supervision()
    assert nothing.is_empty()
    assert (nothing.xyxy.shape, len(nothing.data["class_name"])) == ((0, 4), 0)
    assert len(supervision.Detections.merge([nothing, FOUND.to_supervision()])) == 3


def test_to_supervision_without_the_package_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)  # what Python takes as: cannot be imported
    with pytest.raises(CornerNetError, match=r'not installed; pip install "supervision>=0\.30"'):
        FOUND.to_supervision()
