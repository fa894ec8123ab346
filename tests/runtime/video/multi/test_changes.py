"""Sources that are added and removed while it runs, and closing."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter

import pytest
from cases.multi import PICTURE, endless, failing, made_up, pictures
from cases.video_clips import moving_shapes, write_clip

from cornernet_runtime.errors import VideoError
from cornernet_runtime.video.multi import MultiStream
from cornernet_runtime.video.pool import Crew
from cornernet_runtime.video.sources import Frames

PATIENCE = 20  # seconds


@made_up
def test_sources_come_and_go_while_it_runs(detector):
    stream = MultiStream(detector, [endless("a")], batch=1)
    assert next(stream).frame.source == "a"
    assert stream.add(pictures(3, "b")) == "b"
    assert stream.add(endless("a", live=True)) == "a 2"
    seen = Counter()
    for result in stream:
        seen[result.frame.source] += 1
        if seen["b"] == 3 and seen["a 2"] > 3:
            break
    stream.remove("a 2")
    assert set(stream.statistics) == {"a", "b"}
    assert [result.frame.source for _, result in zip(range(10), stream, strict=False)] == ["a"] * 10
    assert stream.add(pictures(2, "a 2")) == "a 2"
    stream.remove("a")
    assert [result.frame.source for result in stream] == ["a 2"] * 2
    with pytest.raises(VideoError, match="late: the stream has ended and takes no more sources"):
        stream.add(pictures(1, "late"))
    with pytest.raises(VideoError, match="c: no such source; there are b, a 2"):
        stream.remove("c")


def test_a_source_that_fails_while_another_thread_adds_it_is_told_of_at_once(detector, monkeypatch):
    read, go_on, told = Crew.read, threading.Event(), []

    def read_slowly(*arguments, **options):
        lane = read(*arguments, **options)
        time.sleep(0.3)  # in which the consumer hears of the end
        return lane

    def waiting():
        yield PICTURE
        go_on.wait(PATIENCE)

    first = Frames(waiting(), name="a")
    with MultiStream(detector, [first], on_source_error=lambda name, _: told.append(name)) as stream:
        monkeypatch.setattr(Crew, "read", read_slowly)
        consumer = threading.Thread(target=lambda: list(stream))
        consumer.start()
        stream.add(failing(0, "b"))
        deadline = time.perf_counter() + 3
        while not told and time.perf_counter() < deadline:
            time.sleep(0.01)
        before_the_end = list(told)
        go_on.set()
        consumer.join(PATIENCE)
    assert before_the_end == ["b"]


def test_a_source_that_is_added_while_the_stream_is_closed_is_ended(detector, monkeypatch):
    stopped = threading.Event()

    class Silent(Frames):
        def stop(self):
            stopped.set()

    def wait():
        stopped.wait(PATIENCE)
        yield PICTURE

    with MultiStream(detector, [pictures(1)]) as stream:
        open_lane = stream._crew.line.open

        def open_and_close(*arguments, **options):
            lane = open_lane(*arguments, **options)
            stream._crew.stop()
            return lane

        monkeypatch.setattr(stream._crew.line, "open", open_and_close)
        stream.add(Silent(wait(), name="b"))
        ended = stopped.wait(1)
        stopped.set()
    assert ended


def test_it_ends_without_sources(detector):
    assert list(MultiStream(detector)) == []


def test_a_source_that_cannot_be_opened_leaves_none_open(detector, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving_shapes(3))
    with pytest.raises(VideoError, match=r"none\.mp4"):
        MultiStream(detector, [clip, tmp_path / "none.mp4"])
    same = pictures(3)
    with pytest.raises(VideoError, match="frames: expected each source once, got it twice"):
        MultiStream(detector, [same, same])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": "all"}, 'policy: expected "every" or "newest", got \'all\''),
        ({"workers": 0}, "workers: expected 1 or more, got 0"),
        ({"latency_s": -0.1}, "latency_s: expected 0 or more seconds, got -0.1"),
        ({"latency_s": float("nan")}, "latency_s: expected 0 or more seconds, got nan"),
    ],
)
def test_options_that_are_none_are_named(detector, options, said):
    with pytest.raises(VideoError) as caught:
        MultiStream(detector, [], **options)
    assert str(caught.value) == said


def test_a_stream_that_nobody_refers_to_any_more_ends(detector):
    stream = MultiStream(detector, [endless("a"), endless("b", live=True)])
    next(stream)
    stream.myself = stream  # only the collector can find this one
    del stream
    gc.collect()


def test_an_interrupt_ends_it(detector, monkeypatch):
    stream = MultiStream(detector, [endless("a"), endless("b")])

    def interrupted():
        raise KeyboardInterrupt

    next(stream)
    monkeypatch.setattr(stream._crew.line, "next", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(stream)


@made_up
def test_memory_stays_as_it_is_while_sources_come_and_go(detector):
    stream = MultiStream(detector, [endless("a")], batch=4)
    for number in range(20):
        name = stream.add(endless(f"b {number}"))
        while next(stream).frame.source != name:
            pass
        stream.remove(name)
        next(reader for reader, lane in stream._crew._readers if lane.source.name == name).join(30)
    stream.add(pictures(1, "last"))
    assert [lane.source.name for _, lane in stream._crew._readers] == ["a", "last"]
    stream.close()
