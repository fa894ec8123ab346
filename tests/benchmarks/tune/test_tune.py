"""``cornernet-bench tune``: the search on mixes whose AP and time are given, and the command on a real network."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from cornernet_bench.accuracy.evaluate import evaluate
from cornernet_bench.cli import main
from cornernet_bench.tune import tune
from cornernet_bench.tune.checks import REPORT_NAME
from cornernet_bench.tune.request import TuneRequest
from cornernet_bench.tune.search import UNITY, Mix, Ratio, search
from cornernet_bench.tune.tune import Workbench
from cornernet_export.int8.export import STAGE
from cornernet_runtime.bundle.manifest import read_manifest
from cornernet_runtime.detector import Detector
from cornernet_train.shapes import make_scene

TIMES = ([10.0, 40, 90], [2.5, 5, 9], [5.0, 10, 300])  # of float32, all in INT8 and the mix
GROUPS = ("stem", "middle", "pooling", "heat")


def exactly(times, noise=0.0):
    return Ratio(times, times - noise, times + noise, 200 * noise)


class Costs:
    """Mixes by arithmetic: what each group's INT8 costs in AP, and the milliseconds that float32 takes more for it."""

    def __init__(self, losses, savings, fp32_ms=100.0, fp32_ap=40.0):
        self.losses, self.savings, self.fp32_ms, self.fp32_ap = losses, savings, fp32_ms, fp32_ap
        self.asked = []

    def __call__(self, float_groups, with_ap):
        self.asked.append((float_groups, with_ap))
        int8 = [group for group in self.losses if group not in float_groups]
        milliseconds = self.fp32_ms - sum(self.savings[group] for group in int8)
        ap = self.fp32_ap - sum(self.losses[group] for group in int8)
        whole = self.fp32_ms - sum(self.savings.values())
        ratios = exactly(self.fp32_ms / milliseconds), exactly(whole / milliseconds)
        return Mix(float_groups, *ratios, ap if with_ap else None)


def costs(losses=(0, 0, 0, 0), savings=(10, 20, 20, 10)):
    return Costs(dict(zip(GROUPS, losses, strict=True)), dict(zip(GROUPS, savings, strict=True)))


# The search.


def test_all_stays_in_int8_where_ap_and_time_allow_it():
    measure = costs(losses=(0.1, 0.1, 0.1, 0.1))
    outcome = search(GROUPS, measure, 39.5)
    assert (outcome.met, outcome.best) == (True, Mix((), exactly(2.5), exactly(1.0), pytest.approx(39.6)))
    assert outcome.reasons == {}
    # AP takes minutes, so it is measured of the one mix only.
    assert [groups for groups, with_ap in measure.asked if with_ap] == [()]


def test_the_group_that_costs_ap_stays_in_float_and_the_reason_says_how_much():
    outcome = search(GROUPS, costs(losses=(0, 0.1, 0.75, 0)), 39.8)
    assert outcome.best.float_groups == ("pooling",)
    assert outcome.best.ap == pytest.approx(39.9)
    assert outcome.reasons == {"pooling": "its int8 alone costs 0.75 AP"}


def test_of_two_groups_that_would_do_the_cheaper_stays_in_float():
    outcome = search(GROUPS, costs(losses=(0.5, 0.5, 0, 0), savings=(2, 40, 10, 10)), 39.4)
    assert outcome.best.float_groups == ("stem",)


def test_a_group_that_int8_makes_slower_stays_in_float():
    outcome = search(GROUPS, costs(savings=(-5, 20, 20, 10)), 39.5)
    assert outcome.best.float_groups == ("stem",)
    assert outcome.best.times_fp32.median == pytest.approx(2)
    assert outcome.reasons["stem"].endswith("with it in float the network is 1.10 (1.10 to 1.10) times as fast")


def test_a_group_that_was_slow_in_int8_only_once_goes_to_int8():
    class SlowOnce(Costs):
        def __call__(self, float_groups, with_ap):
            mix = super().__call__(float_groups, with_ap)
            first = [groups for groups, _ in self.asked].count(float_groups) == 1
            return replace(mix, times_int8=exactly(1.13)) if float_groups == ("stem",) and first else mix

    exact = costs()
    outcome = search(GROUPS, SlowOnce(exact.losses, exact.savings), 39.5)
    assert outcome.best.float_groups == ()


