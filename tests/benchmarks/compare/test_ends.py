"""How ``cornernet-bench compare`` ends where something keeps it from its work: interrupts, failures, wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cases.compare import SCENES, run
from cases.report_schema import problems
from servers.interrupts import interrupting

from cornernet_bench.coco.judge import judge
from cornernet_bench.compare import compare as comparing
from cornernet_bench.compare.compare import ALONE
from cornernet_bench.measuring import measurement
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError

INTERRUPTED = 130


pytestmark = pytest.mark.usefixtures("speeds_are_reported")


# Interrupts.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "timed", "pictures"),
    [
        # After two calls to warm up and a round.
        (5, 1, 0),
        (9, 2, 1),  # the second contestant has seen a picture, the first two
    ],
)
def test_an_interrupt_keeps_what_was_measured_and_says_so(folder, tmp_path, capfd, monkeypatch, call, timed, pictures):
    interrupting(monkeypatch, call)
    tiny, path, page = folder / "tiny", tmp_path / "a.json", tmp_path / "a.html"
    assert run(folder, tiny, tiny / "model.onnx", "--json", path, "--html", page) == INTERRUPTED
    report = json.loads(path.read_text())
    assert problems(report, "compare") == []
    assert (report["partial"], report["pictures"]) == (True, pictures)
    assert [one["latency"]["end_to_end"]["count"] for one in report["results"]] == [timed, timed]
    assert [one["accuracy"] is not None for one in report["results"]] == [pictures > 0] * 2
    said = capfd.readouterr().out
    assert "interrupted: these are partial results" in said
    calls = "2 calls" if timed == 2 else "1 of 2 calls"
    assert f"{calls} of each in turns, after 1 to warm up, on {timed} picture" in said
    assert report["frames"] == timed
    assert "2 models compared (partial)" in page.read_text()


def test_an_interrupt_before_anything_is_measured_leaves_no_report(folder, tmp_path, capfd, monkeypatch):
    interrupting(monkeypatch, 2)
    tiny = folder / "tiny"
    assert run(folder, tiny, tiny, "--json", tmp_path / "a.json") == INTERRUPTED
    assert capfd.readouterr().err.endswith("interrupted\n")
    assert not (tmp_path / "a.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("judged", "known"), [(0, [False, False]), (1, [True, False])])
def test_an_interrupt_of_the_judging_keeps_times_and_what_was_judged(
    folder, tmp_path, capfd, monkeypatch, judged, known
):
    judges = []

    def interrupted(*arguments, **options):
        judges.append(None)
        if len(judges) > judged:
            raise KeyboardInterrupt
        return judge(*arguments, **options)

    monkeypatch.setattr(comparing, "judge", interrupted)
    tiny, path, page = folder / "tiny", tmp_path / "a.json", tmp_path / "a.html"
    assert run(folder, tiny, f"{tiny}:flip", "--json", path, "--html", page) == INTERRUPTED
    report = json.loads(path.read_text())
    assert problems(report, "compare") == []
    assert (report["partial"], report["pictures"]) == (True, SCENES)
    assert [one["latency"]["end_to_end"]["count"] for one in report["results"]] == [2, 2]
    assert [one["accuracy"] is not None for one in report["results"]] == known
    against = report["results"][1]["against"]
    assert against["ap"] is None
    assert against["agreement"]["percent"] < 100
    assert against["speed"]["median"] > 0
    assert "interrupted: these are partial results" in capfd.readouterr().out
    assert "2 models compared (partial)" in page.read_text()


# Times that spread.


@pytest.mark.slow
def test_no_speed_is_told_of_times_that_spread_too_far(folder, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(measurement, "MOST_SPREAD", -1)  # so that any times do
    tiny = folder / "tiny"
    assert run(folder, tiny, f"{tiny}:flip", "--json", tmp_path / "a.json") == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert problems(report, "compare") == []
    against = report["results"][1]["against"]
    assert (against["speed"], against["stage_speeds"]) == (None, {})
    told = capfd.readouterr().out
    assert (
        f"warning: {tiny}:flip: times spread too far to tell how many times as fast it is; on a machine that others "
        "use too, --threads 1 --cpu-time tells which is faster"
    ) in told
    assert "by stage\n" in told  # the times
    assert "so many times as fast as" not in told


# Failures and wrong usage.


@pytest.mark.slow
def test_where_the_first_fails_the_next_takes_its_place(folder, tmp_path):
    tiny = folder / "tiny"
    assert run(folder, folder / "missing", tiny, tiny, "--json", tmp_path / "a.json") == 1
    report = json.loads((tmp_path / "a.json").read_text())
    assert [one["number"] for one in report["results"]] == [2, 3]
    assert report["results"][1]["against"]["agreement"]["percent"] == 100
    assert f"the first model failed; the others are held against {tiny}" in report["warnings"]


def test_a_lone_one_has_no_star_and_is_said_to_be_alone(folder, tmp_path, capfd):
    assert run(folder, folder / "missing", folder / "tiny", "--json", tmp_path / "a.json") == 1
    report = json.loads((tmp_path / "a.json").read_text())
    assert [(one["number"], one["best"]) for one in report["results"]] == [(2, False)]
    assert ALONE in report["warnings"]
    told = capfd.readouterr()
    missing = f"failed: 1: {folder / 'missing'} does not exist; cornernet-export makes bundles from checkpoints"
    assert told.err.splitlines() == [missing, ALONE]  # before anything is measured
    assert told.out.splitlines()[-1] == missing


def test_where_all_fail_the_first_error_is_told(folder, capfd):
    assert run(folder, folder / "a", folder / "b") == 1
    errors = [f"{folder / name} does not exist; cornernet-export makes bundles from checkpoints" for name in "ab"]
    assert capfd.readouterr().err.splitlines() == [
        f"failed: 1: {errors[0]}",
        f"failed: 2: {errors[1]}",
        f"error: nothing to compare: {errors[0]}",
    ]


@pytest.mark.slow
def test_a_first_that_fails_while_others_are_held_against_it_is_blamed_itself(folder, tmp_path, monkeypatch):
    first, maps = folder / "tiny", Detector.corner_maps

    def failing(self, frame):
        if self.flip:
            raise BackendError("no memory")
        return maps(self, frame)

    monkeypatch.setattr(Detector, "corner_maps", failing)
    assert run(folder, f"{first}:flip", first, first, "--json", tmp_path / "a.json") == 1
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["failures"] == [{"number": 1, "contestant": f"{first}:flip", "error": "no memory"}]
    assert [one["number"] for one in report["results"]] == [1, 2, 3]
    assert [one["against"]["speed"] is not None for one in report["results"][1:]] == [True, True]
    assert [one["against"]["maps"] for one in report["results"][1:]] == [None, None]


@pytest.mark.parametrize("name", ["tiny", "tiny/model.onnx"])
def test_a_size_that_the_model_does_not_take_ends_the_run_before_it_measures(folder, tmp_path, capfd, name):
    model = f"{folder / name}:size=300x300"
    assert run(folder, folder / "tiny", model, "--json", tmp_path / "a.json") == 1
    assert capfd.readouterr().err == f"error: {model}: input size 300x300: this model was exported for 255x255\n"
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("option", ["--json", "--html", "--picture"])
def test_a_report_that_could_not_be_written_is_told_before_the_work(folder, tmp_path, capfd, option):
    path = tmp_path / "no" / "a.svg"
    assert run(folder, folder / "missing", folder / "missing", option, path) == 1
    assert capfd.readouterr().err == f"error: cannot write {path}: there is no folder {path.parent}\n"


def test_a_folder_that_takes_no_files_is_told_before_the_work(folder, capfd):
    path = Path("/proc/a.html")
    assert run(folder, folder / "missing", folder / "missing", "--html", path) == 1
    assert capfd.readouterr().err.startswith(f"error: cannot write {path}: ")


def test_a_folder_is_no_file(folder, capfd):
    assert run(folder, folder / "missing", folder / "missing", "--html", folder) == 1
    assert capfd.readouterr().err == f"error: cannot write {folder}: it is a folder; name a file in it\n"


def test_one_model_is_no_comparison(folder, capfd):
    with pytest.raises(SystemExit) as caught:
        run(folder, folder / "tiny")
    assert caught.value.code == 2
    assert "error: compare takes two models or more; " in capfd.readouterr().err


def test_cpu_time_needs_one_thread(folder, capfd):
    with pytest.raises(SystemExit) as caught:
        run(folder, folder / "tiny", folder / "tiny", "--cpu-time")
    assert caught.value.code == 2
    assert capfd.readouterr().err.endswith("error: --cpu-time adds up all threads: add --threads 1\n")


def test_a_page_on_standard_output_is_refused(folder, capfd):
    assert run(folder, folder / "tiny", folder / "tiny", "--html", "-") == 1
    said = "error: no HTML on standard output, which the tables take; name a file such as report.html\n"
    assert capfd.readouterr().err == said


@pytest.mark.parametrize(
    "model", ["m:flop", "m:scales=0", "m:size=9", "m:stacks=0", "m:flip:flip", "m@", ":flip", "m@foo", "m:stacks=1"]
)
def test_wrong_options_are_status_2(folder, model):
    with pytest.raises(SystemExit) as caught:
        run(folder, model, "m")
    assert caught.value.code == 2
