"""The line between readers, workers and the consumer: fair, in order, bounded, and every frame accounted for."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cornernet_runtime.detections import Detections
from cornernet_runtime.errors import BackendError, FrameError
from cornernet_runtime.video.frame import VideoFrame
from cornernet_runtime.video.lane import Done, Ended
from cornernet_runtime.video.line import Line
from cornernet_runtime.video.sources import Frames
from cornernet_runtime.video.statistics import Counts

NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ())


def frame(index):
    return VideoFrame(None, index, index, Fraction(1), "made up")


def opened(line, *, newest=False):
    return line.open(Frames([]), newest=newest)


def put(line, lane, *indices):
    for index in indices:
        assert line.put(lane, frame(index))


def indices(work):
    return [entry.frame.index for entry in work.entries]


class Played:
    """A line that one thread plays all stations of, and what is held of it after each step."""

    def __init__(self, batch, workers):
        self.line, self.batch, self.ahead = Line(batch, (workers + 1) * batch), batch, (workers + 1) * batch
        self.lanes, self.at_work = [], []
        self.read_to_end, self.cut = set(), set()
        self.read, self.given, self.ended = Counter(), defaultdict(list), {}
        self.passed = {}  # by lane whose first frame waits: how often each other lane was served meanwhile

    def open(self, newest):
        self.lanes.append(opened(self.line, newest=newest))

    def arrive(self, lane):
        full = not (lane.over or lane.newest) and len(lane.waiting) >= self.line._room(lane)
        if full or lane in self.read_to_end:
            return  # its reader waits, or is gone
        wanted = self.line.put(lane, frame(self.read[lane]))
        self.read[lane] += 1
        assert wanted != lane.over
        if wanted:
            self.passed.setdefault(lane, Counter())

    def take(self):
        waiting = {lane: len(lane.waiting) for lane in self.lanes if lane.waiting}
        again, free = len(self.line._again), self.ahead - self.line._under_way
        work = self.line.take(wait=False)
        if work is None:
            assert not again
            assert not waiting or free == 0, "a worker that is free is given what waits"
            return
        self.at_work.append(work)
        if again:
            return
        assert len(work.entries) == min(self.batch, sum(waiting.values()), free)
        for entry in work.entries:
            for other, passed in self.passed.items():
                passed[entry.lane] += other is not entry.lane
                assert passed[entry.lane] <= 1, "a lane is served twice while the first frame of another waits"
            waiting[entry.lane] -= 1
            del self.passed[entry.lane]
            if waiting[entry.lane]:
                self.passed[entry.lane] = Counter()

    def finish(self, which):
        if self.at_work:
            work = self.at_work.pop(which % len(self.at_work))
            self.line.finish(work, [NOTHING] * len(work.entries))

    def refuse(self, which):
        """Blame a frame of some work; of several each is to be taken again."""
        if self.at_work:
            work = self.at_work.pop(which % len(self.at_work))
            self.line.fail(work, FrameError("no frame"))
            if len(work.entries) == 1:
                self.cut.add(work.entries[0].lane)

    def end(self, lane, error):
        if lane not in self.read_to_end:
            self.line.end(lane, error)
        self.read_to_end.add(lane)

    def remove(self, lane):
        self.line.remove(lane)
        self.cut.add(lane)
        self.ended.setdefault(lane, "removed")

    def give(self):
        if not self.line._ready:
            return
        item = self.line.next()
        if isinstance(item, Done):
            assert item.lane not in self.ended
            self.given[item.lane].append(item.frame.index)
        else:
            assert isinstance(item, Ended)
            assert item.lane not in self.ended, "a lane ends once"
            self.ended[item.lane] = item.error

    def check(self):
        open_ones = [lane for lane in self.lanes if not lane.over]
        for lane in self.lanes:
            counts = self.line.counts(lane)
            done = sum(item.lane is lane for item in self.line._ready if isinstance(item, Done))
            assert (counts.read, counts.given) == (self.read[lane], len(self.given[lane]))
            assert counts.read == counts.given + counts.dropped + done + len(lane.waiting) + len(lane.taken)
            if not lane.newest and lane not in self.cut:
                assert counts.dropped == 0
                assert self.given[lane] == list(range(counts.given))
            assert self.given[lane] == sorted(set(self.given[lane]))
            if lane.over:
                self.passed.pop(lane, None)
        results = sum(isinstance(item, Done) for item in self.line._ready)
        assert self.line._under_way == results + sum(len(lane.taken) for lane in self.lanes) <= self.ahead
        assert sum(len(lane.waiting) for lane in open_ones) <= max(self.batch, 1) + 2 * len(self.lanes)


STEPS = st.one_of(
    st.tuples(st.just("open"), st.booleans()),
    st.tuples(st.just("arrive"), st.integers(0, 9)),
    st.tuples(st.just("arrive"), st.integers(0, 9)),
    st.tuples(st.just("take")),
    st.tuples(st.just("finish"), st.integers(0, 9)),
    st.tuples(st.just("give")),
    st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from([None, None, LookupError("gone")])),
    st.tuples(st.just("refuse"), st.integers(0, 9)),
    st.tuples(st.just("remove"), st.integers(0, 9)),
)
OF_A_LANE = {"arrive", "end", "remove"}


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 5),
    workers=st.integers(1, 3),
    lanes=st.lists(st.booleans(), min_size=1, max_size=5),
    steps=st.lists(STEPS, max_size=120),
)
def test_whatever_comes_order_counts_bounds_and_fairness_hold(batch, workers, lanes, steps):
    played = Played(batch, workers)
    for newest in lanes:
        played.open(newest)
    for name, *arguments in steps:
        if name in OF_A_LANE:
            arguments[0] = played.lanes[arguments[0] % len(played.lanes)]
        getattr(played, name)(*arguments)
        played.check()
    # Whatever is left can always be brought to its end.
    for lane in played.lanes:
        played.end(lane, None)
    for _ in range(10 * len(steps) + 100):
        for step in (played.take, lambda: played.finish(0), played.give):
            step()
            played.check()
    assert set(played.ended) == set(played.lanes)
    assert played.line.next() is None
    for lane in played.lanes:
        counts = played.line.counts(lane)
        assert counts.read == counts.given + counts.dropped
        if lane.newest and lane not in played.cut and counts.read:
            assert played.given[lane][-1] == counts.read - 1, "the last frame has nothing newer"


@settings(max_examples=100, deadline=None, derandomize=True)
@given(steps=st.lists(STEPS, max_size=60))
def test_stopped_at_any_time_every_frame_was_given_or_dropped(steps):
    played = Played(2, 2)
    played.open(newest=False)
    for name, *arguments in steps:
        if name in OF_A_LANE:
            arguments[0] = played.lanes[arguments[0] % len(played.lanes)]
        getattr(played, name)(*arguments)
    played.line.stop()
    for work in played.at_work:
        played.line.finish(work, [NOTHING] * len(work.entries))
    assert played.line.next() is None
    assert played.line.take() is None
    assert opened(played.line) is None
    for lane in played.lanes:
        assert lane.over
        assert not played.line.put(lane, frame(99))
        counts = played.line.counts(lane)
        assert counts.read == played.read[lane] + 1 == counts.given + counts.dropped


def test_a_batch_takes_of_each_lane_in_turn():
    line = Line(batch=6, ahead=20)
    many, few, live = opened(line), opened(line), opened(line, newest=True)
    put(line, many, 0, 1)
    put(line, few, 10)
    put(line, live, 20, 21)
    assert indices(line.take()) == [0, 10, 21, 1]
    put(line, many, 2, 3)
    put(line, few, 11)
    assert indices(line.take()) == [11, 2, 3]
    assert line.counts(live) == Counts(read=2, dropped=1, given=0)


def test_lanes_share_the_places_of_a_batch_and_take_those_of_lanes_that_end():
    line = Line(batch=6, ahead=20)
    lanes = [opened(line) for _ in range(3)]
    put(line, lanes[0], 0, 1)
    third = threading.Thread(target=put, args=(line, lanes[0], 2))
    third.start()
    assert len(lanes[0].waiting) == 2
    line.end(lanes[1])
    third.join(30)  # half of six
    assert len(lanes[0].waiting) == 3


def test_a_batch_that_is_not_full_waits_for_the_latency_and_no_longer():
    line = Line(batch=3, ahead=20, latency=60)
    lanes = [opened(line, newest=True) for _ in range(4)]
    for index in range(2):
        put(line, lanes[index], index)
        assert line.take(wait=False) is None
    put(line, lanes[2], 2)
    assert indices(line.take()) == [0, 1, 2]
    line._latency = 0.05
    put(line, lanes[0], 3)
    assert indices(line.take()) == [3]


def test_newer_frames_of_a_lane_do_not_prolong_the_wait():
    line = Line(batch=2, ahead=20, latency=60)
    lane, _ = opened(line, newest=True), opened(line)
    put(line, lane, 0)
    since = lane.waiting[0].since
    put(line, lane, 1)
    assert lane.waiting[0].since == since < lane.waiting[0].arrived


def test_nothing_is_waited_for_that_cannot_come():
    line = Line(batch=8, ahead=20, latency=60)
    live, other = opened(line, newest=True), opened(line)
    put(line, live, 0)
    taken = []
    worker = threading.Thread(target=lambda: taken.append(line.take()))
    worker.start()
    line.end(other)
    worker.join(30)
    assert indices(taken[0]) == [0]


def test_an_error_of_a_worker_ends_all_lanes_after_what_came_before():
    line = Line(batch=1, ahead=20)
    first, second = opened(line), opened(line)
    put(line, first, 0)
    put(line, second, 10)
    early = line.take(), line.take()
    put(line, first, 1)
    late = line.take()
    line.fail(late, BackendError("the GPU is lost"))
    for work in early:
        line.finish(work, [NOTHING])
    assert line.take() is None
    assert not line.put(first, frame(2))
    items = [line.next() for _ in range(4)]
    assert [item.frame.index for item in items if isinstance(item, Done)] == [0, 10]
    assert [item.error for item in items if isinstance(item, Ended)] == [None, None]
    with pytest.raises(BackendError, match="the GPU is lost"):
        line.next()
    assert line.next() is None


def test_frames_that_were_to_be_tried_again_do_not_outlive_an_error_of_a_worker():
    line = Line(batch=2, ahead=20)
    lane = opened(line)
    put(line, lane, 0, 1)
    line.fail(line.take(), FrameError("one of two is none"))
    line.fail(None, BackendError("no memory"))
    assert lane.over
    assert line.next() == Ended(lane, None)
    with pytest.raises(BackendError, match="no memory"):
        line.next()
    assert line.counts(lane) == Counts(read=2, dropped=2, given=0)


def test_what_ended_a_lane_is_known_even_if_nobody_asked_in_time():
    line = Line(batch=2, ahead=20)
    bad, broken = opened(line), opened(line)
    put(line, bad, 0)
    line.fail(line.take(), FrameError("no frame"))
    line.end(broken, LookupError("gone"))
    line.stop()
    assert line.next() is None
    assert [str(bad.error), str(broken.error)] == ["no frame", "gone"]
