"""``cornernet-bench accuracy`` on a checkpoint and its bundle, from the command line to the JSON file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from places import SHIPPED
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cornernet_bench.accuracy import evaluate as judging
from cornernet_bench.accuracy.evaluate import METRICS
from cornernet_bench.cli import main
from cornernet_bench.models.open import open_model
from cornernet_runtime.cli.detect import main as detect
from cornernet_runtime.errors import BackendError, BundleError, CheckpointError
from cornernet_runtime.pictures import read_picture
from cornernet_train.shapes import make_scene
from cornernet_train.shapes_dataset import write_shapes

PICTURES = 6


@pytest.fixture(scope="module")
def data_set(checkpoint_path, tmp_path_factory):
    """Scenes whose annotations are what the checkpoint finds in them, moved by some pixels.

    The network's weights are random, so only what it finds itself can serve as truth; the moves make that worth some
    tens of points, where a difference between two runs of the network would show.
    """
    folder = tmp_path_factory.mktemp("accuracy")
    (folder / "images").mkdir()
    rng = np.random.default_rng(1)
    with open_model(checkpoint_path) as detector:
        names = detector.class_names
        content = {"images": [], "annotations": [], "categories": []}
        # In another order than the model's.
        content["categories"] = [{"id": 10 * (3 - index), "name": name} for index, name in enumerate(names)]
        for number in range(PICTURES):
            image = make_scene(2, number).image
            cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
            height, width = image.shape[:2]
            content["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
            detections = detector(image)
            for row in rng.choice(len(detections), 12, replace=False):
                x1, y1, x2, y2 = detections.boxes[row].tolist()
                w, h = (side * rng.uniform(0.8, 1) for side in (x2 - x1, y2 - y1))
                box = {"bbox": [x1, y1, w, h], "area": w * h, "iscrowd": 0}
                label = {"category_id": 10 * (3 - int(detections.labels[row]))}
                content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": number} | label | box)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def accuracy(model, folder, *more):
    paths = ["--annotations", str(folder / "annotations.json"), "--images", str(folder / "images")]
    return main(["accuracy", str(model), *paths, *map(str, more)])


@pytest.fixture(scope="module")
def reports(checkpoint_path, bundle_path, data_set, tmp_path_factory):
    """What --json wrote for the checkpoint, the bundle and the bundle's ONNX file."""
    folder = tmp_path_factory.mktemp("reports")
    models = {"checkpoint": checkpoint_path, "bundle": bundle_path, "onnx": bundle_path / "model.onnx"}
    for name, model in models.items():
        assert accuracy(model, data_set, "--json", folder / f"{name}.json") == 0
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in models}


# Results.


def test_the_report_names_the_model_and_what_ran_it(reports, checkpoint_path, bundle_path):
    said = {name: (report["model"], report["backend"]) for name, report in reports.items()}
    assert said == {
        "checkpoint": (str(checkpoint_path), "torch"),
        "bundle": (str(bundle_path), "onnxruntime"),
        "onnx": (str(bundle_path / "model.onnx"), "onnxruntime"),
    }


@pytest.mark.parametrize("name", ["checkpoint", "bundle", "onnx"])
def test_the_report_has_twelve_numbers_in_points(reports, name):
    head = ["model", "backend", "geometry", "sizes", "flip", "scales", "complete", "pictures", "listed", "objects"]
    assert list(reports[name]) == [*head, "scaled_down", "detect_ms", *METRICS, "per_class"]
    # Twelve are planted on each picture.
    assert (reports[name]["pictures"], reports[name]["objects"]) == (PICTURES, 12 * PICTURES)
    assert (reports[name]["complete"], reports[name]["listed"]) == (True, PICTURES)
    assert list(reports[name]["per_class"]) == ["ant", "bee", "cat"]
    numbers = [reports[name][metric] for metric in METRICS]
    assert all(0 <= number <= 100 for number in numbers if number is not None)
    # As shares of 1 these would be less than 1.
    assert reports[name]["ap50"] > 5
    assert reports[name]["ap50"] >= reports[name]["ap"]
    assert reports[name]["ar100"] >= reports[name]["ar10"] >= reports[name]["ar1"]


