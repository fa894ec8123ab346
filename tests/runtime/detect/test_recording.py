"""What the command writes of its sources: how it ends, and what it tells of it."""

from __future__ import annotations

import os
import signal
from fractions import Fraction

import numpy as np
import pytest

from cornernet_runtime.detect.recording import Recording, ending
from cornernet_runtime.detections import Detections
from cornernet_runtime.errors import OutputError
from cornernet_runtime.video.frame import VideoFrame
from cornernet_runtime.video.sinks import part_of
from cornernet_runtime.video.stream import FrameResult

NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), ())
RESULT = FrameResult(VideoFrame(np.zeros((48, 64, 3), np.uint8), 0, 0, Fraction(1, 25), "a"), NOTHING, 0.0, 0.0)


class Sink:
    """Notes how it was ended, and does something meanwhile."""

    def __init__(self, on_close=lambda: None):
        self.ended = None
        self._on_close = on_close

    def close(self, *, whole=True):
        self._on_close()
        self.ended = whole

    def abort(self):
        self.ended = "aborted"


def fail():
    raise OutputError("the disk is full")


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(("last", "whole"), [(lambda: None, True), (interrupt, False)])
def test_a_sink_that_cannot_be_ended_does_not_keep_the_others_open(last, whole):
    sinks = [Sink(), Sink(fail), Sink()]
    with pytest.raises(OutputError, match="the disk is full"), ending(sinks):
        last()
    assert [sink.ended for sink in sinks] == [whole, None, whole]


def test_an_interrupt_while_sinks_are_ended_comes_after_the_last():
    sinks = [Sink(lambda: os.kill(os.getpid(), signal.SIGINT)), Sink()]
    with pytest.raises(KeyboardInterrupt), ending(sinks):
        pass
    assert [sink.ended for sink in sinks] == [True, True]


def recording_of(target):
    return Recording(0.3, [], target, sound=None, from_zero=False)


def test_videos_of_an_earlier_run_are_not_told_as_those_of_this_one(tmp_path):
    target = tmp_path / "a.mp4"
    for path in (target, part_of(target)):
        path.write_bytes(b"of yesterday")
    without_frames = recording_of(target)
    without_frames.close()
    assert (without_frames.written, without_frames.kept) == (None, "")
    failed = recording_of(target)
    failed.take(RESULT, lambda _: None)
    failed.abort()
    failed.close()  # as those of many are at the end
    assert failed.written is None
    assert str(part_of(target)) in failed.kept
    done = recording_of(target)
    done.take(RESULT, lambda _: None)
    assert done.written is None
    done.close()
    assert done.written == target
