"""Cases of test_pipeline.py: streams of a detector whose pipeline is on a GPU."""

from __future__ import annotations

import threading
import warnings

import numpy as np
from cases.ring import FRAMES, assert_same, warm

from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import CornerNetWarning, FrameError, VideoError
from cornernet_runtime.video.multi import MultiStream
from cornernet_runtime.video.sources import Frames


class Watched:
    """A pipeline that notes when runs are submitted and when they are waited for."""

    def __init__(self, pipeline):
        self._pipeline, self.calls = pipeline, []

    def submit(self, frames):
        self.calls.append("submit")
        pending = self._pipeline.submit(frames)
        return type("Pending", (), {"result": lambda _: (self.calls.append("result"), pending.result())[1]})()


def streaming(**options):
    """Return a pair, and a detector around its pipeline."""
    pair = warm(**options)
    return pair, Detector(pair.detector.backend, pair.detector.spec, pipeline=Watched(pair.pipeline))


def every_frame_has_what_the_pipeline_finds_in_order():
    pair, detector = streaming()
    frames = FRAMES * 4
    results = list(detector.stream(frames, batch=2))
    assert [result.index for result in results] == list(range(20))
    for result, frame in zip(results, frames, strict=True):
        assert len(result.detections) > 0
        assert np.abs(result.detections.boxes - pair.pipeline([frame])[0].boxes).max() < 1e-3
    assert threading.active_count() == 1


def a_run_is_under_way_while_the_next_is_submitted():
    _, detector = streaming()
    gate = threading.Event()

    def frames():
        yield from FRAMES[:3]
        gate.wait(60)

    stream = detector.stream(frames(), batch=1)
    first = next(stream)
    # The third waits for a place among the results until the first was given.
    assert first.index == 0
    assert [next(stream).index for _ in range(2)] == [1, 2], "no result waits for frames that come later"
    gate.set()
    assert list(stream) == []
    assert detector.pipeline.calls.count("submit") == 3
    assert detector.pipeline.calls.index("result") >= 1


def the_newest_frame_has_the_gpu_for_itself():
    pair, detector = streaming()
    results = list(detector.stream(Frames(iter(FRAMES[:1] * 6), live=True)))
    assert results[-1].index == 5
    for result in results:
        assert_same([result.detections], pair.pipeline(FRAMES[:1]))
    assert detector.pipeline.calls == ["submit", "result"] * len(results)


def an_error_comes_after_what_was_submitted_before():
    pair, detector = streaming()
    frames = [*FRAMES[:3], "no frame", *FRAMES]
    seen, error = [], None
    try:
        seen.extend(result.index for result in detector.stream(frames, batch=1))
    except FrameError as problem:
        error = problem
    assert seen == [0, 1, 2]
    assert "str" in str(error)
    assert threading.active_count() == 1
    assert len(pair.pipeline(FRAMES[:1])) == 1, "the pipeline goes on"


def a_stream_that_is_left_early_leaves_the_pipeline_free():
    pair, detector = streaming()
    with detector.stream(FRAMES * 20) as stream:
        next(stream)
    assert threading.active_count() == 1
    pair.compare(FRAMES[:1], least=0)


def sources_share_a_pipeline_and_one_with_a_bad_frame_ends_alone():
    pair, detector = streaming()
    sources = [Frames(FRAMES * 2, name="good"), Frames([FRAMES[0], "no frame", *FRAMES], name="bad")]
    seen, error = {"good": [], "bad": []}, None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", CornerNetWarning)
        try:
            for result in MultiStream(detector, sources, batch=4):
                seen[result.frame.source].append(result)
        except VideoError as problem:
            error = problem
    assert [result.index for result in seen["bad"]] == [0]
    assert [result.index for result in seen["good"]] == list(range(10))
    for result, frame in zip(seen["good"], FRAMES * 2, strict=True):
        assert np.abs(result.detections.boxes - pair.pipeline([frame])[0].boxes).max() < 1e-3
    assert str(error).startswith("1 of 2 sources failed: bad: "), error
    assert [str(warning.message).endswith("the other sources go on") for warning in said] == [True]
    assert threading.active_count() == 1
