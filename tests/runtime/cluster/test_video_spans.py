"""Spans of a video, one after the other, against a single pass: frames, indices, times and pictures."""

from __future__ import annotations

import contextlib
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from cases.video_clips import STEP, damaged, moving_shapes, truncated, turned, write_clip

from cornernet_runtime.cluster.plan import Part, spans_of
from cornernet_runtime.cluster.video_spans import SpanError, VideoSpan, split
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.sources import Part as VideoPart

FRAMES = 120
# What a codec is asked for; each has a key frame every ten to thirty frames.
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "20", "-keyint_min", "10", "-bf", "3", "-sc_threshold", "0")
X265 = (
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-x265-params",
    "keyint=20:min-keyint=10:bframes=3:open-gop=1:log-level=none",
)
ENCODINGS = {
    "B-frames.mp4": X264,
    "B-frames.mkv": X264,
    "B-frames.ts": X264,
    "open GOP.mp4": (*X264, "-x264-params", "open-gop=1:keyint=20:min-keyint=10"),
    "open GOP.mkv": (*X264, "-x264-params", "open-gop=1:keyint=20:min-keyint=10"),
    "open GOP.ts": (*X264, "-x264-params", "open-gop=1:keyint=20:min-keyint=10"),
    "HEVC with open GOP.mp4": X265,
    "HEVC with open GOP.ts": X265,
    "all intra.avi": ("-c:v", "mjpeg", "-q:v", "5"),
    "MPEG-2 with B-frames.ts": ("-c:v", "mpeg2video", "-g", "15", "-bf", "2", "-q:v", "4"),
    "MPEG-4.mp4": ("-c:v", "mpeg4", "-g", "20", "-q:v", "5"),
    "VP9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-g", "20", "-b:v", "300k"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def original(folder):
    """A clip without loss, whose frames are encoded in other ways."""
    return write_clip(folder / "original.avi", moving_shapes(FRAMES), codec="ffv1")


def encode(original, path, *options, before=()):
    command = ("ffmpeg", "-v", "error", "-y", *before, "-i", str(original), "-pix_fmt", "yuv420p", *options, str(path))
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed
    except FileNotFoundError:
        pytest.skip("ffmpeg is not installed, which encodes the clips")
    if done.returncode and "Unknown encoder" in done.stderr:
        pytest.skip(f"this ffmpeg lacks an encoder: {done.stderr.strip().splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    return path


def unit_of(path):
    return Part(0, "video", (str(path),))


def by_spans(path, least, every=1):
    """Return the parts, and the frames of all of them, the last part first, as workers have no order."""
    parts = spans_of(unit_of(path), split(str(path), least))
    frames = []
    for part in reversed(parts):
        source = VideoSpan(part, every, 1)
        frames[:0] = list(source)
        source.close()
    return parts, frames


def assert_as_in_one_pass(path, frames, every=1):
    expected = list(VideoPart(VideoFile(path), every=every))
    assert [frame.index for frame in frames] == [frame.index for frame in expected]
    assert [(frame.ticks, frame.time_base) for frame in frames] == [(one.ticks, one.time_base) for one in expected]
    for frame, one in zip(frames, expected, strict=True):
        assert np.array_equal(frame.image, one.image), f"frame {frame.index}"
    return len(expected)


@pytest.mark.parametrize("name", ENCODINGS)
def test_spans_give_what_a_single_pass_gives(name, original, folder):
    path = encode(original, folder / name, *ENCODINGS[name])
    parts, frames = by_spans(path, 18)
    assert len(parts) >= 4
    assert assert_as_in_one_pass(path, frames) == FRAMES
    assert [part.first for part in parts] == list(np.cumsum([0, *(part.count for part in parts[:-1])]))
    assert all(part.count >= 18 for part in parts[:-1])


@pytest.mark.parametrize("every", [2, 7, 50])
def test_every_nth_frame_is_counted_over_the_whole_video(every, original, folder):
    path = encode(original, folder / "every.mp4", *X264)
    parts, frames = by_spans(path, 20, every)
    assert len(parts) >= 4
    assert assert_as_in_one_pass(path, frames, every) == -(-FRAMES // every)


def test_frames_at_varying_times_keep_them(folder):
    ticks = np.cumsum([0, *np.random.default_rng(3).integers(1, 5 * STEP, FRAMES - 1)]).tolist()
    path = write_clip(folder / "varying.mkv", moving_shapes(FRAMES), ticks, time_base=Fraction(1, 1000), keyframes=15)
    parts, frames = by_spans(path, 20)
    assert len(parts) >= 4
    assert assert_as_in_one_pass(path, frames) == FRAMES


# After 95443.7 s the clock of an MPEG-TS begins anew; what is before that is below zero then.
@pytest.mark.parametrize(("offset", "begin"), [(5000, 5001.4), (95441, -1.3)])
def test_a_clock_that_begins_late_is_kept(offset, begin, original, folder):
    path = encode(original, folder / "late.ts", *X264, "-output_ts_offset", str(offset))
    parts, frames = by_spans(path, 20)
    assert len(parts) >= 4
    assert frames[0].seconds == pytest.approx(begin, abs=0.1)
    assert assert_as_in_one_pass(path, frames) == FRAMES


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_clip_cut_without_encoding_hides_what_is_before_its_beginning(suffix, original, folder):
    whole = encode(original, folder / f"uncut.{suffix}", *X264)
    path = encode(whole, folder / f"cut.{suffix}", "-c", "copy", before=("-ss", "1.28"))  # between two key frames
    parts, frames = by_spans(path, 20)
    assert len(parts) >= 3
    assert assert_as_in_one_pass(path, frames) <= FRAMES - 20


def test_a_turned_video_is_turned_in_each_span(original, folder):
    path = turned(encode(original, folder / "turned.mp4", *X264), 1)
    parts, frames = by_spans(path, 20)
    assert len(parts) >= 4
    assert frames[-1].image.shape == (190, 126, 3)
    assert assert_as_in_one_pass(path, frames) == FRAMES


def test_pictures_that_are_refreshed_bit_by_bit_are_whole_or_void(original, folder):
    path = encode(original, folder / "refresh.mp4", *X264[:-6], "-x264-params", "intra-refresh=1:keyint=20:bframes=0")
    try:
        _, frames = by_spans(path, 20)
    except SpanError:
        return  # it is done again as a whole
    assert_as_in_one_pass(path, frames)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("one key frame.mp4", ("-c:v", "libx264", "-g", "999", "-sc_threshold", "0")),
        ("no times.h264", ("-c:v", "libx264", "-g", "20", "-f", "h264")),
    ],
)
def test_a_video_whose_packets_do_not_tell_stays_whole(name, options, original, folder):
    path = encode(original, folder / name, *options)
    assert spans_of(unit_of(path), split(str(path), 20)) == [unit_of(path)]


def test_two_frames_at_one_time_keep_a_video_whole(folder):
    ticks = [40 * index for index in range(FRAMES)]
    options = {"time_base": Fraction(1, 1000), "codec": "ffv1", "keyframes": 20}
    apart = write_clip(folder / "apart.mkv", moving_shapes(FRAMES), ticks, **options)
    assert len(split(str(apart), 20)) == 6
    ticks[70] = ticks[69]
    twice = write_clip(folder / "twice.mkv", moving_shapes(FRAMES), ticks, **options)
    assert [frame.ticks for frame in VideoFile(twice)] == ticks
    assert split(str(twice), 20) == []


def test_a_video_that_is_cut_short_stays_whole(original, folder):
    path = encode(original, folder / "whole.mkv", *X264)
    assert len(split(str(path), 20)) >= 4
    short = truncated(encode(original, folder / "short.mkv", *X264), 0.6)
    assert split(str(short), 20) == []


@pytest.mark.parametrize("name", ["missing.mp4", "text.mp4"])
def test_what_is_no_video_stays_whole_for_the_worker_to_name(name, folder):
    (folder / "text.mp4").write_text("no video")
    assert split(str(folder / name), 20) == []


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_damage_makes_a_span_void_or_changes_nothing(suffix, original, folder):
    path = damaged(encode(original, folder / f"damaged.{suffix}", *X264), [30, 31, 32])
    single = VideoFile(path)
    list(single)
    parts = spans_of(unit_of(path), split(str(path), 20))
    if single.problems:  # a single pass says so, which spans cannot: they are void, or there are none
        with pytest.raises(SpanError) if len(parts) > 1 else contextlib.nullcontext():
            by_spans(path, 20)
    else:
        assert_as_in_one_pass(path, by_spans(path, 20)[1])
