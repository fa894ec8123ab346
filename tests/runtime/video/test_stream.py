"""Detection while frames flow: the results, what is dropped, and how it ends, whatever goes wrong where."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cases.video_clips import moving_shapes, truncated, write_clip
from places import ROOT, SUPPORT
from servers.left_over import threads_and_files

from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import CornerNetWarning, FrameError, VideoError
from cornernet_runtime.video import crew as crew_module
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.sources import Frames


@pytest.fixture(scope="module")
def detector(bundle_path):
    with Detector.open(bundle_path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_shapes(40))


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Hold each test to leaving no thread and no open file."""
    gc.collect()
    before = threads_and_files()
    yield
    gc.collect()
    assert threads_and_files() == before


def same(found, expected):
    return np.array_equal(found.boxes, expected.boxes) and np.array_equal(found.scores, expected.scores)


def taken_from(stream):
    """Return the indices of the results that a stream gives, and its error."""
    seen = []
    try:
        seen.extend(result.index for result in stream)
    except VideoError as error:
        return seen, error
    return seen, None


class Ticking:
    """A live source: frames come at a rate, whether anyone takes them or not."""

    def __init__(self, count, fps):
        self.came = []
        self._count, self._fps = count, fps

    def __iter__(self):
        images, start = list(moving_shapes(8)), time.perf_counter()
        for index in range(self._count):
            time.sleep(max(0.0, start + index / self._fps - time.perf_counter()))
            self.came.append(time.perf_counter())
            yield images[index % 8]


def slow(detector, seconds, monkeypatch):
    """Make the network wait, as one on another device does."""
    run = type(detector.backend).__call__

    def wait(self, images):
        time.sleep(seconds)
        return run(self, images)

    monkeypatch.setattr(type(detector.backend), "__call__", wait)


# What comes out.


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_frame_has_what_the_detector_finds_in_order_and_with_its_time(detector, clip, workers):
    frames = list(VideoFile(clip))
    with detector.stream(clip, workers=workers) as stream:
        assert stream.policy == "every"
        results = list(stream)
    assert [result.index for result in results] == list(range(40))
    assert [result.seconds for result in results] == [frame.seconds for frame in frames]
    for result, frame in zip(results, frames, strict=True):
        assert np.array_equal(result.image, frame.image)
        assert len(result.detections) > 10
        assert same(result.detections, detector(frame.image))
        assert 0 < result.detecting_s <= result.lag_s
    counts = stream.statistics
    assert (counts.read, counts.dropped, counts.given) == (40, 0, 40)


def test_frames_that_wait_are_run_together(batch_bundle_path, monkeypatch):
    with Detector.open(batch_bundle_path, threads=1) as detector:
        sizes, run = [], type(detector.backend).__call__
        monkeypatch.setattr(
            type(detector.backend), "__call__", lambda self, images: (sizes.append(len(images)), run(self, images))[1]
        )
        slow(detector, 0.02, monkeypatch)
        frames = list(moving_shapes(23))
        results = list(detector.stream(frames, workers=1))
        assert sum(sizes) == 23
        assert max(sizes) == detector.backend.max_batch == 4
        sizes.clear()
        list(detector.stream(frames, workers=1, batch=2))
        assert max(sizes) == 2
        assert [result.index for result in results] == list(range(23))
        for result, frame in zip(results, frames, strict=True):
            expected = detector(frame)
            assert result.detections.labels.tolist() == expected.labels.tolist()
            # A batch may be added up in another order.
            assert np.abs(result.detections.boxes - expected.boxes).max() < 1e-3


def test_every_makes_the_source_wait_for_the_consumer(detector):
    made = []

    def frames():
        for image in moving_shapes(60):
            made.append(True)
            yield image

    with detector.stream(frames(), workers=2) as stream:
        for taken, _ in enumerate(stream, start=1):
            time.sleep(0.005)
            # Three with workers or done, one that waits, and one in the reader's hand.
            assert len(made) <= taken + 5
    assert stream.statistics.dropped == 0


def test_newest_drops_what_is_stale_counts_it_and_lags_no_more_than_a_frame_takes(detector, monkeypatch):
    slow(detector, 0.04, monkeypatch)
    source = Frames(Ticking(240, fps=60), live=True)
    with detector.stream(source) as stream:
        assert stream.policy == "newest"
        results = list(stream)
    counts = stream.statistics
    assert counts.read == 240
    assert counts.given == len(results) < 150
    assert counts.read == counts.given + counts.dropped
    assert all(before.index < after.index for before, after in pairwise(results))
    assert results[-1].index == 239, "the last frame has nothing newer"
    lags, takes = ([getattr(result, name) for result in results] for name in ("lag_s", "detecting_s"))
    assert np.quantile(lags, 0.99) < 3 * np.median(takes)
    assert counts.worst_lag_ms == pytest.approx(1000 * max(lags))