def test_the_bundle_is_as_good_as_its_checkpoint_to_a_tenth_of_a_point(reports):
    for metric in METRICS:
        found, expected = reports["bundle"][metric], reports["checkpoint"][metric]
        if expected is None:
            assert found is None
        else:
            assert found == pytest.approx(expected, abs=0.1), metric
    assert reports["onnx"]["ap"] == reports["bundle"]["ap"]


def test_a_size_without_objects_is_null(bundle_path, data_set, tmp_path):
    content = json.loads((data_set / "annotations.json").read_text())
    content["annotations"] = [row | {"area": 50 * 50} for row in content["annotations"]]
    shutil.copytree(data_set / "images", tmp_path / "images")
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    assert accuracy(bundle_path, tmp_path, "--json", tmp_path / "report.json") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    nulls = {metric for metric in METRICS if report[metric] is None}
    assert nulls == {"ap_small", "ap_large", "ar_small", "ar_large"}


def test_the_table_goes_to_standard_output(bundle_path, data_set, reports, capfd):
    assert accuracy(bundle_path, data_set) == 0
    said = capfd.readouterr()
    assert said.err == ""
    table = dict(line.split()[:2] for line in said.out.splitlines() if line.strip().startswith(("ap", "ar")))
    numbers = {metric: reports["bundle"][metric] for metric in METRICS}
    assert table == {name: "-" if value is None else f"{value:.2f}" for name, value in numbers.items()}
    assert said.out.startswith(f"{bundle_path.name} in onnxruntime, 63x95: 6 pictures, 72 objects, about ")
    headings = next(line.split() for line in said.out.splitlines() if "metric" in line and "class" in line)
    assert headings == ["metric", "value", "class", "AP"]


def test_what_looks_wrong_with_the_set_is_said_once_for_all_models(bundle_path, data_set, tmp_path, capfd):
    content = json.loads((data_set / "annotations.json").read_text())
    content["categories"].append({"id": 99, "name": "dog"})
    content["annotations"].append({"id": 1, "image_id": 0, "category_id": 99, "bbox": [1, 1, 20, 20]})
    shutil.copytree(data_set / "images", tmp_path / "images")
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    paths = ["--annotations", str(path), "--images", f"{tmp_path}/images"]
    assert main(["accuracy", str(bundle_path), str(bundle_path), *paths]) == 0
    notes = [line for line in capfd.readouterr().out.splitlines() if line.startswith("note:")]
    assert notes == [f"note: {path}: 1 objects of dog, which the model does not know, count as not found"]


# Opening models.


def test_a_checkpoint_runs_in_torch(checkpoint_path):
    for backend in (None, "torch"):
        with open_model(checkpoint_path, backend) as detector:
            assert detector.backend.name == "torch"


def test_paths_may_be_texts(checkpoint_path, bundle_path):
    for path, name in ((checkpoint_path, "torch"), (bundle_path, "onnxruntime")):
        with open_model(str(path)) as detector:
            assert detector.backend.name == name


def test_a_checkpoint_runs_nowhere_else(checkpoint_path):
    with pytest.raises(BackendError, match="export it to run in onnxruntime"):
        open_model(checkpoint_path, "onnxruntime")


def test_torch_does_not_run_bundles(bundle_path):
    for backend in ("torch", "torch-fp16"):
        said = f"{bundle_path}: {backend} runs checkpoints (.safetensors, .pkl, .pth), and this is none"
        with pytest.raises(BackendError) as caught:
            open_model(bundle_path, backend)
        assert str(caught.value) == said


def test_what_is_no_model_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        open_model(tmp_path / "missing.safetensors")
    with pytest.raises(BundleError, match="does not exist"):
        open_model(tmp_path / "missing")


# Interrupts.


def interrupting_pictures(monkeypatch, number):
    """Make Ctrl-C come when the picture of this number is read."""
    calls = []

    def read(path):
        calls.append(path)
        if len(calls) == number:
            raise KeyboardInterrupt
        return read_picture(path)

    monkeypatch.setattr(judging, "read_picture", read)


