"""``cornernet-bench oracle`` from the command line to the files it writes."""

from __future__ import annotations

import json
import math

import cv2
import pytest
from cases.oracle import write_set

from cornernet_bench.accuracy.evaluate import evaluate
from cornernet_bench.cli import main
from cornernet_bench.models.open import open_model
from cornernet_bench.oracle import analyse as oracle
from cornernet_bench.oracle.analyse import EXCHANGES, OracleReport
from cornernet_bench.oracle.picture import draw_oracle
from cornernet_bench.oracle.repairs import REPAIRS
from cornernet_export.checkpoint import load_checkpoint, save_checkpoint
from cornernet_runtime.errors import OutputError
from cornernet_runtime.pictures import read_picture

TRUTH = {
    50: [([10, 10, 30, 30], 0), ([20, 15, 50, 60], 1)],
    90: [([5, 5, 25, 40], 0)],
    130: [([10.25, 20.25, 12.5, 22.5], 1), ([10.5, 20.5, 30, 30], 1)],  # two corners in one cell
    170: [],
}
COMPLETE, SHORT = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"), ("ap", "ap50", "ap75")


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """Four pictures, for a model of the classes ant, bee and cat, of which there is none."""
    annotations, images = write_set(tmp_path_factory.mktemp("oracle"), TRUTH)
    content = json.loads(annotations.read_text())
    content["categories"].append({"id": 1, "name": "cat"})
    annotations.write_text(json.dumps(content))
    return annotations, images


def run(model, data_set, *more):
    annotations, images = data_set
    return main(["oracle", str(model), "--annotations", str(annotations), "--images", str(images), *map(str, more)])


@pytest.fixture(scope="module")
def report(bundle_path, checkpoint_path, data_set, tmp_path_factory):
    """What the command wrote about the small model's bundle beside its checkpoint."""
    path = tmp_path_factory.mktemp("report") / "report.json"
    assert run(bundle_path, data_set, "--against", checkpoint_path, "--json", path) == 0
    return json.loads(path.read_text())


def test_the_report_says_what_was_run_on_what(report, bundle_path, checkpoint_path):
    head = {key: report[key] for key in list(report)[:7]}
    assert head == {
        "model": str(bundle_path),
        "backend": "onnxruntime",
        "complete": True,
        "pictures": 4,
        "listed": 4,
        "objects": 5,
        "objects_sharing_a_cell": 2,
    }
    assert (report["against"]["model"], report["against"]["backend"]) == (str(checkpoint_path), "torch")


def test_the_report_has_each_exchange_with_its_numbers_in_points(report, bundle_path, data_set):
    rows = {tuple(row["true"]): row for row in report["oracle"]}
    assert tuple(rows) == EXCHANGES
    assert all(tuple(row) == ("true", *COMPLETE) for row in rows.values())
    with open_model(bundle_path) as detector:
        metrics = evaluate(detector, *data_set).metrics
    found = {name: rows[()][name] for name in COMPLETE}
    assert found == {name: None if math.isnan(metrics[name]) else pytest.approx(metrics[name]) for name in COMPLETE}
    assert rows["heat", "embed", "offset"]["ap50"] == pytest.approx(100)


def test_the_report_has_each_repair_with_its_gain_and_interval(report):
    against = report["against"]
    names = [repair.name for repair in REPAIRS if repair.name != "classes"]  # nothing hints at permuted classes
    assert [repair["name"] for repair in against["repairs"] if repair["name"] != "classes"] == names
    before = report["oracle"][0]["ap"]
    for repair in (*against["repairs"], against | {"gain": against["loss"]}):
        assert repair["gain"]["points"] == pytest.approx(repair["ap"] - before)
        assert list(repair["gain"]) == ["points", "low", "high"]
    assert abs(against["loss"]["points"]) < 0.1  # of one network in two backends
    assert against["cause"] is None or against["cause"] in names[:6]
    assert against["finding"]