def test_several_groups_are_left_in_float_until_ap_suffices():
    outcome = search(GROUPS, costs(losses=(0.4, 0.5, 0.6, 0.1)), 39.8)
    assert outcome.met
    assert outcome.best.float_groups == ("middle", "pooling", "stem")


def test_a_group_that_others_made_needless_goes_back_to_int8():
    class Together(Costs):
        """The stem's INT8 costs nothing once the middle is in float, and half as much as the middle's before."""

        def __call__(self, float_groups, with_ap):
            mix = super().__call__(float_groups, with_ap)
            harm = 0.0 if "middle" in float_groups else 1.0 - 0.5 * ("stem" in float_groups)
            return Mix(float_groups, mix.times_fp32, mix.times_int8, 40 - harm if with_ap else None)

    nothing = costs()
    outcome = search(GROUPS, Together(nothing.losses, {"stem": 1, "middle": 20, "pooling": 20, "heat": 10}), 39.9)
    assert outcome.best.float_groups == ("middle",)


def test_a_budget_that_only_float32_keeps_is_not_met():
    outcome = search(GROUPS, costs(losses=(1, 1, 1, 1)), 39.9)
    assert not outcome.met
    # The best that is faster than float32.
    assert len(outcome.best.float_groups) == 3
    assert outcome.best.ap == pytest.approx(39)


def test_a_network_that_int8_makes_slower_is_not_met():
    outcome = search(GROUPS, costs(savings=(-5, -5, -5, -5)), 39.0)
    assert not outcome.met


@pytest.mark.parametrize(("losses", "saving"), [((1, 1, 1, 1), 10), ((0, 0, 0, 0), -5)], ids=["ap", "time"])
def test_float32_itself_is_not_met_though_noise_makes_it_look_faster(losses, saving):
    class Noisy(Costs):
        def __call__(self, float_groups, with_ap):
            mix = super().__call__(float_groups, with_ap)
            return replace(mix, times_fp32=exactly(1.05 * mix.times_fp32.median))

    exact = costs(losses, (saving,) * 4)
    outcome = search(GROUPS, Noisy(exact.losses, exact.savings), 39.9)
    assert not outcome.met


def test_a_mix_within_the_noise_of_float32_is_not_met():
    outcome = search(GROUPS, costs(losses=(0, 1, 1, 1), savings=(1, 10, 10, 10)), 39.9)
    assert not outcome.met


def test_nothing_is_measured_twice():
    measure = costs(losses=(0.4, 0.5, 0.6, 0.1))
    search(GROUPS, measure, 39.8)
    assert len(measure.asked) == len(set(measure.asked))


# The command, on the small network.


