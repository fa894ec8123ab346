"""The way of frames from readers through workers to the consumer: bounded, fair, in order, and stopped as one."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from cornernet_runtime.errors import FrameError
from cornernet_runtime.video.lane import Done, Ended, Entry, Lane, Work
from cornernet_runtime.video.statistics import Counts, Meter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cornernet_runtime.detections import Detections
    from cornernet_runtime.video.frame import Source, VideoFrame


class Line:
    """Frames on their way; each method is for the threads of one station, and all may be called at once.

    Every source has a lane. Workers are given batches of frames of all lanes: each next frame is of the lane that was
    served the longest ago, so that a frame at the head of its lane waits for one of each other lane at most. Results
    leave in the order of their lane, and otherwise as they come. After ``stop`` every method returns at once.

    An error of a frame (``FrameError``) ends its lane, an error of a worker all of them; what came before in a lane
    is given first.

    Args:
        batch: Frames that a worker takes at once, at most; so many may wait for workers, or one of each lane.
        ahead: Frames that may be with workers or done, and not yet given.
        latency: Seconds that frames wait for others while the batch is not full.
    """

    def __init__(self, batch: int, ahead: int, latency: float = 0.0) -> None:
        self._batch, self._ahead, self._latency = batch, ahead, latency
        # Of the kind that its own thread may take again, for the garbage collector may call ``stop`` in any of them.
        self._lock = threading.RLock()
        self._for_workers, self._for_consumer = threading.Condition(self._lock), threading.Condition(self._lock)
        self._lanes: list[Lane] = []  # those that are not over
        self._again: deque[Work] = deque()
        self._ready: deque[Done | Ended] = deque()
        self._under_way = self._turn = self._given = 0
        self._stopped = self._failed = False
        self._error: BaseException | None = None

    # For whoever has the sources.

    def open(self, source: Source, *, newest: bool) -> Lane | None:
        """Return a new lane for a source; None after the end."""
        with self._lock:
            if self._stopped or self._failed:
                return None
            lane = Lane(source, Meter(), newest, threading.Condition(self._lock))
            self._lanes.append(lane)
            return lane

    def remove(self, lane: Lane) -> None:
        """Drop what is on its way in a lane, of which nothing is given any more."""
        with self._lock:
            if not lane.over:
                self._end(lane)
            mine = [item for item in self._ready if item.lane is lane]
            self._ready = deque(item for item in self._ready if item.lane is not lane)
            results = sum(isinstance(item, Done) for item in mine)
            lane.dropped += results
            self._under_way -= results
            self._for_workers.notify_all()

    def counts(self, lane: Lane) -> Counts:
        """Return how many frames of a lane went where so far."""
        with self._lock:
            return Counts(lane.read, lane.dropped, lane.given)

    @property
    def given(self) -> int:
        """Results of all lanes that the consumer got."""
        return self._given

    def stop(self) -> None:
        """Let every thread end, and drop what is on its way."""
        with self._lock:
            self._stopped = True
            for lane in list(self._lanes):
                self._end(lane)
            for item in self._ready:
                item.lane.dropped += isinstance(item, Done)
            self._ready.clear()
            self._again.clear()
            self._for_workers.notify_all()
            self._for_consumer.notify_all()

    # For readers.

    def put(self, lane: Lane, frame: VideoFrame) -> bool:
        """Let a frame wait; return whether more are wanted."""
        arrived = since = time.perf_counter()
        with self._lock:
            lane.read += 1
            if lane.newest and lane.waiting:
                since = lane.waiting.popleft().since
                lane.dropped += 1
            lane.space.wait_for(lambda: len(lane.waiting) < self._room(lane) or lane.over)
            if lane.over:
                lane.dropped += 1
                return False
            lane.waiting.append(Entry(lane, frame, arrived, since))
            self._for_workers.notify()
            return True

    def end(self, lane: Lane, error: BaseException | None = None) -> None:
        """Say that no frame comes any more, for a reason that the consumer is told after the lane's last result."""
        with self._lock:
            if not lane.over:
                lane.reading, lane.error = False, error
                self._advance(lane)
                self._give_room()

    # For workers.

    def take(self, *, wait: bool = True) -> Work | None:
        """Return frames as soon as a batch of them is due; None where none is, now or any more."""
        with self._lock:
            while not (self._stopped or self._failed):
                if self._again:
                    return self._again.popleft()
                due = self._due()
                if due is not None and due <= 0:
                    return self._start()
                if not wait:
                    return None
                self._for_workers.wait(due)
            return None

    def finish(self, work: Work, found: Sequence[Detections]) -> None:
        """Hand in what was found in the frames of some work."""
        now = time.perf_counter()
        with self._lock:
            for entry, detections in zip(work.entries, found, strict=True):
                entry.outcome = Done(entry.lane, entry.frame, detections, entry.arrived, work.started, now)
            for entry in work.entries:
                self._advance(entry.lane)

    def fail(self, work: Work | None, error: BaseException) -> None:
        """Say that some work failed, or that a worker did before it took any.

        If one of several frames is to blame, each is to be taken by itself, to know which.
        """
        entries = [] if work is None else list(work.entries)
        of_a_frame = isinstance(error, FrameError) and work is not None
        with self._lock:
            if of_a_frame and len(entries) > 1 and not self._failed:
                self._again.extend(Work([entry], time.perf_counter()) for entry in entries if not entry.lane.over)
            else:
                if not of_a_frame:
                    self._failed = True
                    entries += [entry for other in self._again for entry in other.entries]
                    self._again.clear()
                if work is None:
                    self._error = self._error or error
                for entry in entries:
                    entry.outcome = error
                for lane in list(self._lanes):
                    self._advance(lane)
            self._for_workers.notify_all()

    # For the consumer.

    def next(self) -> Done | Ended | None:
        """Wait for the next result or the end of a lane and return it, or None once all have ended.

        Raises:
            BaseException: The error of a worker, once, after all results of before.
        """
        with self._lock:
            self._for_consumer.wait_for(lambda: self._ready or not self._lanes)
            if self._ready:
                item = self._ready.popleft()
                if isinstance(item, Done):
                    item.lane.given += 1
                    self._given += 1
                    self._under_way -= 1
                    self._for_workers.notify()
                return item
            error, self._error = None if self._stopped else self._error, None
        if error is not None:
            raise error
        return None

    # With the lock held.

    def _room(self, lane: Lane) -> int:
        """Return how many frames of a lane may wait; those of all are a batch, or one each."""
        return 1 if lane.newest else -(-self._batch // max(1, sum(other.reading for other in self._lanes)))

    def _due(self) -> float | None:
        """Return the seconds until a batch is to be started; None where there is nothing to start."""
        places = min(self._batch, self._ahead - self._under_way)
        waiting = sum(len(lane.waiting) for lane in self._lanes)
        if not waiting or places <= 0:
            return None
        if not self._latency:
            return 0.0
        coming = sum(max(self._room(lane) - len(lane.waiting), 0) for lane in self._lanes if lane.reading)
        if waiting >= places or not coming:
            return 0.0
        oldest = min(lane.waiting[0].since for lane in self._lanes if lane.waiting)
        return max(0.0, oldest + self._latency - time.perf_counter())

    def _start(self) -> Work:
        """Return the next batch."""
        entries: list[Entry] = []
        places = min(self._batch, self._ahead - self._under_way)
        while len(entries) < places and (lanes := [lane for lane in self._lanes if lane.waiting]):
            lane = min(lanes, key=lambda lane: lane.served)
            self._turn += 1
            lane.served = self._turn
            lane.taken.append(lane.waiting.popleft())
            lane.space.notify()
            entries.append(lane.taken[-1])
        self._under_way += len(entries)
        self._for_workers.notify()  # there may be more
        return Work(entries, time.perf_counter())

    def _advance(self, lane: Lane) -> None:
        """Let go of what is done in a lane, up to what is not, or to its end."""
        while lane.taken and not lane.over and (outcome := lane.taken[0].outcome) is not None:
            if isinstance(outcome, Done):
                lane.taken.popleft()
                self._ready.append(outcome)
                self._for_consumer.notify()
            elif isinstance(outcome, FrameError):
                self._end(lane, outcome)
            else:
                self._error = self._error or outcome
                self._end(lane)
        if not (lane.over or lane.taken) and (self._failed or not (lane.reading or lane.waiting)):
            self._end(lane, lane.error)

    def _end(self, lane: Lane, error: BaseException | None = None) -> None:
        """End a lane; what is on its way there is dropped."""
        lane.over, lane.reading, lane.error = True, False, error or lane.error
        lane.dropped += len(lane.waiting) + len(lane.taken)
        self._under_way -= len(lane.taken)
        lane.waiting.clear()
        lane.taken.clear()
        self._lanes.remove(lane)
        self._ready.append(Ended(lane, error))
        lane.space.notify_all()
        self._for_consumer.notify_all()
        self._give_room()

    def _give_room(self) -> None:
        """Tell the other lanes that they have more room now, and workers that fewer frames may come."""
        for lane in self._lanes:
            lane.space.notify_all()
        self._for_workers.notify_all()
