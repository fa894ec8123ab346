"""``cornernet-bench stream``: bad input, and what makes figures doubtful."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cases.stream_bench import stream

from cornernet_bench.models.subject import Subject
from cornernet_bench.stream import measure as stream_module
from cornernet_bench.stream import soak as stream_soak
from cornernet_bench.stream.measure import doubts, hold, measure
from cornernet_bench.stream.report import StreamRequest
from cornernet_runtime.errors import CornerNetError, OutputError, VideoError

# What makes figures doubtful.


def test_doubts_name_a_busy_machine(bundle_path, clip):
    report = measure(StreamRequest(Subject(bundle_path), clip, rounds=1, soak_frames=0, live_fps=100.0, live_frames=5))
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
        measure(StreamRequest(Subject(tmp_path / "no model is opened")))


def test_folders_that_cannot_be_written_are_named_before_any_work(tmp_path, capfd):
    folder = tmp_path / "none"
    with pytest.raises(OutputError, match=rf"^cannot write in {folder}: No such file or directory; name another --fo"):
        measure(StreamRequest(Subject(tmp_path / "no model is opened"), folder=folder))
    assert stream(tmp_path, "--json", folder / "a.json") == 1
    assert "there is no folder" in capfd.readouterr().err


def test_a_system_that_tells_nothing_of_processes_is_named(bundle_path, tmp_path, monkeypatch):
    monkeypatch.setattr(stream_soak, "PROCESS", tmp_path)
    with pytest.raises(CornerNetError, match=r"the soak reads /proc/self/task, .*; add --frames 0"):
        measure(StreamRequest(Subject(bundle_path)))


def test_clips_go_into_the_folder_and_are_removed(bundle_path, tmp_path, monkeypatch):
    seen, draw = [], stream_module.draw_clip
    monkeypatch.setattr(stream_module, "draw_clip", lambda path, *rest: seen.append(path) or draw(path, *rest))
    measure(
        StreamRequest(
            Subject(bundle_path), clip_frames=2, frame_size=(96, 128), rounds=1, soak_frames=0, folder=tmp_path
        )
    )
    assert [path.parent.parent for path in seen] == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_no_more_frames_are_held_than_memory_is_set_aside_for(clip, monkeypatch):
    assert len(hold(clip, 5)) == 5
    monkeypatch.setattr(stream_module, "HELD_BYTES", 3 * 126 * 190 * 3 + 1)
    assert [frame.index for frame in hold(clip, 5)] == [0, 1, 2]
    monkeypatch.setattr(stream_module, "HELD_BYTES", 1)
    assert len(hold(clip, 5)) == 1
