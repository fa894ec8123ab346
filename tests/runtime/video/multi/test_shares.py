"""Which of many sources gets how much."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
from cases.multi import PICTURE, endless, failing, made_up, pictures, taken_from

from cornernet_runtime.video.multi import MultiStream
from cornernet_runtime.video.sources import Frames


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
