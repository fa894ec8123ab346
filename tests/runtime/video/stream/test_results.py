"""Detection while frames flow: the results, what is dropped, and how stages overlap."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from cases.video_clips import moving_shapes

from cornernet_runtime.detector import Detector
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.sources import Frames


def same(found, expected):
    return np.array_equal(found.boxes, expected.boxes) and np.array_equal(found.scores, expected.scores)


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


@pytest.mark.slow
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


def test_a_detector_can_be_used_and_closed_while_it_streams(bundle_path, clip):
    frames = list(VideoFile(clip))
    with Detector.open(bundle_path, threads=1) as detector:
        stream = detector.stream(clip)
        first = next(stream)
        assert same(detector(frames[0].image), first.detections)
    assert len(list(stream)) == 39


class Cores:
    """Cores that stages take for some time each, as many as told, whatever else the machine does."""

    def __init__(self, count):
        self._free = threading.Semaphore(count)

    def work(self, seconds):
        with self._free:
            time.sleep(seconds)


@pytest.mark.slow
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
