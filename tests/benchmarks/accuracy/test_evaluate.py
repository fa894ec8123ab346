"""Average precision of planted detections, against values that COCO's definition gives by hand.

COCO averages the precision at 101 recalls, 0 to 1 in hundredths, and that over ten thresholds of IoU, 0.5 to 0.95.
Objects are small below 32 x 32 pixels and large from 96 x 96 on.
"""

from __future__ import annotations

import json
import math
import time

import cv2
import numpy as np
import pytest
from cases.small import SMALL_SPEC
from matplotlib.figure import Figure

from cornernet_bench.accuracy.curves import draw_curves
from cornernet_bench.accuracy.evaluate import METRICS, evaluate
from cornernet_bench.coco.judge import RECALLS
from cornernet_runtime.detections import Detections
from cornernet_runtime.errors import FrameError, OutputError

NAMES = ("ant", "bee")
CATEGORIES = [{"id": 3, "name": "ant"}, {"id": 8, "name": "bee"}]
HAND = 1e-6  # points; sums of exact fractions in float64, save an epsilon of pycocotools' own in its divisions


class PlantedDetector:
    """Finds in a picture what was planted for it; a picture's grey level says which it is."""

    def __init__(self, planted, class_names=NAMES):
        self.planted, self.class_names = planted, class_names
        self.spec, self.scales = SMALL_SPEC, (1.0,)
        self.seen = []

    def __call__(self, frame):
        number = int(frame[0, 0, 0])
        self.seen.append((number, frame.shape, frame.dtype))
        rows = sorted(self.planted.get(number, []), key=lambda row: -row[1])
        return Detections(
            np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in rows], np.float32),
            np.array([label for _, _, label in rows], np.int64),
            self.class_names,
        )


@pytest.fixture
def judged(tmp_path):
    """Return a function that writes a data set and evaluates a detector on it.

    ``truth`` holds, per picture, (box, class name); ``planted`` (box, score, label). Boxes are x1 y1 x2 y2.
    """

    def run(truth, planted, class_names=NAMES, categories=CATEGORIES, *, whole=False, **more):
        ids = {category["name"]: category["id"] for category in categories}
        write_set(tmp_path, truth, ids, categories)
        detector = PlantedDetector(planted, class_names)
        accuracy = evaluate(detector, tmp_path / "a.json", tmp_path / "images", **more)
        return accuracy if whole else accuracy.metrics

    return run


def write_set(folder, truth, ids, categories):
    (folder / "images").mkdir(exist_ok=True)
    content = {"images": [], "annotations": [], "categories": categories}
    for number, objects in truth.items():
        cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((200, 300, 3), number, np.uint8))
        content["images"].append({"id": 100 - number, "file_name": f"{number}.png", "height": 200, "width": 300})
        for (x1, y1, x2, y2), name in objects:
            row = {"id": len(content["annotations"]) + 1, "image_id": 100 - number, "category_id": ids[name]}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
            content["annotations"].append(row)
    (folder / "a.json").write_text(json.dumps(content))


SMALL, MEDIUM, LARGE = [10, 10, 30, 30], [40, 10, 90, 80], [100, 20, 260, 190]


# Values.


def test_everything_found_exactly_is_100_points(judged):
    truth = {1: [(SMALL, "ant"), (MEDIUM, "bee")], 2: [(LARGE, "ant")], 3: []}
    metrics = judged(truth, {1: [(SMALL, 0.9, 0), (MEDIUM, 0.8, 1)], 2: [(LARGE, 0.7, 0)]})
    assert tuple(metrics) == METRICS
    assert metrics == {name: pytest.approx(100, abs=HAND) for name in METRICS}


def test_all_twelve_names_are_those_that_pycocotools_prints():
    areas = ("small", "medium", "large")
    names = ["ap", "ap50", "ap75", *(f"ap_{area}" for area in areas)]
    assert [*names, "ar1", "ar10", "ar100", *(f"ar_{area}" for area in areas)] == list(METRICS)


