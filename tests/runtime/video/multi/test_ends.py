"""What the end of one source means for the others."""

from __future__ import annotations

import threading
import warnings
from collections import Counter

import pytest
from cases.multi import PICTURE, endless, failing, made_up, pictures, taken_from
from cases.video_clips import moving_shapes, truncated, write_clip

from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError, CornerNetWarning, FrameError, VideoError
from cornernet_runtime.video.multi import MultiStream
from cornernet_runtime.video.sources import Frames


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