def test_an_interrupt_keeps_what_was_seen_and_marks_it(bundle_path, data_set, tmp_path, capfd, monkeypatch):
    interrupting_pictures(monkeypatch, 3)
    assert accuracy(bundle_path, data_set, "--json", tmp_path / "a.json") == 130
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["complete"], report["pictures"], report["listed"], report["objects"]) == (False, 2, PICTURES, 24)
    said = capfd.readouterr().out
    assert said.endswith(
        f"interrupted: {bundle_path}: 2 of {PICTURES} pictures were seen, and its figures are of them alone\n"
    )
    content = json.loads((data_set / "annotations.json").read_text())
    ids = [image["id"] for image in content["images"][:2]]
    content["images"] = content["images"][:2]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in ids]
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(data_set / "images")
    assert accuracy(bundle_path, tmp_path, "--json", tmp_path / "two.json") == 0
    two = json.loads((tmp_path / "two.json").read_text())
    assert {name: report[name] for name in METRICS} == {name: two[name] for name in METRICS}


def test_models_that_an_interrupt_left_out_are_told(bundle_path, data_set, tmp_path, capfd, monkeypatch):
    interrupting_pictures(monkeypatch, PICTURES + 1)
    paths = ["--annotations", str(data_set / "annotations.json"), "--images", str(data_set / "images")]
    assert main(["accuracy", str(bundle_path), str(bundle_path), *paths, "--json", str(tmp_path / "a.json")]) == 130
    assert json.loads((tmp_path / "a.json").read_text())["complete"] is True
    assert f"interrupted: {bundle_path} and what follows was not measured" in capfd.readouterr().out


# Failures.


def one_error_line(capfd):
    said = capfd.readouterr()
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1, said.err
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_missing_model_is_status_1(tmp_path, data_set, capfd):
    assert accuracy(tmp_path / "missing", data_set) == 1
    assert str(tmp_path / "missing") in one_error_line(capfd)


def test_missing_annotations_are_status_1(bundle_path, tmp_path, capfd):
    assert accuracy(bundle_path, tmp_path) == 1
    assert str(tmp_path / "annotations.json") in one_error_line(capfd)


def test_a_backend_that_does_not_exist_is_status_1(bundle_path, data_set, capfd):
    assert accuracy(bundle_path, data_set, "--backend", "abacus") == 1
    assert "abacus" in one_error_line(capfd)


def test_classes_that_are_no_categories_are_status_1(bundle_path, tmp_path, capfd):
    images = [{"id": 1, "file_name": "none.png"}]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "bee"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "none.png"), np.zeros((9, 9, 3), np.uint8))
    assert accuracy(bundle_path, tmp_path) == 1
    assert "no category is named ant, cat; it has ['bee']" in one_error_line(capfd)


def test_a_missing_picture_is_status_1_and_no_report(bundle_path, data_set, tmp_path, capfd):
    shutil.copy(data_set / "annotations.json", tmp_path)
    assert accuracy(bundle_path, tmp_path, "--json", tmp_path / "report.json") == 1
    said = f"{tmp_path / 'images'}: 6 of the 6 pictures of annotations.json are not there: 0.png, 1.png, 2.png, ..."
    assert one_error_line(capfd) == f"error: {said}"
    assert not (tmp_path / "report.json").exists()


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_run(data_set, tmp_path, capfd):
    assert accuracy("no-model", data_set, "--json", tmp_path / "missing" / "report.json") == 1
    assert f"error: cannot write {tmp_path / 'missing' / 'report.json'}" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["accuracy"], ["accuracy", "m", "--images", "i"], ["accuracy", "m", "--annotations", "a"], ["x"]]
)
def test_wrong_usage_is_status_2(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_flip_and_scales_are_in_the_report_and_a_fixed_input_says_what_it_does(bundle_path, data_set, tmp_path, capfd):
    flags = ["--flip", "--scales", "0.5,1,2", "--json", tmp_path / "a.json", "--curves", tmp_path / "a.png"]
    assert accuracy(bundle_path, data_set, *flags) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["flip"], report["scales"]) == (True, [0.25, 0.5, 1.0])
    assert "scales 0.5, 1, 2 become 0.25, 0.5, 1 of what fills it" in capfd.readouterr().out
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("scales", ["", "0", "-1", "1,1", "nan", "inf", "11", "one", "1 2"])
def test_scales_that_are_none_are_wrong_usage(bundle_path, data_set, capfd, scales):
    with pytest.raises(SystemExit) as caught:
        accuracy(bundle_path, data_set, f"--scales={scales}")
    assert caught.value.code == 2
    assert "--scales: expected distinct numbers above 0" in capfd.readouterr().err