def test_one_of_two_objects_found_has_precision_1_at_51_of_101_recalls(judged):
    metrics = judged({1: [(MEDIUM, "ant"), (LARGE, "ant")]}, {1: [(MEDIUM, 0.9, 0)]})
    for name in ("ap", "ap50", "ap75"):
        assert metrics[name] == pytest.approx(100 * 51 / 101, abs=HAND)
    for name in ("ar1", "ar10", "ar100"):
        assert metrics[name] == pytest.approx(50, abs=HAND)
    assert metrics["ap_medium"] == pytest.approx(100, abs=HAND)
    assert metrics["ar_large"] == metrics["ap_large"] == 0


def test_a_better_scored_false_detection_halves_the_precision(judged):
    metrics = judged({1: [(MEDIUM, "ant")]}, {1: [([200, 100, 290, 190], 0.9, 0), (MEDIUM, 0.8, 0)]})
    assert metrics["ap"] == pytest.approx(50, abs=HAND)
    assert metrics["ar1"] == 0  # one detection a picture: the false one
    assert metrics["ar10"] == pytest.approx(100, abs=HAND)


def test_a_worse_scored_false_detection_costs_nothing(judged):
    metrics = judged({1: [(MEDIUM, "ant")]}, {1: [([200, 100, 290, 190], 0.7, 0), (MEDIUM, 0.8, 0)]})
    assert metrics["ap"] == pytest.approx(100, abs=HAND)


def test_scores_rank_detections_across_pictures(judged):
    truth = {1: [(MEDIUM, "ant")], 2: [(MEDIUM, "ant")]}
    # Right, wrong, right: precision 1 up to a recall of a half, then 2/3.
    metrics = judged(truth, {1: [(MEDIUM, 0.9, 0), (LARGE, 0.6, 0)], 2: [(MEDIUM, 0.3, 0)]})
    assert metrics["ap"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101, abs=HAND)


def test_an_iou_of_0_72_counts_at_five_of_ten_thresholds(judged):
    metrics = judged({1: [([100, 50, 200, 150], "ant")]}, {1: [([100, 50, 172, 150], 0.9, 0)]})
    assert metrics["ap"] == pytest.approx(50, abs=HAND)
    assert metrics["ap50"] == pytest.approx(100, abs=HAND)
    assert metrics["ap75"] == 0


def test_classes_are_averaged(judged):
    truth = {1: [(MEDIUM, "ant"), (LARGE, "ant"), (SMALL, "bee")]}
    metrics = judged(truth, {1: [(MEDIUM, 0.9, 0), (SMALL, 0.8, 1)]})
    assert metrics["ap"] == pytest.approx((100 * 51 / 101 + 100) / 2, abs=HAND)


def test_detections_count_whatever_their_score(judged):
    assert judged({1: [(MEDIUM, "ant")]}, {1: [(MEDIUM, 0.001, 0)]})["ap"] == pytest.approx(100, abs=HAND)


def test_a_second_detection_of_one_object_is_false(judged):
    truth = {1: [(MEDIUM, "ant")], 2: [(MEDIUM, "ant")]}
    metrics = judged(truth, {1: [(MEDIUM, 0.9, 0), (MEDIUM, 0.8, 0)], 2: [(MEDIUM, 0.7, 0)]})
    assert metrics["ap"] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101, abs=HAND)


def test_a_right_box_of_the_wrong_class_is_nothing_found(judged):
    metrics = judged({1: [(MEDIUM, "ant")]}, {1: [(MEDIUM, 0.9, 1)]})
    assert (metrics["ap"], metrics["ar100"]) == (0, 0)


def test_nothing_detected_is_0_points(judged):
    metrics = judged({1: [(SMALL, "ant"), (MEDIUM, "bee"), (LARGE, "ant")]}, {})
    assert metrics == dict.fromkeys(METRICS, 0.0)


def test_sizes_without_objects_have_no_value(judged):
    metrics = judged({1: [(MEDIUM, "ant")]}, {1: [(MEDIUM, 0.9, 0)]})
    absent = {"ap_small", "ap_large", "ar_small", "ar_large"}
    assert {name for name, value in metrics.items() if math.isnan(value)} == absent
    assert [metrics[name] for name in METRICS if name not in absent] == pytest.approx([100] * 8, abs=HAND)


