"""``cornernet-bench compare`` on the shipped model: figures, files, failures, interrupts."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from cases.compare import SCENES, run
from cases.report_schema import problems, report_schema
from places import SHIPPED
from servers.browser import chromium, look

from cornernet_bench.accuracy.evaluate import evaluate
from cornernet_bench.compare.alone import open_alone
from cornernet_bench.compare.cli import as_json
from cornernet_bench.compare.compare import compare
from cornernet_bench.compare.contestant import parse_contestant
from cornernet_bench.compare.page import compare_page
from cornernet_bench.compare.request import CompareRequest
from cornernet_bench.compare.tables import blocks
from cornernet_bench.models.open import open_model
from cornernet_bench.reports.blocks import Line
from cornernet_runtime.errors import BackendError

SCHEMA = report_schema("compare")


pytestmark = pytest.mark.usefixtures("speeds_are_reported")


@pytest.fixture(scope="module")
def written(folder):
    """What a comparison of five contestants, two of which cannot run, wrote: its status, JSON, page and picture."""
    files = {kind: folder / f"report.{kind}" for kind in ("json", "html", "svg")}
    tiny = folder / "tiny"
    contestants = [tiny, folder / "gone", f"{tiny}:flip", f"{SHIPPED}@torch:stacks=1", folder / "missing"]
    outputs = ["--json", files["json"], "--html", files["html"], "--picture", files["svg"]]
    status = run(folder, *contestants, *outputs)
    return status, json.loads(files["json"].read_text()), files["html"].read_text(), files["svg"].read_text()


# The report.


def test_the_report_is_what_the_schema_says_and_knows_every_key(written):
    report = written[1]
    assert problems(report, "compare") == []
    for key in report:
        assert problems({name: value for name, value in report.items() if name != key}, "compare"), key
    assert problems(report | {"surprise": 1}, "compare")


def test_the_schema_has_of_latency_what_latency_has():
    latency = report_schema("latency")
    opened = SCHEMA["properties"]["results"]["items"]["properties"]["opened"]
    assert SCHEMA["$defs"] == latency["$defs"]
    assert SCHEMA["properties"]["machine"] == latency["properties"]["machine"]
    assert opened["required"] == latency["properties"]["model"]["required"]
    assert opened["properties"]["precision"] == latency["properties"]["model"]["properties"]["precision"]


def test_what_cannot_run_is_named_with_its_error_and_the_rest_goes_on(written, folder):
    status, report, page, _ = written
    assert status == 1
    assert not report["partial"]
    tiny, missing = folder / "tiny", folder / "missing"
    assert report["failures"] == [
        {
            "number": number,
            "contestant": str(path),
            "error": f"{path} does not exist; cornernet-export makes bundles from checkpoints",
        }
        for number, path in ((2, folder / "gone"), (5, missing))
    ]
    assert [one["contestant"] for one in report["results"]] == [
        str(tiny),
        f"{tiny}:flip",
        f"{SHIPPED}@torch:stacks=1",
    ]
    assert f"failed: 5: {missing} does not exist" in page


def test_numbers_follow_the_command_line_where_one_fails(written):
    _, report, page, picture = written
    assert [one["number"] for one in report["results"]] == [1, 3, 4]
    names = ["1 tiny", "3 tiny:flip", f"4 {SHIPPED.name}@torch:stacks=1"]
    assert [name for name in names if re.search(rf"<td[^>]*>{re.escape(name)}</td>", page)] == names
    assert "3: tiny:flip" in picture


def test_ap_is_that_of_accuracy_on_the_same_detector(written, folder):
    scenes = folder / "scenes"
    report = written[1]
    assert (report["listed"], report["pictures"]) == (SCENES, SCENES)
    for one, options in zip(report["results"], ({}, {"flip": True}, {"stacks": 1}), strict=True):
        with open_model(SHIPPED if "stacks" in options else folder / "tiny", **options) as detector:
            expected = evaluate(detector, scenes / "annotations.json", scenes / "images")
        assert report["objects"] == expected.objects
        metrics = one["accuracy"]["metrics"]
        assert metrics == {name: pytest.approx(expected.metrics[name], abs=1e-3, nan_ok=True) for name in metrics}
        assert one["accuracy"]["low"] <= metrics["ap"] <= one["accuracy"]["high"]


def test_each_contestant_says_how_it_ran(written):
    first, flip, cut = written[1]["results"]
    ran = [
        (one["opened"]["backend"], one["opened"]["precision"], one["opened"]["flip"], one["stacks"])
        for one in (first, flip, cut)
    ]
    assert ran == [
        ("onnxruntime", "fp32", False, None),
        ("onnxruntime", "fp32", True, None),
        ("torch", "fp32", False, 1),
    ]
    assert all(one["opened"]["input_sizes"] == [[255, 255]] for one in (first, flip, cut))


def test_memory_and_size_are_those_of_the_contestant_alone(written, folder):
    first, _, cut = written[1]["results"]
    assert first["disk_bytes"] == (folder / "tiny" / "model.onnx").stat().st_size
    assert cut["disk_bytes"] == SHIPPED.stat().st_size
    # PyTorch is not in the memory of what ONNX Runtime runs, though this process holds both.
    assert 50 < first["opened"]["peak_rss_mib"] < cut["opened"]["peak_rss_mib"] - 50


def test_each_is_timed_as_often_from_frame_to_boxes_and_its_network_apart(written):
    for one in written[1]["results"]:
        latency = one["latency"]
        assert latency["end_to_end"]["count"] == latency["stages"]["network"]["count"] == 2
        assert list(latency["stages"]) == ["preprocess", "network", "decode", "soft_nms", "other"]
        parts = sum(stage["mean_ms"] for stage in latency["stages"].values())
        assert parts == pytest.approx(latency["end_to_end"]["mean_ms"])


def test_others_are_held_against_the_first(written):
    first, flip, cut = written[1]["results"]
    assert first["against"] is None
    for one in (flip, cut):
        against = one["against"]
        assert against["ap"]["points"] == pytest.approx(
            one["accuracy"]["metrics"]["ap"] - first["accuracy"]["metrics"]["ap"]
        )
        agreement = against["agreement"]
        assert 0 < agreement["matched"] < agreement["reference"]
        assert agreement["percent"] == pytest.approx(
            100 * agreement["matched"] / (agreement["reference"] + agreement["extra"])
        )
        assert against["speed"]["low"] <= against["speed"]["median"] <= against["speed"]["high"]
    assert (flip["against"]["cause"], set(flip["against"]["maps"]["errors"].values())) == (None, {0})
    assert flip["against"]["findings"] == ["looks in another way than the first (flip): fewer detections agree for it"]
    assert (cut["against"]["cause"], cut["against"]["findings"]) == (None, ["another network: stacks"])


# The same comparison again.


@pytest.mark.slow
def test_two_runs_agree_within_the_spread_that_they_report(folder):
    scenes, tiny = folder / "scenes", folder / "tiny"
    contestants = tuple(parse_contestant(f"{tiny}{options}") for options in ("", ":flip"))
    request = CompareRequest(
        contestants, scenes / "annotations.json", scenes / "images", iterations=12, threads=1, cpu_time=True
    )
    one, two = (compare(request) for _ in range(2))
    assert [result.accuracy for result in one.results] == [result.accuracy for result in two.results]
    assert [result.latency.clock for result in one.results] == ["process", "process"]
    lines = [block.text for block in blocks(one) if isinstance(block, Line)]
    assert lines[1].startswith("CPU time of the process (no latency) from a frame in memory to boxes: 12 calls of each")
    assert any("threads: " in line and "onnxruntime 1," in line for line in lines)
    assert "speed: so many times as fast, by rounds, in CPU time." in " ".join(lines)
    page = compare_page(one, "", "")
    assert "CPU ms p50" in page
    assert "where the time goes: CPU ms p50 by stage" in page
    assert "milliseconds of CPU time (no latency) a frame" in page
    assert as_json(one)["cpu_time"] is True
    speeds = [report.results[1].against.speed for report in (one, two)]
    for own, other in (speeds, speeds[::-1]):
        assert own.low <= other.high  # of 12 rounds on a busy machine the medians alone may lie just outside
    assert 0.4 < speeds[0].median < 0.7  # two views of each frame


# The terminal.


@pytest.mark.slow
def test_the_terminal_shows_tables_of_both_kinds(folder, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    tiny = folder / "tiny"
    assert run(folder, tiny, f"{tiny}:scales=0.5,1") == 0
    said = capfd.readouterr()
    assert said.err == ""
    lines = [" ".join(line.split()) for line in said.out.splitlines() if line.strip()]
    assert lines[0].startswith(f"{folder / 'scenes' / 'annotations.json'}: {SCENES} pictures, ")
    assert f"1: {tiny}: onnxruntime, fp32, input 255x255" in lines
    assert "AP AP 95 % p50 ms p90 network MB MiB" in lines
    assert "speed 10 to 90 % gain gain 95 % agree % missed extra" in lines
    assert f"held against {tiny}" in lines
    assert f"warning: {SCENES} pictures are few: intervals of AP say little" in lines
    assert "warning: 2 timed rounds are few: times and speeds say little" in lines
    assert "2: looks in another way than the first (scales): fewer detections agree for it" in lines


class Crash:
    """What ends the process that unpickles it, as a crash in a library would."""

    def __reduce__(self):
        return os.abort, ()


def test_a_crash_of_what_opens_a_model_is_an_error_here(folder):
    subject = parse_contestant(str(folder / "tiny")).subject(0)
    with pytest.raises(BackendError, match=r"tiny: the process that opened it crashed \(SIGABRT\)$"):
        open_alone(subject, [np.zeros((9, 9, 3), np.uint8), Crash()])


# The page.


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_of_the_page_is_cut_off_and_the_console_is_silent(written, tmp_path, width):
    seen = look(written[2], width, tmp_path)
    assert (seen["width"], seen["cut"], seen["console"]) == (width, [], [])
    assert seen["scroll"] <= width
    assert (seen["tables"], seen["pictures"]) == (7, 1)


def test_the_picture_shows_each_contestant_that_ran(written):
    page, picture = written[2:]
    numbers = {"1", "3", "4"}
    assert numbers <= set(re.findall(r">\s*(\d)</text>", page))
    assert picture.count("<svg") == 1