@pytest.fixture(scope="module")
def data_set(bundle_path, tmp_path_factory):
    """Scenes whose annotations are the best of what the float32 network finds."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "images").mkdir()
    with Detector.open(bundle_path) as detector:
        categories = [{"id": index + 1, "name": name} for index, name in enumerate(detector.class_names)]
        content = {"images": [], "annotations": [], "categories": categories}
        for number in range(4):
            image = make_scene(2, number).image
            cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
            height, width = image.shape[:2]
            content["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
            found = detector(image)
            for box, label in zip(found.boxes[:12].tolist(), found.labels[:12].tolist(), strict=True):
                w, h = box[2] - box[0], box[3] - box[1]
                row = {"image_id": number, "category_id": label + 1, "bbox": [*box[:2], w, h], "area": w * h}
                content["annotations"].append({"id": len(content["annotations"]) + 1, "iscrowd": 0} | row)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def run(checkpoint, folder, output, *more):
    paths = ["--annotations", str(folder / "annotations.json"), "--images", str(folder / "images")]
    return main(["tune", str(checkpoint), *paths, "--output", str(output), "--rounds", "10", *more])


@pytest.fixture(scope="module")
def tuned(checkpoint_path, data_set, tmp_path_factory):
    output = tmp_path_factory.mktemp("tuned") / "bundle"
    # Which mix wins is a matter of microseconds on a network so small.
    assert run(checkpoint_path, data_set, output, "--max-ap-drop", "100", "--force") == 0
    return output


@pytest.mark.slow
def test_the_bundle_holds_the_best_mix_verified(tuned):
    manifest = read_manifest(tuned)
    assert (manifest.spec.precision, manifest.spec.int8_target) == ("int8", "cpu")
    assert {check.stage for check in manifest.verification.outputs} == {"PyTorch -> ONNX Runtime", STAGE}
    assert sorted(path.name for path in tuned.iterdir()) == ["bundle.json", "model.onnx", REPORT_NAME]


@pytest.mark.slow
def test_the_report_has_every_measurement_and_the_ap_of_the_very_file(tuned, data_set):
    report = json.loads((tuned / REPORT_NAME).read_text())
    assert report["complete"]
    assert report["max_ap_drop"] == 100
    assert report["calibration_pictures"] == 4
    assert [] in [mix["float_groups"] for mix in report["measured"]]
    assert {"stem"} <= {name for mix in report["measured"] for name in mix["float_groups"]}
    with Detector.open(tuned) as detector:
        accuracy = evaluate(detector, data_set / "annotations.json", data_set / "images")
    assert report["best"]["ap"] == pytest.approx(accuracy.metrics["ap"], abs=1e-9)
    assert report["best"]["ap"] < report["fp32_ap"]
    assert report["fp32_ap"] > 70


@pytest.mark.slow
def test_a_budget_that_cannot_be_met_ends_with_1_and_keeps_the_measurements(
    checkpoint_path, data_set, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(
        Workbench, "measure", lambda _self, groups, *, with_ap: Mix(groups, exactly(2.0), exactly(0.9), 10.0 + with_ap)
    )
    assert run(checkpoint_path, data_set, tmp_path / "out", "--max-ap-drop", "0.1") == 1
    said = capfd.readouterr().err
    assert "no mix is faster than fp32 and within 0.1 AP" in said
    assert "the best found has 11.00 at 2.00 (2.00 to 2.00) times the speed" in said
    assert "--force" in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == [REPORT_NAME]
    report = json.loads((tmp_path / "out" / REPORT_NAME).read_text())
    assert (report["complete"], report["best"]["within_budget"]) == (True, False)


@pytest.mark.slow
def test_force_writes_the_best_all_the_same(checkpoint_path, data_set, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        Workbench, "measure", lambda _self, groups, *, with_ap: Mix(groups, exactly(2.0), exactly(0.9), 10.0 + with_ap)
    )
    assert run(checkpoint_path, data_set, tmp_path / "out", "--max-ap-drop", "0.1", "--force") == 0
    told = capfd.readouterr()
    assert "written because of --force" in told.err
    said = told.out
    assert "best: AP 11.00 (fp32 " in said
    assert "2.00 (2.00 to 2.00) times fp32, spread 0 %" in said
    assert "also in float" in said
    assert "with others in int8 as well it costs AP" in said
    assert read_manifest(tmp_path / "out").spec.precision == "int8"


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_measured_marked_as_partial(
    checkpoint_path, data_set, tmp_path, monkeypatch, capfd
):
    real = Workbench.measure
    calls = []

    def interrupted(self, groups, *, with_ap):
        calls.append(groups)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, groups, with_ap=with_ap)

    monkeypatch.setattr(Workbench, "measure", interrupted)
    output = tmp_path / "out"
    assert run(checkpoint_path, data_set, output) == 130
    assert f"what was measured: {output / REPORT_NAME}" in capfd.readouterr().err
    report = json.loads((output / REPORT_NAME).read_text())
    assert not report["complete"]
    assert [tuple(mix["float_groups"]) for mix in report["measured"]] == [(), calls[1]]
    # And the folder can be taken again.
    monkeypatch.setattr(
        Workbench, "measure", lambda _self, groups, *, with_ap: Mix(groups, exactly(2.0), exactly(0.9), 99.0 + with_ap)
    )
    assert run(checkpoint_path, data_set, output, "--max-ap-drop", "5") == 0


def test_mixes_are_timed_in_turn_with_float32_and_int8(bundle_path, data_set, tmp_path, monkeypatch):
    seen = {}

    def watched(contestants, rounds, now):
        seen.update(names=list(contestants), rounds=rounds, now=now)
        return {name: np.array(values) for name, values in zip(contestants, TIMES, strict=True)}

    monkeypatch.setattr(tune, "interleave", watched)
    request = TuneRequest(
        Path("x"), data_set / "annotations.json", data_set / "images", tmp_path, rounds=10, threads=1, cpu_time=True
    )
    monkeypatch.setattr(Workbench, "write", lambda _self, _groups, path: shutil.copy(bundle_path / "model.onnx", path))
    with Detector.open(bundle_path) as exact:
        bench = Workbench(request, onnx.load(bundle_path / "model.onnx"), exact, tmp_path / "model.onnx")
        # The medians of each round's ratios, which the last round's disturbance leaves alone.
        mix = bench.measure(("stem",), with_ap=False)
        assert (mix.times_fp32.median, mix.times_int8.median) == (2, 0.5)
        assert (mix.times_fp32.low, mix.times_fp32.high) == (0.3, 4)
        assert bench.measure((), with_ap=False).times_int8 == UNITY
    assert seen == {"names": ["exact", "whole", "mixed"], "rounds": 10, "now": time.process_time}


@pytest.mark.slow
def test_a_mix_that_is_off_in_what_is_verified_is_written_with_a_warning(
    checkpoint_path, data_set, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(
        Workbench, "measure", lambda _self, groups, *, with_ap: Mix(groups, exactly(2.0), exactly(0.9), 99.0 + with_ap)
    )
    monkeypatch.setattr(tune, "INT8", replace(tune.INT8, output=1e-9))
    monkeypatch.setattr(tune, "doubts", lambda *_: ("the times spread",))
    assert run(checkpoint_path, data_set, tmp_path / "out", "--max-ap-drop", "5") == 0
    told = capfd.readouterr()
    assert "warning: on the calibration pictures the best mix differs" in told.err
    assert told.out.endswith("\nwarning: the times spread\n")  # of the figures, so with them
    assert not read_manifest(tmp_path / "out").verification.passed


# What is refused.


@pytest.fixture
def no_export(monkeypatch):
    monkeypatch.setattr(tune, "export_bundle", lambda *_: pytest.fail("the export began"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_export")
def test_a_bundle_is_not_replaced_without_force(checkpoint_path, data_set, tuned, capfd):
    assert run(checkpoint_path, data_set, tuned) == 1
    assert "is a bundle: choose another folder, or add --force" in capfd.readouterr().err


@pytest.mark.usefixtures("no_export")
def test_a_folder_of_other_files_is_never_replaced(checkpoint_path, data_set, tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("mine")
    assert run(checkpoint_path, data_set, tmp_path, "--force") == 1
    assert "holds other files" in capfd.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("no_export")
def test_annotations_that_cannot_be_read_end_it_before_the_work(checkpoint_path, data_set, tmp_path, capfd):
    command = ["tune", str(checkpoint_path), "--annotations", str(tmp_path / "none.json")]
    assert main([*command, "--images", str(data_set / "images"), "--output", str(tmp_path / "out")]) == 1
    assert "none.json" in capfd.readouterr().err


@pytest.mark.usefixtures("no_export")
def test_a_folder_that_cannot_be_written_ends_it_before_the_work(checkpoint_path, data_set, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    assert run(checkpoint_path, data_set, tmp_path / "file" / "out") == 1
    assert "cannot make the folder" in capfd.readouterr().err


@pytest.mark.usefixtures("no_export")
def test_a_data_set_without_objects_ends_it_before_the_work(checkpoint_path, data_set, tmp_path, capfd):
    content = json.loads((data_set / "annotations.json").read_text()) | {"annotations": []}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to(data_set / "images")
    assert run(checkpoint_path, tmp_path, tmp_path / "out") == 1
    assert "there is no object to find" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_network_that_finds_nothing_in_float32_is_refused(checkpoint_path, data_set, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Workbench, "ap_of", lambda *_: 0.0)
    assert run(checkpoint_path, data_set, tmp_path / "out") == 1
    assert "is 0 in fp32 already, and none can be lost" in capfd.readouterr().err


@pytest.mark.parametrize("drop", ["-0.1", "101", "nan", "much"])
def test_a_budget_that_is_no_number_of_points_is_wrong_usage(drop, checkpoint_path, data_set, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_of:
        run(checkpoint_path, data_set, tmp_path / "out", f"--max-ap-drop={drop}")
    assert exit_of.value.code == 2
    assert "expected points of AP, 0 to 100" in capsys.readouterr().err
