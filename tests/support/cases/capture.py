"""Cases of test_pipeline.py: what may come between while work is captured."""

from __future__ import annotations

import gc
import threading
import warnings

import pytest
from cases.pipeline import Pair, noise, small

from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.errors import CornerNetWarning


def during_captures(pair, *doing):
    """Let functions be called while the network is enqueued, the first in the first run and the rest in captures."""
    calls, bind = iter(doing), pair.network.bind

    def interfering(shape):
        bound = bind(shape)
        enqueue = bound.enqueue

        def both(stream):
            next(calls, lambda: None)()
            enqueue(stream)

        bound.enqueue = both
        return bound

    pair.network.bind = interfering


def nothing():
    pass


def interrupt():
    raise KeyboardInterrupt


def an_interrupted_capture_is_made_up_for():
    pair = Pair(small())
    during_captures(pair, nothing, interrupt)
    with pytest.raises(KeyboardInterrupt):
        pair.pipeline([noise(126, 190)])
    for seed in range(3):
        pair.compare([noise(126, 190, seed)])
    assert pair.counts().graphs == 2


def a_capture_that_something_else_ended_is_tried_again():
    pair = Pair(small())
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("error", CornerNetWarning)
        during_captures(
            pair,
            nothing,
            lambda: patch.setenv("FAKE_REFUSES_CAPTURE", "1"),
            lambda: patch.delenv("FAKE_REFUSES_CAPTURE"),
        )
        for seed in range(3):
            pair.compare([noise(126, 190, seed)])
    assert pair.counts().graphs == 2


class Garbage:
    """Only the collector of cycles lets go of it."""

    collected = 0

    def __init__(self):
        self.itself = self

    def __del__(self):
        Garbage.collected += 1


def garbage_is_not_collected_while_work_is_captured():
    """A detector that was never closed may be among it, and to free its memory ends a capture of that thread."""
    found = []

    def litter():
        before = Garbage.collected
        Garbage()
        for _ in range(100_000):
            cycle = []
            cycle.append(cycle)
        found.append(Garbage.collected - before)

    pair = Pair(small())
    gc.collect()
    during_captures(pair, litter, litter)
    pair.compare([noise(126, 190)])
    assert found == [1, 0]
    assert gc.isenabled()


def no_other_thread_captures_while_a_network_is_prepared():
    taken = []

    def look():
        thread = threading.Thread(target=lambda: taken.append(not PREPARATION.acquire(blocking=False)))
        thread.start()
        thread.join()

    pair = Pair(small())
    during_captures(pair, look, look, look)  # a run, its capture, and the first of a network that is bound to be timed
    pair.pipeline.time_stages([noise(126, 190)])
    assert taken == [True] * 3