def test_sizes_without_objects_have_no_value_when_nothing_is_detected(judged):
    metrics = judged({1: [(MEDIUM, "ant")]}, {})
    assert {name for name, value in metrics.items() if math.isnan(value)} == {
        "ap_small",
        "ap_large",
        "ar_small",
        "ar_large",
    }
    assert metrics["ap"] == 0


def test_a_set_without_objects_has_no_value(judged):
    assert all(math.isnan(value) for value in judged({1: []}, {1: [(MEDIUM, 0.9, 0)]}).values())


# Names, order, progress.


def test_classes_meet_categories_by_name_in_whatever_order(judged):
    truth = {1: [(SMALL, "ant"), (MEDIUM, "bee"), (LARGE, "cat")]}
    categories = [{"id": 40, "name": "cat"}, {"id": 7, "name": "bee"}, {"id": 12, "name": "ant"}]
    planted = {1: [(SMALL, 0.9, 2), (MEDIUM, 0.8, 1), (LARGE, 0.7, 0)]}
    right = judged(truth, planted, class_names=("cat", "bee", "ant"), categories=categories)
    assert right["ap"] == pytest.approx(100, abs=HAND)
    wrong = judged(truth, planted, class_names=("ant", "bee", "cat"), categories=categories)
    assert wrong["ap"] == pytest.approx(100 / 3, abs=HAND)


def test_a_category_that_the_model_lacks_counts_as_not_found(judged):
    truth = {1: [(SMALL, "ant"), (MEDIUM, "bee")]}
    metrics = judged(truth, {1: [(SMALL, 0.9, 0)]}, class_names=("ant",))
    assert metrics["ap"] == pytest.approx(50, abs=HAND)


def test_a_class_that_is_no_category_is_an_error_that_names_both_sides(judged, tmp_path):
    with pytest.raises(FrameError) as caught:
        judged({1: [(SMALL, "ant")]}, {}, class_names=("ant", "wasp", "moth"))
    expected = f"{tmp_path / 'a.json'}: no category is named wasp, moth; it has ['ant', 'bee']"
    assert str(caught.value) == expected


def test_every_picture_is_shown_once_as_it_is_in_the_order_of_the_file(tmp_path):
    write_set(tmp_path, {5: [], 2: [(SMALL, "ant")], 9: []}, {"ant": 3}, CATEGORIES)
    detector = PlantedDetector({})
    evaluate(detector, tmp_path / "a.json", tmp_path / "images")
    assert detector.seen == [(number, (200, 300, 3), np.uint8) for number in (5, 2, 9)]


def test_progress_is_told_every_picture(judged):
    told = []

    def track(ids):
        told.append(list(ids))
        return ids

    judged({5: [], 2: [(SMALL, "ant")]}, {}, track=track)
    assert told == [[95, 98]]


def test_nothing_is_printed(judged, capfd):
    judged({1: [(MEDIUM, "ant")]}, {1: [(MEDIUM, 0.9, 0)]})
    assert capfd.readouterr() == ("", "")