def test_newest_bounds_the_lag_with_a_slow_consumer_too(detector):
    source = Frames(Ticking(150, fps=100), live=True)
    lags = []
    for result in detector.stream(source):
        lags.append(result.lag_s)
        time.sleep(0.05)
    assert len(lags) > 10
    # A result that is done waits for the consumer at most once, behind one that waited as well.
    assert np.median(lags) < 0.15


def test_statistics_tell_rates_and_stages(detector, clip):
    with detector.stream(clip) as stream:
        for _ in stream:
            time.sleep(0.002)
    told = stream.statistics
    assert set(told.stage_ms) == {"reading", "preprocess", "network", "decode", "soft_nms", "consumer"}
    assert all(value > 0 for value in told.stage_ms.values())
    assert told.stage_ms["consumer"] >= 2
    assert told.fps == pytest.approx(40 / told.elapsed_s, rel=0.5)  # the first frame takes longer to come
    assert 0 < told.lag_ms <= told.worst_lag_ms
    assert stream.statistics == told, "the clock has stopped"


# How it ends.


def test_it_ends_with_the_source_and_stays_ended(detector):
    stream = detector.stream(moving_shapes(3))
    assert len(list(stream)) == 3
    assert list(stream) == []
    assert list(detector.stream([])) == []


def test_closing_early_ends_all_threads_and_closes_the_source(detector):
    closed = []

    def endless():
        try:
            while True:
                yield from moving_shapes(10)
        finally:
            closed.append(threading.current_thread().name)

    with detector.stream(endless()) as stream:
        for result in stream:
            if result.index == 7:
                break
    assert closed == ["cornernet_read"]
    counts = stream.statistics
    assert counts.given == 8
    assert counts.read == counts.given + counts.dropped
    assert list(stream) == []


def test_a_consumer_that_raises_ends_it(detector, clip):
    def consume():
        with detector.stream(clip) as stream:
            return [1 / result.index for result in stream]

    with pytest.raises(ZeroDivisionError):
        consume()


def test_a_stream_that_nobody_refers_to_any_more_ends(detector, clip):
    next(detector.stream(clip))
    stream = detector.stream(clip)
    stream.myself = stream  # only the collector can find this one
    del stream
    gc.collect()


def test_an_error_of_the_source_comes_after_all_results_of_before(detector):
    def frames():
        yield from moving_shapes(6)
        raise LookupError("the lens is dirty")

    seen, error = taken_from(detector.stream(frames()))
    assert seen == list(range(6))
    assert str(error) == "frames: LookupError: the lens is dirty"
    assert isinstance(error.__cause__, LookupError)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_while_detecting_comes_after_all_results_of_before(detector, monkeypatch, workers):
    batch = Detector.batch

    def fail(self, frames):
        if frames[0][0, 0, 0] == 99:
            raise MemoryError("no room")
        return batch(self, frames)

    monkeypatch.setattr(Detector, "batch", fail)
    frames = [np.full((64, 96, 3), 99 if index == 12 else 5, np.uint8) for index in range(30)]
    seen, error = taken_from(detector.stream(frames, workers=workers, batch=1))
    assert seen == list(range(12))
    assert str(error) == "frames: MemoryError: no room"
    assert isinstance(error.__cause__, MemoryError)


def test_errors_of_ours_are_raised_as_they_are(detector):
    frames = [*moving_shapes(2), np.zeros((4, 4), np.uint8)]
    with pytest.raises(FrameError, match="frames, frame 2: a frame is uint8"):
        list(detector.stream(frames))


def test_a_frame_of_an_odd_type_is_named(detector):
    with pytest.raises(FrameError, match=r"a frame is a NumPy array .*, got str"):
        list(detector.stream(["a.png"]))


def test_what_is_wrong_with_a_file_is_warned_of_once_at_its_end(detector, tmp_path):
    path = truncated(write_clip(tmp_path / "a.mkv", moving_shapes(50)), 0.6)
    stream = detector.stream(path)
    with pytest.warns(CornerNetWarning, match="it is cut short or damaged") as caught:
        results = list(stream)
    assert len(caught) == 1
    assert len(results) > 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(stream) == []


def test_a_source_that_does_not_answer_is_not_waited_for_without_end(detector, monkeypatch):
    monkeypatch.setattr(crew_module, "PATIENCE", 0.2)
    answer = threading.Event()

    def silent():
        yield from moving_shapes(2)
        answer.wait(60)

    stream = detector.stream(silent())
    assert [next(stream).index for _ in range(2)] == [0, 1]
    with pytest.warns(CornerNetWarning, match=r"cornernet_read is still busy after 0\.2 s"):
        stream.close()
    answer.set()
    reader = next((thread for thread in threading.enumerate() if thread.name == "cornernet_read"), None)
    if reader is not None:
        reader.join(10)


