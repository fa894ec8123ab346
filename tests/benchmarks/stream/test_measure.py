"""``cornernet-bench stream``: what is measured, what is compared, and what is written of it."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from cases.report_schema import problems
from cases.stream_bench import stream
from cases.video_clips import moving_shapes

from cornernet_bench.models.subject import Subject
from cornernet_bench.stream import soak as stream_soak
from cornernet_bench.stream.measure import hold
from cornernet_bench.stream.report import StreamRequest
from cornernet_bench.stream.sources import SourcesWork
from cornernet_bench.stream.throughput import same_detections
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import VideoError

SMALL = ("--clip", "6", "--frame", "96x128")
ONLY_THROUGHPUT = ("--rounds", "2", "--frames", "0")
ONLY_SOAK = ("--rounds", "0")


@pytest.fixture(scope="module")
def written(bundle_path, batch_bundle_path, checkpoint_path, clip, tmp_path_factory):
    """Status and what --json wrote, by what was run."""
    folder = tmp_path_factory.mktemp("stream")
    runs = {
        "drawn": (bundle_path, *SMALL, *ONLY_THROUGHPUT, "--threads", 1),
        "together": (batch_bundle_path, clip, *ONLY_THROUGHPUT, "--clip", 8, "--workers", 1),
        "checkpoint": (checkpoint_path, clip, "--rounds", 1, "--frames", 0, "--batch", 1, "--flip"),
        "soak": (bundle_path, *SMALL, *ONLY_SOAK, "--frames", 20),
        "live": (bundle_path, *SMALL, *ONLY_SOAK, "--frames", 0, "--live", 100, "--live-frames", 40),
        "sources": (bundle_path, *SMALL, *ONLY_SOAK, "--frames", 0, "--sources", 4, "--source-frames", 6),
        "whole": (bundle_path, clip, "--rounds", 1, "--frames", 10, "--live", 200, "--live-frames", 5),
    }
    return {
        name: (
            stream(model, *flags, "--json", folder / f"{name}.json"),
            json.loads((folder / f"{name}.json").read_text()),
        )
        for name, (model, *flags) in runs.items()
    }


@pytest.fixture(scope="module")
def reports(written):
    return {name: report for name, (_, report) in written.items()}


# The report.


def test_every_report_is_what_the_schema_says(reports):
    for name, report in reports.items():
        assert problems(report, "stream") == [], name


def test_the_schema_knows_every_key_and_refuses_others(reports):
    whole = reports["whole"]
    wrong = [
        {key: value for key, value in whole.items() if key != "live"},
        whole | {"surprise": 1},
        whole | {"schema_version": 2},
        whole | {"soak": whole["soak"] | {"memory_mib": []}},
        whole | {"throughput": whole["throughput"] | {"limit": "luck"}},
        whole | {"live": whole["live"] | {"in_order": 1}},
        whole | {"sources": {}},
    ]
    assert all(problems(report, "stream") for report in wrong)


def test_parts_are_those_that_were_asked_for(written, bundle_path, clip):
    parts = {
        name: [part for part in ("throughput", "sources", "live", "soak") if report[part] is not None]
        for name, (_, report) in written.items()
    }
    assert parts == {
        "drawn": ["throughput"],
        "together": ["throughput"],
        "checkpoint": ["throughput"],
        "soak": ["soak"],
        "live": ["live"],
        "sources": ["sources"],
        "whole": ["throughput", "live", "soak"],
    }
    assert [report["failures"] for _, report in written.values()] == [[]] * 7
    assert [status for status, _ in written.values()] == [0] * 7
    drawn, whole = written["drawn"][1], written["whole"][1]
    assert (drawn["video"], drawn["frame_size"]) == ("drawn", [96, 128])
    assert (whole["video"], whole["frame_size"]) == (str(clip), [126, 190])
    assert (drawn["model"]["path"], drawn["partial"]) == (str(bundle_path), False)
    assert drawn["machine"]["versions"].keys() >= {"av", "onnxruntime"}
    assert drawn["machine"]["threads"]["onnxruntime"] == 1


# Throughput.


def test_stages_loop_and_stream_are_of_the_frames_of_the_clip(reports):
    drawn, together = reports["drawn"]["throughput"], reports["together"]["throughput"]
    assert (drawn["frames"], drawn["held"], drawn["rounds"]) == (6, 6, 2)
    assert (together["frames"], together["held"], together["rounds"]) == (8, 8, 2)
    for measured in (drawn, together):
        assert set(measured["stages"]) == {
            "reading", "preprocess", "network", "decode", "soft_nms", "other", "writing"
        }  # fmt: skip
        for part in (*measured["stages"].values(), measured["loop"], measured["stream"]):
            assert part["cpu"]["count"] == part["wall"]["count"] == 2
            assert part["cpu"]["p50_ms"] >= 0
        for way in (measured["loop"], measured["stream"]):
            assert way["fps"] == pytest.approx(1000 / way["wall"]["p50_ms"])


def test_reading_and_writing_have_a_part_that_is_not_shared_out(reports):
    for stage, measured in reports["drawn"]["throughput"]["stages"].items():
        if stage in ("reading", "writing"):
            assert 0 < measured["whole_ms"] <= 1.05 * measured["cpu"]["p50_ms"]
        else:
            assert measured["whole_ms"] is None


def test_the_ideal_is_what_the_stages_allow_on_the_cores(reports):
    for name in ("drawn", "together", "checkpoint"):
        measured = reports[name]["throughput"]
        stages = measured["stages"]
        bounds = {stage: one["whole_ms"] for stage, one in stages.items() if one["whole_ms"]}
        bounds["cores"] = sum(stage["cpu"]["p50_ms"] for stage in stages.values()) / measured["cores"]
        assert measured["ideal_fps"] == pytest.approx(1000 / max(bounds.values()))
        assert bounds[measured["limit"]] == max(bounds.values())


def test_detections_of_the_stream_are_compared_with_the_loops(reports):
    found = {
        name: [reports[name]["throughput"][key] for key in ("compared", "equal", "tolerance_px")]
        for name in ("drawn", "together", "checkpoint")
    }
    # Frames that are run together are added up in another order.
    assert found == {"drawn": [12, 12, 0], "together": [16, 16, 0.01], "checkpoint": [9, 9, 0]}


def test_a_stream_that_finds_something_else_is_a_failure(bundle_path, clip, tmp_path, capfd, monkeypatch):
    streaming = Detector.stream

    def shifted(self, *arguments, **options):
        with streaming(self, *arguments, **options) as results:
            for result in results:
                wrong = replace(result.detections, boxes=result.detections.boxes + np.float32(result.index == 3))
                yield replace(result, detections=wrong)

    monkeypatch.setattr(Detector, "stream", lambda *args, **options: _Closing(shifted(*args, **options)))
    assert stream(bundle_path, clip, "--rounds", 1, "--frames", 0, "--json", tmp_path / "a.json") == 1
    line = "throughput: expected detections as without a stream in 9 frames, got 8 that are equal"
    assert json.loads((tmp_path / "a.json").read_text())["failures"] == [line]
    assert f"failed: {line}" in capfd.readouterr().out


class _Closing:
    """A generator that a ``with`` block closes, as a stream is."""

    def __init__(self, generator):
        self._generator = generator

    def __enter__(self):
        return self._generator

    def __exit__(self, *_):
        self._generator.close()


def test_equal_detections_have_equal_labels_boxes_and_scores(bundle_path):
    with Detector.open(bundle_path, threads=1) as detector:
        found = detector(next(moving_shapes(1)))
    assert len(found) > 10
    assert same_detections(found, found, 0)
    near = replace(found, boxes=found.boxes + np.float32(0.005))
    assert not same_detections(near, found, 0)
    assert same_detections(near, found, 0.01)
    assert not same_detections(replace(found, boxes=found.boxes + np.float32(0.02)), found, 0.01)
    assert not same_detections(replace(found, scores=found.scores * np.float32(0.99)), found, 0.01)
    assert not same_detections(replace(found, labels=found.labels[::-1] + 1), found, 0.01)
    fewer = replace(found, boxes=found.boxes[1:], scores=found.scores[1:], labels=found.labels[1:])
    assert not same_detections(fewer, found, 0.01)


# A live source.


def test_every_frame_of_a_live_source_is_given_or_dropped(reports):
    live = reports["live"]["live"]
    assert (live["source_fps"], live["made"], live["read"]) == (100, 40, 40)
    assert live["given"] + live["dropped"] == 40
    assert live["given"] == live["lag"]["count"] == live["detecting"]["count"] > 0
    assert live["in_order"] is True
    assert live["late"]["count"] == 40
    assert live["lag_ratio"] == pytest.approx(live["lag"]["p99_ms"] / live["detecting"]["p50_ms"])
    assert 0 < live["detecting"]["p50_ms"] <= live["lag"]["p99_ms"]


# Many sources.


def test_every_source_gives_its_frames_and_those_that_die_what_came_before(reports):
    sources = reports["sources"]["sources"]
    assert (sources["count"], sources["frames_each"], sources["rounds"], sources["batch"]) == (4, 6, 1, 1)
    assert sources["given"] == {f"source {number}": 6 for number in (1, 2, 3, 4)}
    assert sources["dying"] == 1
    assert sources["given_as_some_die"] == {"source 1": 3, "source 2": 6, "source 3": 6, "source 4": 6}
    assert sources["in_order"] is True
    assert 0 <= sources["least_share"] <= 1
    for way in ("one", "many", "some_die"):
        assert sources[way]["fps"] == pytest.approx(1000 / sources[way]["wall"]["p50_ms"])
    walls = {way: sources[way]["wall"]["p50_ms"] for way in ("one", "many", "some_die")}
    assert sources["of_one"]["median"] == pytest.approx(walls["one"] / walls["many"])
    assert sources["of_many"]["median"] == pytest.approx(walls["many"] / walls["some_die"])


def test_sources_run_together_what_one_run_takes(batch_bundle_path, clip):
    flags = {"rounds": 1, "soak_frames": 0, "sources": 2, "source_frames": 3, "workers": 1}
    request = StreamRequest(Subject(batch_bundle_path), clip, **flags)
    with Detector.open(batch_bundle_path, threads=1) as detector:
        frames = hold(clip, 4)
        works = [SourcesWork(replace(request, batch=batch), detector, frames) for batch in (None, 3, 9)]
        assert [work.batch for work in works] == [1, 3, 4], "the network takes 4"
        run = works[1].many()
    assert run.given == {"source 1": 3, "source 2": 3}
    assert run.in_order


def test_an_error_that_is_no_sources_own_is_raised(bundle_path, clip, monkeypatch):
    opened, open_sources = threading.Event(), SourcesWork._open

    def fail(*_):
        opened.wait(60)
        raise LookupError("no network")

    def then_fail(*arguments):
        stream = open_sources(*arguments)
        opened.set()
        return stream

    request = StreamRequest(Subject(bundle_path), clip, sources=2, source_frames=4)
    with Detector.open(bundle_path, threads=1) as detector:
        work = SourcesWork(request, detector, hold(clip, 2))
        monkeypatch.setattr(Detector, "batch", fail)
        monkeypatch.setattr(SourcesWork, "_open", then_fail)
        for method in (work.many, work.some_die, work.one):
            with pytest.raises(VideoError, match="LookupError: no network"):
                method()


# Soak.


def test_the_soak_tells_memory_by_tenths_and_what_is_held(reports):
    soak, short = reports["soak"]["soak"], reports["whole"]["soak"]
    assert (soak["asked"], soak["frames"], soak["frame_size"]) == (20, 20, [144, 192])
    assert len(soak["memory_mib"]) == len(short["memory_mib"]) == 10
    assert min(soak["memory_mib"]) > 50
    expected = 100 * (soak["memory_mib"][-1] / soak["memory_mib"][0] - 1)
    assert soak["growth_percent"] == pytest.approx(expected)
    for name in ("threads", "descriptors"):
        assert 0 < soak["after"][name] <= soak["before"][name]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc")
def test_what_leaks_is_a_failure(bundle_path, tmp_path, monkeypatch):
    kept, frames = [], stream_soak.Repeated.__iter__

    def leaking(self):
        for frame in frames(self):
            # Memory that is written to, or the system would not give it.
            kept.append((np.ones(2**20, np.uint8), [object() for _ in range(40)]))
            if frame.index % 20 == 0:
                kept.append((tmp_path / "left").open("w"))
            yield frame

    monkeypatch.setattr(stream_soak.Repeated, "__iter__", leaking)
    monkeypatch.setattr(stream_soak, "SETTLE_S", 0)
    assert stream(bundle_path, *SMALL, *ONLY_SOAK, "--frames", 60, "--json", tmp_path / "a.json") == 1
    failures = json.loads((tmp_path / "a.json").read_text())["failures"]
    grew, descriptors, objects = failures
    assert grew.startswith("soak: expected resident memory to grow by at most 2 %, got ")
    assert descriptors.startswith("soak: expected no descriptors left after closing, got ")
    assert objects.startswith("soak: expected no objects left after closing, got ")
    for item in kept:
        if not isinstance(item, tuple):
            item.close()


# The terminal.


@pytest.mark.slow
def test_tables_name_parts_stages_and_figures(bundle_path, clip, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    flags = ("--rounds", 1, "--frames", 20, "--live", 100, "--live-frames", 8, "--sources", 3, "--source-frames", 2)
    assert stream(bundle_path, clip, *flags) == 0
    said = capfd.readouterr()
    assert said.err == ""
    lines = [" ".join(line.split()) for line in said.out.splitlines() if line.strip()]
    assert lines[0] == f"{bundle_path}: small in onnxruntime, fp32, input 63x95"
    assert lines[1] == f"video: {clip}, 126x190"
    assert any(line.startswith("soak: 20 frames of 144x192 from file to file: ") for line in lines)
    assert any(line.startswith("live: 8 frames at 100 a second, the newest taken: ") for line in lines)
    assert "sources: 3 of 2 frames each, 1 run together at most, by 1 round" in lines
    assert "throughput: 9 frames read, detected, drawn and encoded; a frame, by 1 round" in lines
    assert "stage CPU ms spread wall ms spread not shared out" in lines
    assert "detections equal to the loop's: 9 of 9 frames" in lines
    firsts = [line.split()[0] for line in lines]
    for name in ("reading", "preprocess", "network", "decode", "soft-NMS", "other", "drawing,", "stream", "threads"):
        assert firsts.count(name) == (2 if name == "preprocess" else 1), name  # "preprocess to boxes"