# Data sets that cannot be used.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "cannot be read as COCO annotations (JSONDecodeError: "),
        ("{", "cannot be read as COCO annotations (JSONDecodeError: "),
        ("[]", "not COCO annotations: expected a list of objects under 'images'"),
        ("7", "not COCO annotations: expected a list of objects under 'images'"),
        (b"\xff\xfe", "cannot be read as COCO annotations (UnicodeDecodeError: "),
    ],
)
def test_annotations_that_are_none_are_an_error_that_names_the_file(tmp_path, content, said):
    (tmp_path / "a.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FrameError) as caught:
        evaluate(PlantedDetector({}), tmp_path / "a.json", tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'a.json'}: {said}")


def test_missing_annotations_are_an_error_that_names_the_file(tmp_path):
    with pytest.raises(FrameError) as caught:
        evaluate(PlantedDetector({}), tmp_path / "a.json", tmp_path)
    assert str(caught.value) == f"{tmp_path / 'a.json'}: cannot be read as COCO annotations (No such file or directory)"


@pytest.mark.parametrize("missing", ["categories", "images", "annotations", "file_name"])
def test_annotations_that_lack_a_part_are_an_error(tmp_path, missing):
    write_set(tmp_path, {1: [(SMALL, "ant")]}, {"ant": 3}, CATEGORIES)
    content = json.loads((tmp_path / "a.json").read_text())
    (content["images"][0] if missing == "file_name" else content).pop(missing)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(FrameError, match=r"a\.json"):
        evaluate(PlantedDetector({1: [(SMALL, 0.9, 0)]}), tmp_path / "a.json", tmp_path / "images")


@pytest.mark.parametrize("missing", ["area", "iscrowd"])
def test_annotations_without_area_or_iscrowd_are_taken_as_plain_boxes(tmp_path, missing):
    write_set(tmp_path, {1: [(SMALL, "ant")]}, {"ant": 3}, CATEGORIES)
    content = json.loads((tmp_path / "a.json").read_text())
    del content["annotations"][0][missing]
    (tmp_path / "a.json").write_text(json.dumps(content))
    metrics = evaluate(PlantedDetector({1: [(SMALL, 0.9, 0)]}), tmp_path / "a.json", tmp_path / "images").metrics
    assert metrics["ap_small"] == pytest.approx(100, abs=HAND)


def test_a_missing_picture_is_an_error_that_names_it(tmp_path):
    write_set(tmp_path, {1: [], 2: []}, {}, CATEGORIES)
    (tmp_path / "images" / "2.png").unlink()
    with pytest.raises(FrameError) as caught:
        evaluate(PlantedDetector({}), tmp_path / "a.json", tmp_path / "images")
    assert str(caught.value) == f"{tmp_path / 'images'}: 1 of the 2 pictures of a.json are not there: 2.png"


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_picture_that_cannot_be_decoded_is_an_error_that_names_it(tmp_path, content):
    write_set(tmp_path, {1: []}, {}, CATEGORIES)
    (tmp_path / "images" / "1.png").write_bytes(content)
    with pytest.raises(FrameError) as caught:
        evaluate(PlantedDetector({}), tmp_path / "a.json", tmp_path / "images")
    assert str(caught.value).startswith(f"{tmp_path / 'images' / '1.png'}: cannot be decoded")


# Classes, curves, time.


def test_each_class_has_its_ap_whatever_the_order_of_the_categories(judged):
    truth = {1: [(MEDIUM, "ant"), (LARGE, "ant"), (SMALL, "bee")]}
    planted = {1: [(MEDIUM, 0.9, 1), (SMALL, 0.8, 0)]}
    accuracy = judged(truth, planted, class_names=("bee", "ant"), whole=True)
    assert accuracy.per_class == {"bee": pytest.approx(100, abs=HAND), "ant": pytest.approx(100 * 51 / 101, abs=HAND)}
    assert np.mean(list(accuracy.per_class.values())) == pytest.approx(accuracy.metrics["ap"], abs=HAND)


def test_a_class_without_objects_has_no_ap(judged):
    accuracy = judged({1: [(MEDIUM, "ant")]}, {1: [(MEDIUM, 0.9, 0)]}, whole=True)
    assert accuracy.per_class["ant"] == pytest.approx(100, abs=HAND)
    assert math.isnan(accuracy.per_class["bee"])


def test_curves_are_the_precision_at_each_recall(judged):
    truth = {1: [(MEDIUM, "ant")], 2: [(MEDIUM, "ant")]}
    # Right, wrong, right: precision 1 up to a recall of a half, then 2/3. The boxes are exact, so at every overlap.
    planted = {1: [(MEDIUM, 0.9, 0), (LARGE, 0.6, 0)], 2: [(MEDIUM, 0.3, 0)]}
    accuracy = judged(truth, planted, whole=True)
    assert list(accuracy.curves) == ["0.50", "0.75", "0.50 to 0.95"]
    for precision in accuracy.curves.values():
        assert precision == pytest.approx(np.where(RECALLS <= 0.5, 1, 2 / 3), abs=HAND)


def test_curves_differ_by_the_overlap_that_counts(judged):
    accuracy = judged({1: [([100, 50, 200, 150], "ant")]}, {1: [([100, 50, 172, 150], 0.9, 0)]}, whole=True)
    means = {name: float(precision.mean()) for name, precision in accuracy.curves.items()}
    assert means == {"0.50": pytest.approx(1), "0.75": 0, "0.50 to 0.95": pytest.approx(0.5)}


def test_pictures_are_counted_and_timed(judged):
    accuracy = judged({1: [(MEDIUM, "ant")], 2: []}, {}, whole=True)
    assert accuracy.pictures == 2
    assert accuracy.detect_ms > 0


def test_the_time_of_a_picture_is_the_mean_in_milliseconds(tmp_path, monkeypatch):
    write_set(tmp_path, {1: [(MEDIUM, "ant")], 2: []}, {"ant": 3}, CATEGORIES)
    clock = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    class Slow(PlantedDetector):
        def __call__(self, frame):
            clock[0] += 0.02 * int(frame[0, 0, 0])
            return super().__call__(frame)

    # 20 ms and 40 ms.
    found = evaluate(Slow({}), tmp_path / "a.json", tmp_path / "images").detect_ms
    assert found == pytest.approx(30, rel=1e-9)


def drawn(accuracy, monkeypatch, tmp_path):
    """Return the two axes of the picture."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    draw_curves(accuracy, "a title", tmp_path / "curves.png")
    return figures[0].axes


def test_the_lines_drawn_are_precision_over_recall(judged, monkeypatch, tmp_path):
    truth = {1: [(MEDIUM, "ant"), ([100, 50, 200, 150], "ant")]}
    accuracy = judged(truth, {1: [(MEDIUM, 0.9, 0), ([100, 50, 172, 150], 0.8, 0)]}, whole=True)
    left, _ = drawn(accuracy, monkeypatch, tmp_path)
    assert [line.get_label() for line in left.lines] == ["IoU 0.50", "IoU 0.75", "IoU 0.50 to 0.95"]
    # At an IoU of 0.5 both are found, at 0.75 the first, and the second at half of the ten overlaps.
    for line, beyond in zip(left.lines, (1, 0, 0.5), strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.arange(101) / 100, atol=1e-12)
        np.testing.assert_allclose(line.get_ydata(), np.where(np.arange(101) <= 50, 1, beyond), atol=1e-9)
    assert (left.get_xlabel(), left.get_ylabel()) == ("recall", "precision")


def test_the_bars_drawn_are_ap_of_each_class(judged, monkeypatch, tmp_path):
    categories = [*CATEGORIES, {"id": 9, "name": "cat"}]
    truth = {1: [(MEDIUM, "ant"), (LARGE, "ant"), (SMALL, "bee")]}
    planted = {1: [(MEDIUM, 0.9, 0), (SMALL, 0.8, 1)]}
    accuracy = judged(truth, planted, class_names=("ant", "bee", "cat"), categories=categories, whole=True)
    _, right = drawn(accuracy, monkeypatch, tmp_path)
    assert [bar.get_width() for bar in right.patches] == pytest.approx([100 * 51 / 101, 100, 0], abs=HAND)
    assert [label.get_text() for label in right.get_yticklabels()] == ["ant", "bee", "cat"]
    assert [text.get_text() for text in right.texts] == ["50.5", "100.0", "-"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_curves_are_drawn(judged, tmp_path, suffix):
    accuracy = judged({1: [(MEDIUM, "ant")]}, {1: [(MEDIUM, 0.9, 0)]}, whole=True)
    draw_curves(accuracy, "a title", tmp_path / f"curves.{suffix}")
    content = (tmp_path / f"curves.{suffix}").read_bytes()
    if suffix == "png":
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (540, 1320, 3)
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    else:
        assert b"<svg" in content


def test_a_format_that_cannot_be_drawn_is_named(judged, tmp_path):
    accuracy = judged({1: [(MEDIUM, "ant")]}, {}, whole=True)
    with pytest.raises(OutputError, match=r"curves\.txt: cannot be drawn"):
        draw_curves(accuracy, "a title", tmp_path / "curves.txt")
