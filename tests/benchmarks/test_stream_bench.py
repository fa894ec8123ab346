"""``cornernet-bench stream``: what is measured, what is compared, and what is said and written of it."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases.video_clips import moving_shapes, write_clip
from json_schema import problems, stream_schema
from servers.interrupts import interrupting

from cornernet_bench import stream as stream_module
from cornernet_bench import stream_soak
from cornernet_bench.cli import main
from cornernet_bench.stream import doubts, hold, measure
from cornernet_bench.stream_report import StreamRequest
from cornernet_bench.stream_sources import SourcesWork
from cornernet_bench.stream_throughput import same_detections
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import CornerNetError, OutputError, VideoError

SCHEMA = stream_schema()
SMALL = ("--clip", "6", "--frame", "96x128")
ONLY_THROUGHPUT = ("--rounds", "2", "--frames", "0")
ONLY_SOAK = ("--rounds", "0")


def stream(model, *more):
    return main(["stream", str(model), *map(str, more)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_shapes(9))


@pytest.fixture(scope="module")
def written(bundle_path, batch_bundle_path, checkpoint_path, clip, tmp_path_factory):
    """Status and what --json wrote, by what was run."""
    folder = tmp_path_factory.mktemp("stream")
    runs = {
        "drawn": (bundle_path, *SMALL, *ONLY_THROUGHPUT, "--threads", 1),
        "together": (batch_bundle_path, clip, *ONLY_THROUGHPUT, "--clip", 8, "--workers", 1),
        "checkpoint": (checkpoint_path, clip, "--rounds", 1, "--frames", 0, "--batch", 1, "--flip"),
        "soak": (bundle_path, *SMALL, *ONLY_SOAK, "--frames", 60),
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
        assert list(problems(report, SCHEMA)) == [], name


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
    assert all(list(problems(report, SCHEMA)) for report in wrong)


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
    request = StreamRequest(batch_bundle_path, clip, **flags)
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

    request = StreamRequest(bundle_path, clip, sources=2, source_frames=4)
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
    assert (soak["asked"], soak["frames"], soak["frame_size"]) == (60, 60, [144, 192])
    assert len(soak["memory_mib"]) == len(short["memory_mib"]) == 10
    assert min(soak["memory_mib"]) > 50
    expected = 100 * (soak["memory_mib"][-1] / soak["memory_mib"][0] - 1)
    assert soak["growth_percent"] == pytest.approx(expected)
    for name in ("threads", "descriptors"):
        assert 0 < soak["after"][name] <= soak["before"][name]


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


# Interrupts.


def test_an_interrupt_in_the_throughput_keeps_complete_rounds_and_the_parts_before(
    bundle_path, clip, tmp_path, capfd, monkeypatch
):
    # Two calls to open, one to soak with and one before it, nine of the loop and one alone to warm up, three times nine
    # of each round: the next is in the second round.
    interrupting(monkeypatch, 2 + 2 + 10 + 27 + 3)
    flags = ("--rounds", 3, "--frames", 1, "--workers", 1)
    assert stream(bundle_path, clip, *flags, "--json", tmp_path / "a.json") == 130
    report = json.loads((tmp_path / "a.json").read_text())
    assert list(problems(report, SCHEMA)) == []
    assert report["partial"] is True
    assert report["throughput"]["rounds"] == 1
    assert report["throughput"]["loop"]["wall"]["count"] == 1
    assert report["soak"]["frames"] == 1
    assert "interrupted: these are partial results" in capfd.readouterr().out


def test_an_interrupt_in_the_soak_keeps_its_tenths(bundle_path, monkeypatch):
    writes, write = [], stream_soak.VideoWriter.write

    def interrupted(self, result):
        write(self, result)
        writes.append(result.index)
        if len(writes) == 40 + 20:  # to draw and to warm up, then of the soak
            raise KeyboardInterrupt

    monkeypatch.setattr(stream_soak, "CLIP_FRAMES", 10)
    monkeypatch.setattr(stream_soak, "WARM_UP", 24)
    monkeypatch.setattr(stream_soak.VideoWriter, "write", interrupted)
    report = measure(StreamRequest(bundle_path, soak_frames=50, clip_frames=6, frame_size=(96, 128), live_fps=10.0))
    assert report.partial
    assert report.soak.asked == 50
    assert report.soak.frames == 19
    assert len(report.soak.memory_mib) == 3
    assert report.soak.after.descriptors == report.soak.before.descriptors
    assert report.live is report.throughput is None


def test_an_interrupt_before_anything_was_measured_ends_without_a_report(bundle_path, clip, tmp_path, monkeypatch):
    interrupting(monkeypatch, 4)
    assert stream(bundle_path, clip, "--frames", 0, "--json", tmp_path / "a.json") == 130
    assert not (tmp_path / "a.json").exists()


def test_an_interrupt_among_the_sources_keeps_complete_rounds(bundle_path, clip):
    def interrupt(what, number, _):
        if what.startswith("2 sources") and number == 1:
            raise KeyboardInterrupt

    flags = {"rounds": 2, "soak_frames": 0, "sources": 2, "source_frames": 2, "workers": 1}
    report = measure(StreamRequest(bundle_path, clip, **flags), interrupt)
    assert report.partial
    assert report.sources.rounds == report.sources.one.wall.count == 1
    assert report.sources.given == {"source 1": 2, "source 2": 2}
    assert report.throughput is None


def test_an_error_keeps_the_parts_before_it(bundle_path, clip, tmp_path, monkeypatch):
    def full(*_):
        raise OutputError("cannot write a.mp4: No space left on device")

    monkeypatch.setattr("cornernet_bench.stream_throughput.VideoWriter", full)
    flags = ("--rounds", 1, "--frames", 0, "--live", 200, "--live-frames", 3)
    assert stream(bundle_path, clip, *flags, "--json", tmp_path / "a.json") == 1
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["live"]["made"] == 3
    assert report["throughput"] is None
    assert report["failures"] == ["not measured to the end: cannot write a.mp4: No space left on device"]
    assert stream(bundle_path, clip, "--rounds", 1, "--frames", 0, "--json", tmp_path / "b.json") == 1
    assert not (tmp_path / "b.json").exists()


# What makes figures doubtful.


def test_doubts_name_a_busy_machine(bundle_path, clip):
    report = measure(StreamRequest(bundle_path, clip, rounds=1, soak_frames=0, live_fps=100.0, live_frames=5))
    quiet = replace(report.machine, load_average=0.0)
    calm = replace(report.throughput.loop.wall, spread_percent=3.0)
    network = report.throughput.stages["network"]
    steady = replace(
        report.throughput,
        loop=replace(report.throughput.loop, wall=calm),
        stream=replace(report.throughput.stream, wall=calm),
        stages={"network": replace(network, wall=network.cpu)},
    )
    on_time = replace(report.live, late=replace(report.live.late, p99_ms=4.9))
    assert list(doubts(steady, on_time, quiet)) == []
    (busy,) = doubts(steady, None, replace(quiet, load_average=7.0, cores=2))
    assert busy.startswith("7.0 processes ran in the minute before, on 2 cores")
    wide = replace(steady.stream, wall=replace(calm, spread_percent=33.0))
    assert [line[:40] for line in doubts(replace(steady, stream=wide), None, quiet)] == [
        "times of the stream spread by 33 % of th"
    ]
    waited = {"network": replace(network, wall=replace(network.wall, p50_ms=2.0 * network.cpu.p50_ms))}
    (line,) = doubts(replace(steady, stages=waited), None, quiet)
    assert line.startswith("the network's one thread had a core for 50% of its time")
    late = replace(on_time, late=replace(on_time.late, p99_ms=5.1))
    (line,) = doubts(None, late, quiet)
    assert line.startswith("the live source itself was up to 5 ms late (p99)")


# Bad input.


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--live", "0"), "expected 1 to 1000 frames a second, got '0'"),
        (("--live", "fast"), "expected 1 to 1000 frames a second, got 'fast'"),
        (("--frames", "-1"), "expected a whole number of 1 to 1000000, got '-1'"),
        (("--frame", "8x128"), "expected sides of 16 to 4320, such as 720x1280, got '8x128'"),
        (("--sources", "1"), "expected 2 to 256 sources, got '1'"),
        (("--clip", "0"), "expected a whole number of 1 to 1000000, got '0'"),
    ],
)
def test_options_that_are_none_are_named(bundle_path, flags, said, capfd):
    with pytest.raises(SystemExit) as caught:
        stream(bundle_path, *flags)
    assert caught.value.code == 2
    assert said in capfd.readouterr().err


def test_a_video_that_is_not_there_or_none_is_named_in_a_line(bundle_path, tmp_path, capfd):
    for path, said in (
        (tmp_path / "no.mp4", "no such file or directory; give a video file"),
        (Path(__file__), "no video that FFmpeg can read, or cut short; give a video file"),
    ):
        assert stream(bundle_path, path) == 1
        assert capfd.readouterr().err == f"error: {path}: {said}\n"


def test_nothing_to_measure_is_no_interrupt(bundle_path, capfd):
    assert stream(bundle_path, "--rounds", 0, "--frames", 0) == 1
    said = "error: expected something to measure, got --rounds 0 --frames 0; add --live FPS or --sources N\n"
    assert capfd.readouterr().err == said


def test_a_missing_pyav_is_named_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r"^videos need PyAV, which is not installed; pip install "):
        measure(StreamRequest(tmp_path / "no model is opened"))


def test_folders_that_cannot_be_written_are_named_before_any_work(tmp_path, capfd):
    folder = tmp_path / "none"
    with pytest.raises(OutputError, match=rf"^cannot write in {folder}: No such file or directory; name another --fo"):
        measure(StreamRequest(tmp_path / "no model is opened", folder=folder))
    assert stream(tmp_path, "--json", folder / "a.json") == 1
    assert "there is no folder" in capfd.readouterr().err


def test_a_system_that_tells_nothing_of_processes_is_named(bundle_path, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_soak, "PROCESS", tmp_path)
    with pytest.raises(CornerNetError, match=r"the soak reads /proc/self/task, .*; add --frames 0"):
        measure(StreamRequest(bundle_path))


def test_clips_go_into_the_folder_and_are_removed(bundle_path, tmp_path, monkeypatch):
    seen, draw = [], stream_module.draw_clip
    monkeypatch.setattr(stream_module, "draw_clip", lambda path, *rest: seen.append(path) or draw(path, *rest))
    measure(StreamRequest(bundle_path, clip_frames=2, frame_size=(96, 128), rounds=1, soak_frames=0, folder=tmp_path))
    assert [path.parent.parent for path in seen] == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_no_more_frames_are_held_than_memory_is_set_aside_for(clip, monkeypatch):
    assert len(hold(clip, 5)) == 5
    monkeypatch.setattr(stream_module, "HELD_BYTES", 3 * 126 * 190 * 3 + 1)
    assert [frame.index for frame in hold(clip, 5)] == [0, 1, 2]
    monkeypatch.setattr(stream_module, "HELD_BYTES", 1)
    assert len(hold(clip, 5)) == 1