def test_several_models_stand_side_by_side(
    checkpoint_path, bundle_path, data_set, reports, tmp_path, capfd, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "120")  # else the names of the models are folded
    paths = ["--annotations", str(data_set / "annotations.json"), "--images", str(data_set / "images")]
    assert main(["accuracy", str(checkpoint_path), str(bundle_path), *paths, "--json", str(tmp_path / "a.json")]) == 0
    models = json.loads((tmp_path / "a.json").read_text())["models"]
    assert [report["backend"] for report in models] == ["torch", "onnxruntime"]
    assert [report["ap"] for report in models] == [reports["checkpoint"]["ap"], reports["bundle"]["ap"]]
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    heading = ["model", "ms", "AP", "AP50", "small", "medium", "large"]
    assert heading in lines
    row = next(line for line in lines if line[:3] == [bundle_path.name, "in", "onnxruntime,"])
    assert row[3] == "63x95"
    columns = dict(zip(heading[2:], row[5:], strict=True))
    for name, metric in (("AP", "ap"), ("AP50", "ap50"), ("large", "ap_large")):
        expected = models[1][metric]
        assert columns[name] == ("-" if expected is None else f"{expected:.2f}"), name


def test_names_and_figures_are_whole_in_a_narrow_terminal(bundle_path, data_set, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "58")
    paths = ["--annotations", str(data_set / "annotations.json"), "--images", str(data_set / "images")]
    assert main(["accuracy", str(bundle_path), str(bundle_path), *paths]) == 0
    out = capfd.readouterr().out
    rows = out[out.index("model") :].splitlines()[2:]
    name = f"{bundle_path.name} in onnxruntime, 63x95".replace(" ", "")
    # The first column, folded over several lines, is as wide as what the figures leave.
    assert "".join(row[:11] for row in rows).replace(" ", "") == 2 * name
    assert "…" not in out


def test_curves_of_several_models_are_refused(bundle_path, data_set, capfd):
    paths = ["--annotations", str(data_set / "annotations.json"), "--images", str(data_set / "images")]
    assert main(["accuracy", str(bundle_path), str(bundle_path), *paths, "--curves", "a.png"]) == 1
    assert "--curves draws one model" in capfd.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_can_be_judged_in_half_precision(tmp_path):
    # The shipped model: random weights make near-ties only, which half precision decides otherwise.
    write_shapes(tmp_path / "scenes", images=8, seed=5)
    found = {}
    for backend in ("torch", "torch-fp16"):
        report = tmp_path / f"{backend}.json"
        assert accuracy(SHIPPED, tmp_path / "scenes", "--backend", backend, "--json", report) == 0
        found[backend] = json.loads(report.read_text())
        assert found[backend]["backend"] == backend
    assert found["torch-fp16"]["ap"] == pytest.approx(found["torch"]["ap"], abs=1)


@pytest.mark.slow
def test_detections_that_were_written_have_the_same_ap_in_a_script_of_its_own(shipped_path, tmp_path):
    write_shapes(tmp_path / "scenes", images=20, seed=6)
    annotations, images = tmp_path / "scenes" / "annotations.json", tmp_path / "scenes" / "images"
    found, report = tmp_path / "found.jsonl", tmp_path / "report.json"
    assert detect([str(shipped_path), str(images), "--score", "0", "--json", str(found)]) == 0
    assert accuracy(shipped_path, tmp_path / "scenes", "--json", report) == 0
    truth = COCO(annotations)
    pictures = {picture["file_name"]: picture["id"] for picture in truth.dataset["images"]}
    categories = {category["name"]: category["id"] for category in truth.dataset["categories"]}
    rows = []
    for line in map(json.loads, found.read_text().splitlines()):
        for one in line["detections"]:
            left, top, right, bottom = one["box"]
            row = {"bbox": [left, top, right - left, bottom - top], "score": one["score"]}
            rows.append(
                {"image_id": pictures[Path(line["source"]).name], "category_id": categories[one["label"]], **row}
            )
    judge = COCOeval(truth, truth.loadRes(rows), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    # Boxes are written to a thousandth of a pixel and scores to a millionth, which moves a few over a threshold.
    assert 100 * judge.stats[0] == pytest.approx(json.loads(report.read_text())["ap"], abs=0.02)
    assert 60 < 100 * judge.stats[0] < 95