def test_what_is_collected_in_a_thread_of_its_own_does_not_wait_for_the_others(detector):
    took, made, over = [], threading.Event(), threading.Event()

    def frames():
        made.wait(20)
        with stream._crew.line._lock:  # held wherever the collector may run
            start = time.perf_counter()
            stream._crew.stop()
            took.append(time.perf_counter() - start)
        over.set()
        yield from ()

    stream = detector.stream(frames())
    threads = [thread for thread, _ in stream._crew._readers] + stream._crew._workers
    made.set()
    assert over.wait(20)
    for thread in threads:
        thread.join(20)
    stream.close()
    assert took[0] < 1


def test_a_source_that_is_read_is_not_closed_by_another_thread(detector, monkeypatch):
    closed_in = []

    class Watched(Frames):
        def close(self):
            closed_in.append(threading.current_thread().name)
            super().close()

    def fail(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(crew_module.Crew, "start", fail)
    with pytest.raises(RuntimeError, match="new thread"):
        detector.stream(Watched(moving_shapes(3)))
    assert set(closed_in) == {"cornernet_read"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"policy": "all"}, 'policy: expected "every" or "newest", got \'all\''),
        ({"workers": 0}, "workers: expected 1 or more, got 0"),
        ({"batch": -1}, "batch: expected 1 or more, got -1"),
    ],
)
def test_options_that_are_none_are_named(detector, options, said):
    with pytest.raises(VideoError) as caught:
        detector.stream([], **options)
    assert str(caught.value) == said


def test_a_detector_can_be_used_and_closed_while_it_streams(bundle_path, clip):
    frames = list(VideoFile(clip))
    with Detector.open(bundle_path, threads=1) as detector:
        stream = detector.stream(clip)
        first = next(stream)
        assert same(detector(frames[0].image), first.detections)
    assert len(list(stream)) == 39


INTERRUPTED = """
import sys, threading, time
from cornernet_runtime import Detector
sys.path.insert(0, {tests!r})
from cases.video_clips import moving_shapes

def endless():
    while True:
        yield from moving_shapes(10)

def stalled():
    yield from moving_shapes(3)
    time.sleep(1)  # the consumer waits meanwhile

print("ready", flush=True)
try:
    for result in Detector.open({model!r}, threads=1).stream({source}):
        print(result.index, flush=True)
except KeyboardInterrupt:
    result = None
    print("left", threading.active_count(), flush=True)
"""


def start(code):
    folders = [ROOT / name for name in ("runtime", "export", "training", "benchmarks")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("source", ["endless()", "stalled()"])
def test_an_interrupt_ends_it(bundle_path, source):
    process = start(INTERRUPTED.format(tests=str(SUPPORT), model=str(bundle_path), source=source))
    for line in process.stdout:
        if line == "2\n":
            break
    process.send_signal(2)
    output, errors = process.communicate(timeout=60)
    assert output.splitlines()[-1] == "left 1", errors
    assert process.returncode == 0


def test_a_program_can_end_while_a_stream_is_open(bundle_path):
    code = INTERRUPTED.split("print", 1)[0] + (
        f"stream = Detector.open({str(bundle_path)!r}, threads=1).stream(endless())\nprint(next(stream).index)\n"
    )
    process = start(code.format(tests=str(SUPPORT)))
    output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == ("0\n", "", 0)


def test_memory_threads_and_descriptors_stay_as_they_are(detector):
    frames = list(moving_shapes(8, (360, 640)))

    def run(count):
        for _ in detector.stream(frames[index % 8].copy() for index in range(count)):
            pass
        return resident()

    run(200)
    before = run(100)
    # A run of 10,000 frames stays within 2 %; a short one has a little noise beside it.
    assert run(800) <= 1.02 * before + 1


def resident():
    """Return MiB."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("resident memory is read from /proc")
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmRSS"))


class Cores:
    """Cores that stages take for some time each, as many as told, whatever else the machine does."""

    def __init__(self, count):
        self._free = threading.Semaphore(count)

    def work(self, seconds):
        with self._free:
            time.sleep(seconds)


@pytest.mark.parametrize(("read", "detect", "consume"), [(0.04, 0.16, 0.12), (0.12, 0.12, 0), (0, 0.24, 0.08)])
def test_stages_overlap_as_far_as_two_cores_allow(detector, monkeypatch, read, detect, consume):
    cores, nothing = Cores(2), detector(next(moving_shapes(1)))
    monkeypatch.setattr(Detector, "batch", lambda _, frames: (cores.work(detect * len(frames)), [nothing])[1])
    image = next(moving_shapes(1))

    def frames():
        for _ in range(30):
            cores.work(read)
            yield image

    start = time.perf_counter()
    for _ in detector.stream(frames(), workers=2):
        cores.work(consume)
    allowed = 30 * max((read + detect + consume) / 2, read, detect / 2, consume)
    assert allowed / (time.perf_counter() - start) > 0.8
