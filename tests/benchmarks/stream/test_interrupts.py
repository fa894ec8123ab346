"""``cornernet-bench stream``: what is kept of a run that is interrupted or fails."""

from __future__ import annotations

import json

import pytest
from cases.report_schema import problems
from cases.stream_bench import stream
from servers.interrupts import interrupting

from cornernet_bench.models.subject import Subject
from cornernet_bench.stream import soak as stream_soak
from cornernet_bench.stream.measure import measure
from cornernet_bench.stream.report import StreamRequest
from cornernet_runtime.errors import OutputError


@pytest.mark.slow
def test_an_interrupt_in_the_throughput_keeps_complete_rounds_and_the_parts_before(
    bundle_path, clip, tmp_path, capfd, monkeypatch
):
    # Two calls to open, one to soak with and one before it, nine of the loop and one alone to warm up, three times nine
    # of each round: the next is in the second round.
    interrupting(monkeypatch, 2 + 2 + 10 + 27 + 3)
    flags = ("--rounds", 3, "--frames", 1, "--workers", 1)
    assert stream(bundle_path, clip, *flags, "--json", tmp_path / "a.json") == 130
    report = json.loads((tmp_path / "a.json").read_text())
    assert problems(report, "stream") == []
    assert report["partial"] is True
    assert report["throughput"]["rounds"] == 1
    assert report["throughput"]["loop"]["wall"]["count"] == 1
    assert report["soak"]["frames"] == 1
    assert "interrupted: these are partial results" in capfd.readouterr().out


@pytest.mark.slow
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
    report = measure(
        StreamRequest(Subject(bundle_path), soak_frames=50, clip_frames=6, frame_size=(96, 128), live_fps=10.0)
    )
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
    report = measure(StreamRequest(Subject(bundle_path), clip, **flags), interrupt)
    assert report.partial
    assert report.sources.rounds == report.sources.one.wall.count == 1
    assert report.sources.given == {"source 1": 2, "source 2": 2}
    assert report.throughput is None


def test_an_error_keeps_the_parts_before_it(bundle_path, clip, tmp_path, monkeypatch):
    def full(*_):
        raise OutputError("cannot write a.mp4: No space left on device")

    monkeypatch.setattr("cornernet_bench.stream.throughput.VideoWriter", full)
    flags = ("--rounds", 1, "--frames", 0, "--live", 200, "--live-frames", 3)
    assert stream(bundle_path, clip, *flags, "--json", tmp_path / "a.json") == 1
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["live"]["made"] == 3
    assert report["throughput"] is None
    assert report["failures"] == ["not measured to the end: cannot write a.mp4: No space left on device"]
    assert stream(bundle_path, clip, "--rounds", 1, "--frames", 0, "--json", tmp_path / "b.json") == 1
    assert not (tmp_path / "b.json").exists()