@pytest.mark.slow
def test_tables_go_to_standard_output(bundle_path, data_set, report, capfd):
    assert run(bundle_path, data_set, "--against", bundle_path) == 0
    said = capfd.readouterr()
    assert said.err == ""
    lines = said.out.splitlines()
    assert lines[0] == f"{bundle_path} in onnxruntime: 4 pictures, 5 objects; COCO metrics, points of 100"
    start = next(number for number, line in enumerate(lines) if line.split()[:2] == ["true", "AP"])
    assert lines[start].split() == ["true", "AP", "AP50", "AP75", "small", "medium", "large", "gain"]
    rows = [line.rsplit(maxsplit=7) for line in lines[start + 3 : start + 10]]
    assert [row[0].strip() for row in rows] == [OracleReport.title(kinds) for kinds in EXCHANGES[1:]]
    for row, expected in zip(rows, report["oracle"][1:], strict=True):
        gain = expected["ap"] - report["oracle"][0]["ap"]
        numbers = ["-" if expected[name] is None else f"{expected[name]:.2f}" for name in COMPLETE]
        assert row[1:] == [*numbers, f"{gain:+.2f}"]
    assert any(line.startswith("2 objects share the cell of a corner with another; a cell holds") for line in lines)
    assert f"against {bundle_path}: AP {report['oracle'][0]['ap']:.2f}" in lines
    assert (
        "intervals hold 95 % of 200 sets of as many pictures, drawn anew from these; 4 pictures are few for that"
        in lines
    )


@pytest.mark.slow
def test_the_picture_is_drawn(bundle_path, data_set, tmp_path):
    assert run(bundle_path, data_set, "--against", bundle_path, "--picture", tmp_path / "a.png") == 0
    assert run(bundle_path, data_set, "--picture", tmp_path / "b.svg") == 0
    height, width = cv2.imread(str(tmp_path / "a.png")).shape[:2]
    assert (width, height) == (14 * 120, 780)
    assert (tmp_path / "b.svg").read_text().count("<svg") == 1


@pytest.fixture
def interrupted(monkeypatch):
    """An interrupt at the third picture."""
    seen = []

    def read(path):
        seen.append(path)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read_picture(path)

    monkeypatch.setattr(oracle, "read_picture", read)


@pytest.mark.usefixtures("interrupted")
def test_an_interrupt_keeps_what_was_seen_and_marks_it(bundle_path, data_set, tmp_path, capfd):
    assert run(bundle_path, data_set, "--json", tmp_path / "part.json", "--picture", tmp_path / "part.png") == 130
    report = json.loads((tmp_path / "part.json").read_text())
    assert (report["complete"], report["pictures"], report["listed"], report["objects"]) == (False, 2, 4, 3)
    assert (tmp_path / "part.png").is_file()
    expected = "interrupted: 2 of 4 pictures were seen, and these figures are of them alone"
    assert expected in capfd.readouterr().out.splitlines()


# Bad input.


def test_files_that_cannot_be_drawn_are_refused_before_anything_is_run(data_set, capfd):
    assert run("no-model", data_set, "--picture", "a.bmp") == 1
    assert capfd.readouterr().err == "error: a.bmp: cannot be drawn; name a .png, .svg, .pdf file\n"


@pytest.mark.parametrize("flag", ["--json", "--picture"])
def test_files_that_cannot_be_written_are_refused_before_anything_is_run(flag, data_set, tmp_path, capfd):
    path = tmp_path / "missing" / "report.png"
    assert run("no-model", data_set, flag, path) == 1
    assert capfd.readouterr().err.startswith(f"error: cannot write {path}: there is no folder")


def test_a_reference_that_does_not_exist_is_named(bundle_path, data_set, capfd):
    assert run(bundle_path, data_set, "--against", "no-model") == 1
    assert capfd.readouterr().err.startswith("error: no-model does not exist")


def test_a_reference_of_other_classes_is_refused(checkpoint_path, data_set, tmp_path, capfd):
    other = load_checkpoint(checkpoint_path, class_names=("bee", "ant", "cat"))
    save_checkpoint(tmp_path / "other.safetensors", other.model, other.spec)
    assert run(checkpoint_path, data_set, "--against", tmp_path / "other.safetensors") == 1
    said = capfd.readouterr().err
    assert said.startswith("error: --against: expected a model of the same classes ['ant', 'bee', 'cat'], got ['bee',")
    assert said.count("\n") == 1


@pytest.mark.parametrize("option", ["--flip", "--scales=0.5,1"])
def test_flip_and_scales_are_not_taken(bundle_path, data_set, option):
    with pytest.raises(SystemExit) as caught:
        run(bundle_path, data_set, option)
    assert caught.value.code == 2


def test_a_picture_of_a_set_without_objects_can_be_drawn(tmp_path):
    nothing = dict.fromkeys(COMPLETE, math.nan)
    empty = OracleReport(dict.fromkeys(EXCHANGES, nothing), None, 1, 1, 0, 0, ())
    draw_oracle(empty, "empty", tmp_path / "empty.png")
    assert cv2.imread(str(tmp_path / "empty.png")) is not None
    with pytest.raises(OutputError, match=r"empty\.xyz: cannot be drawn"):
        draw_oracle(empty, "empty", tmp_path / "empty.xyz")
