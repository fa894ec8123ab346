"""Many sources, one model: whose results are whose, who gets how much, what the end of one means for the others."""

from __future__ import annotations

import gc
import threading
import time
import warnings
from collections import Counter, defaultdict

import numpy as np
import pytest
from cases.video_clips import moving_shapes, truncated, write_clip
from servers.left_over import threads_and_files

from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError, CornerNetWarning, FrameError, VideoError
from cornernet_runtime.video.crew import Crew
from cornernet_runtime.video.multi import MultiStream
from cornernet_runtime.video.sources import Frames

PATIENCE = 20  # seconds
PICTURE = np.zeros((64, 96, 3), np.uint8)
made_up = pytest.mark.usefixtures("sizes")


@pytest.fixture(scope="module")
def detector(batch_bundle_path):
    """Of batches of up to four."""
    with Detector.open(batch_bundle_path, threads=1) as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Hold each test to leaving no thread and no open file."""
    gc.collect()
    before = threads_and_files()
    yield
    gc.collect()
    assert threads_and_files() == before


@pytest.fixture
def sizes(detector, monkeypatch):
    """Make the detector one that takes 20 ms for a batch of any size and finds nothing; the sizes of its batches."""
    nothing, seen = detector(PICTURE), []

    def wait(_, frames):
        time.sleep(0.02)
        seen.append(len(frames))
        return [nothing] * len(frames)

    monkeypatch.setattr(Detector, "batch", wait)
    return seen


def pictures(count, name="frames", **options):
    return Frames((PICTURE for _ in range(count)), name=name, **options)


def endless(name, *, live=False):
    """Return a source that never waits, or, if it is live, gives five frames in the time of a run."""

    def frames():
        while True:
            time.sleep(0.004 if live else 0)
            yield PICTURE

    return Frames(frames(), live=live, name=name)


def failing(count, name):
    def frames():
        for _ in range(count):
            yield PICTURE
        raise LookupError("the lens is dirty")

    return Frames(frames(), name=name)


def taken_from(stream):
    """Return the indices of the results by source, the error, and the warnings."""
    seen, failed = defaultdict(list), None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CornerNetWarning)
        try:
            for result in stream:
                seen[result.frame.source].append(result.index)
        except VideoError as error:
            failed = error
    return dict(seen), failed, [str(warning.message) for warning in said]


# What comes out.


@pytest.mark.parametrize(("workers", "batch"), [(1, 1), (2, 4), (3, 2)])
def test_each_source_has_what_the_detector_finds_in_its_order(detector, tmp_path, workers, batch):
    clip = write_clip(tmp_path / "clip.mp4", moving_shapes(12))
    scenes = {seed: list(moving_shapes(9, (126, 190 + 10 * seed), seed=seed)) for seed in (1, 2)}
    sources = [clip, *(Frames(frames, fps=10, name=f"scene {seed}") for seed, frames in scenes.items())]
    with MultiStream(detector, sources, workers=workers, batch=batch) as stream:
        results = defaultdict(list)
        for result in stream:
            results[result.frame.source].append(result)
    assert {name: len(found) for name, found in results.items()} == {str(clip): 12, "scene 1": 9, "scene 2": 9}
    for seed, frames in scenes.items():
        found = results[f"scene {seed}"]
        assert [result.index for result in found] == list(range(9))
        assert [result.seconds for result in found] == [index / 10 for index in range(9)]
        for result, frame in zip(found, frames, strict=True):
            assert result.image is frame
            expected = detector(frame)
            assert len(expected) > 10
            assert result.detections.labels.tolist() == expected.labels.tolist()
            # A batch may be added up in another order.
            assert np.abs(result.detections.boxes - expected.boxes).max() < 1e-3
            assert 0 < result.detecting_s <= result.lag_s


def test_equal_names_are_numbered(sizes, detector):
    with MultiStream(detector, [pictures(2), pictures(3), pictures(4, "frames 2"), pictures(5)]) as stream:
        seen, error, said = taken_from(stream)
    assert {name: len(found) for name, found in seen.items()} == {
        "frames": 2,
        "frames 2": 3,
        "frames 2 2": 4,
        "frames 3": 5,
    }
    assert (error, said) == (None, [])
    assert sum(sizes) == 14


def test_statistics_are_of_each_source(detector):
    with MultiStream(detector, [pictures(30), pictures(10, "live", live=True)]) as stream:
        seen, _, _ = taken_from(stream)
        told = stream.statistics
    assert list(told) == ["frames", "live"]
    assert (told["frames"].read, told["frames"].dropped, told["frames"].given) == (30, 0, 30)
    live = told["live"]
    assert live.read == 10 == live.dropped + live.given
    assert live.given == len(seen["live"])
    assert seen["live"][-1] == 9, "the last frame has nothing newer"
    for one in told.values():
        assert list(one.stage_ms) == ["reading", "preprocess", "network", "decode", "soft_nms", "consumer"]
        assert 0 < one.lag_ms <= one.worst_lag_ms
        assert one.fps > 0
    assert stream.statistics == told, "the clocks have stopped"


@made_up
@pytest.mark.parametrize(("policy", "dropped"), [("every", False), ("newest", True)])
def test_a_policy_is_for_all_sources(detector, policy, dropped):
    with MultiStream(detector, [pictures(40), pictures(40, "live", live=True)], policy=policy, batch=1) as stream:
        taken_from(stream)
    assert [one.dropped > 0 for one in stream.statistics.values()] == [dropped, dropped]


# Who gets how much.


@made_up
def test_sources_that_bring_more_than_their_share_get_equal_shares(detector):
    sources = [endless(f"camera {number}", live=number < 4) for number in range(8)]
    seen = Counter()
    with MultiStream(detector, sources, batch=1, workers=1) as stream:
        for _, result in zip(range(80), stream, strict=False):
            seen[result.frame.source] += 1
    assert len(seen) == 8
    # Ten each; a reader that the machine lets wait misses a turn.
    assert min(seen.values()) >= 7


@made_up
def test_a_source_that_brings_little_does_not_wait_behind_one_that_brings_much(detector):
    gate = threading.Semaphore(0)

    def now_and_then():
        for _ in range(5):
            gate.acquire()
            yield PICTURE

    others = [endless(f"fast {number}") for number in range(4)]
    since, waits = 0, []
    with MultiStream(detector, [*others, Frames(now_and_then(), name="slow")], batch=1, workers=1) as stream:
        gate.release()
        for result in stream:
            since += 1
            if result.frame.source != "slow":
                continue
            waits.append(since)
            if len(waits) == 5:
                break
            since = 0
            gate.release()
    # One that each of the others was owed, and three that were under way or done.
    assert np.median(waits) <= 4 + 3 + 1


def test_eight_sources_fill_batches_as_one_does(detector, sizes):
    runs = {}
    for sources in (1, 8):
        sizes.clear()
        each = 160 // sources
        with MultiStream(detector, [pictures(each) for _ in range(sources)], batch=4, workers=1) as stream:
            seen, _, _ = taken_from(stream)
        assert [len(found) for found in seen.values()] == [each] * sources
        assert sum(sizes) == 160
        runs[sources] = len(sizes)
    # Every run takes the same time here.
    assert runs[1] / runs[8] >= 0.9
    assert runs[1] <= 50


def test_killing_three_of_eight_does_not_slow_the_rest(detector, sizes):
    sources = [failing(5, f"camera {number}") if number < 3 else pictures(29, "good") for number in range(8)]
    with MultiStream(detector, sources, batch=4, workers=1) as stream:
        seen, error, _ = taken_from(stream)
    assert sorted(map(len, seen.values())) == [5] * 3 + [29] * 5
    assert "3 of 8 sources failed" in str(error)
    assert len(sizes) <= (3 * 5 + 5 * 29) / 4 / 0.9, "batches stay full"


@made_up
def test_a_source_that_stalls_does_not_hold_up_the_others(detector):
    answer = threading.Event()

    def stalled():
        yield PICTURE
        answer.wait(60)
        yield PICTURE

    sources = [Frames(stalled(), name="stalled"), *(pictures(20) for _ in range(4))]
    left = 80
    with MultiStream(detector, sources, batch=4, latency_s=0.03) as stream:
        for result in stream:
            left -= result.frame.source != "stalled"
            assert left == 0 or not answer.is_set()
            if left == 0:
                answer.set()
        assert stream.statistics["stalled"].given == 2
    assert left == 0


def test_a_batch_waits_for_frames_for_a_time_that_is_bounded(detector, sizes):
    gates = [threading.Event() for _ in range(4)]

    def two(number):
        yield PICTURE
        gates[number].wait(60)
        yield PICTURE

    sources = [Frames(two(number), live=True) for number in range(4)]
    with MultiStream(detector, sources, batch=4, workers=1, latency_s=60) as stream:
        assert [next(stream).index for _ in range(4)] == [0] * 4
        assert sizes == [4]
        for gate in gates:
            gate.set()
        assert [result.index for result in stream] == [1] * 4
    with MultiStream(detector, [pictures(1), pictures(1, live=True)], batch=4, latency_s=60) as stream:
        assert len(list(stream)) == 2, "nothing is waited for that cannot come"


def test_a_slow_consumer_makes_files_wait_and_drops_frames_of_cameras(detector):
    made = Counter()

    def counted(name):
        while True:
            made[name] += 1
            yield PICTURE

    names = [f"file {number}" for number in range(4)]
    sources = [Frames(counted(name), name=name) for name in names]
    ages = []
    with MultiStream(detector, [*sources, endless("camera", live=True)], batch=4, workers=1) as stream:
        for taken, result in enumerate(stream, start=1):
            time.sleep(0.005)
            # With the worker or done, waiting, and one in the hand of each reader.
            assert sum(made.values()) <= taken + 8 + 4 + 4
            if result.frame.source == "camera":
                ages.append(result.lag_s)
            if taken == 200:
                break
    told = stream.statistics
    assert sum(told[name].given for name in names) + told["camera"].given == 200
    assert told["camera"].dropped > 0
    assert len(ages) >= 20


# How sources end.


@made_up
def test_an_error_of_a_source_is_told_at_once_kept_and_raised_at_the_end(detector):
    stream = MultiStream(detector, [failing(3, "camera 0"), endless("camera 1")], batch=1)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CornerNetWarning)
        result = next(result for result in stream if stream.errors)
    assert [str(warning.message) for warning in said] == [
        "camera 0: LookupError: the lens is dirty; the other sources go on"
    ]
    assert said[0].filename == __file__
    assert stream.statistics["camera 0"].given == 3
    assert [told.state for told in stream.statistics.values()] == ["failed", None]
    assert isinstance(stream.errors["camera 0"].__cause__, LookupError)
    assert result.frame.source == "camera 1"
    stream.remove("camera 1")
    with pytest.raises(VideoError) as caught:
        list(stream)
    assert str(caught.value) == "1 of 1 sources failed: camera 0: LookupError: the lens is dirty"
    assert caught.value.__cause__.exceptions == (stream.errors["camera 0"],)
    assert list(stream) == []


@made_up
def test_who_is_told_of_an_error_may_open_the_source_again(detector):
    told = []

    def open_again(name, error):
        told.append((name, str(error)))
        if len(told) < 3:
            stream.remove(name)
            assert stream.add(failing(4, name)) == name

    stream = MultiStream(detector, [failing(4, "camera"), pictures(6)], on_source_error=open_again)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CornerNetWarning)
        seen = Counter(result.frame.source for result in stream)
    assert seen == {"camera": 12, "frames": 6}
    assert told == [("camera", "camera: LookupError: the lens is dirty")] * 3
    assert list(stream.errors) == ["camera"]


@made_up
def test_an_error_that_nobody_was_told_of_is_told_when_the_stream_is_closed(detector):
    readers = []

    def broken():
        readers.append(threading.current_thread())
        yield PICTURE
        raise VideoError("camera 3 is gone")

    stream = MultiStream(detector, [Frames(broken(), name="camera 3"), endless("camera 4")], batch=1)
    assert "camera 3" in (result.frame.source for result in stream)
    readers[0].join(30)
    with pytest.warns(CornerNetWarning, match="camera 3 is gone$"):
        stream.close()
    assert str(stream.errors["camera 3"]) == "camera 3 is gone"


def test_a_frame_that_is_none_ends_its_source_alone(detector):
    bad = Frames([PICTURE, PICTURE, "a.png", PICTURE], name="bad")
    with MultiStream(detector, [bad, *(pictures(20) for _ in range(3))], batch=4) as stream:
        seen, error, said = taken_from(stream)
    assert seen == {"bad": [0, 1], **{name: list(range(20)) for name in ("frames", "frames 2", "frames 3")}}
    assert len(said) == 1
    assert "bad: a frame is a NumPy array" in said[0]
    assert "got str" in str(error)
    assert isinstance(stream.errors["bad"], FrameError)


def test_an_error_of_the_detector_ends_all(detector, monkeypatch):
    batch, calls = Detector.batch, []

    def fail(self, frames):
        calls.append(None)
        if len(calls) > 5:
            raise BackendError("the network cannot be run")
        return batch(self, frames)

    monkeypatch.setattr(Detector, "batch", fail)
    seen = []
    with (
        pytest.raises(BackendError, match="the network cannot be run"),
        MultiStream(detector, [endless("a"), endless("b")], batch=1, workers=2) as stream,
    ):
        seen.extend(stream)
    assert len(seen) <= 5
    told = stream.statistics.values()
    assert all(one.read == one.given + one.dropped for one in told)


@made_up
def test_what_is_wrong_with_a_file_is_warned_of_when_it_ends(detector, tmp_path):
    path = truncated(write_clip(tmp_path / "a.mkv", moving_shapes(50)), 0.6)
    with MultiStream(detector, [path, pictures(5)], batch=4) as stream:
        seen, error, said = taken_from(stream)
    assert len(seen[str(path)]) > 10
    assert error is None
    assert len(said) == 1
    assert "it is cut short or damaged" in said[0]


# Adding, removing, closing.


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
