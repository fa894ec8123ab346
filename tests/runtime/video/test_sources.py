"""Where frames come from: their number, pixels and times, and what is said of input that is broken."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from cases.video_clips import STEP, TICK, damaged, decoded, moving_shapes, truncated, turned, write_clip

from cornernet_runtime.errors import FrameError, VideoError
from cornernet_runtime.video import file as file_module
from cornernet_runtime.video.file import VideoFile, image_of
from cornernet_runtime.video.frame import VideoFrame
from cornernet_runtime.video.sources import Camera, Frames, Pictures, open_source

PROC = Path("/proc/self/fd")
JPEG = 30  # grey levels that a corner of a turned picture may be off, after encoding


def open_files():
    return len(os.listdir(PROC)) if PROC.exists() else 0  # noqa: PTH208 - counted only


def frames_of(source):
    try:
        return list(source)
    finally:
        source.close()


# Files.


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9")],
)
def test_a_file_gives_what_pyav_decodes(tmp_path, name, codec):
    path = write_clip(tmp_path / name, moving_shapes(12), codec=codec)
    source = VideoFile(path)
    assert source.duration == pytest.approx(0.48)
    frames, expected = frames_of(source), decoded(path)
    assert len(expected) == 12
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.ticks * frame.time_base for frame in frames] == [seconds for seconds, _ in expected]
    assert {frame.source for frame in frames} == {str(path)}
    for frame, (_, image) in zip(frames, expected, strict=True):
        assert np.array_equal(frame.image, image)
    assert source.problems == []


def test_times_of_variable_rate_are_those_of_the_file_to_the_tick(tmp_path):
    ticks = [0, 300, 301, 1000, 5000, 5013, 9000]
    path = write_clip(tmp_path / "a.mp4", moving_shapes(len(ticks)), ticks)
    frames = frames_of(VideoFile(path))
    assert [frame.ticks * frame.time_base for frame in frames] == [tick * TICK for tick in ticks]
    assert frames[3].seconds == pytest.approx(1000 / 12800)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_video_that_is_to_be_turned_is_turned(tmp_path, quarters):
    image = np.full((96, 128, 3), 40, np.uint8)
    image[:32, :32] = 220  # top left
    path = turned(write_clip(tmp_path / "a.mp4", [image] * 3), quarters)
    expected = np.rot90(image, -quarters)
    for frame in frames_of(VideoFile(path)):
        assert frame.image.shape == expected.shape
        assert frame.image.flags.c_contiguous
        corners = np.ix_([8, -8], [8, -8])
        assert np.abs(frame.image[corners].astype(int) - expected[corners]).max() < JPEG


@pytest.mark.parametrize(("shape", "said"), [(Fraction(2), ["2:1"]), (Fraction(1), [])])
def test_pixels_that_are_not_square_are_told_of(tmp_path, shape, said):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = 126, 190
        stream.codec_context.sample_aspect_ratio = shape
        for image in moving_shapes(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    video = VideoFile(path)
    assert [frame.image.shape for frame in video] == [(126, 190, 3)] * 2
    expected = [f"{path}: its pixels are {ratio}, not square; frames and boxes are as stored" for ratio in said]
    assert video.problems == expected


def test_a_start_leaves_out_what_comes_before_it(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_shapes(50), keyframes=10)
    frames, expected = frames_of(VideoFile(path, start=1.3)), decoded(path)
    assert [frame.ticks * frame.time_base for frame in frames] == [s for s, _ in expected if s >= Fraction(13, 10)]
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert np.array_equal(frames[0].image, expected[33][1]), "1.32 s is frame 33"


def test_a_start_counts_from_the_first_frame(tmp_path):
    ticks = [12800 * 100 + STEP * index for index in range(50)]
    path = write_clip(tmp_path / "a.ts", moving_shapes(50), ticks, keyframes=10)
    source = VideoFile(path, start=1.0)
    assert source.begin == pytest.approx(100, abs=2), "transport streams begin a little later"
    assert source.duration == pytest.approx(2)
    frames = frames_of(source)
    assert len(frames) == 25
    assert frames[0].seconds == pytest.approx(source.begin + 1)
    assert source.problems == []


def test_a_start_beyond_the_end_is_named(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_shapes(5))
    with pytest.raises(VideoError, match=r"a\.mp4: expected frames from 9 s on, got none"):
        frames_of(VideoFile(path, start=9))


def test_frames_may_change_their_size_midway(tmp_path):
    # An MPEG transport stream, of which two can simply follow on one another.
    parts = []
    for number, size in enumerate([(126, 190), (64, 96)]):
        ticks = [STEP * (10 * number + index) for index in range(10)]
        parts.append(write_clip(tmp_path / f"{number}.ts", moving_shapes(10, size), ticks).read_bytes())
    (tmp_path / "both.ts").write_bytes(b"".join(parts))
    frames = frames_of(VideoFile(tmp_path / "both.ts"))
    assert [frame.image.shape[:2] for frame in frames] == [(126, 190)] * 10 + [(64, 96)] * 10


# Files that are broken.


def write_bytes(path, content):
    path.write_bytes(content)
    return path


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "none.mp4", "no such file or directory"),
        (lambda folder: write_bytes(folder / "a.mp4", b"no video" * 99), "no video that FFmpeg can read, or cut short"),
        (lambda folder: write_bytes(folder / "a.mp4", b""), "no video that FFmpeg can read, or cut short"),
        (lambda folder: truncated(write_clip(folder / "a.mp4", moving_shapes(9)), 0.6), "or cut short"),
        (lambda folder: write_sound(folder / "a.wav"), "expected a video, got a file with audio only"),
        (
            lambda folder: write_bytes(
                folder / "b.mp4", write_clip(folder / "a.mp4", moving_shapes(9)).read_bytes().replace(b"avc1", b"zzzz")
            ),
            "its codec is not known to this FFmpeg; convert it",
        ),
    ],
    ids=["missing", "text", "empty", "without its index", "sound", "unknown codec"],
)
def test_what_is_no_video_is_named_with_the_reason_and_let_go(tmp_path, make, said):
    path = make(tmp_path)
    before = open_files()
    with pytest.raises(VideoError) as caught:
        VideoFile(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert open_files() == before


def test_a_file_that_is_cut_short_gives_what_is_there_and_says_where_it_ends(tmp_path):
    path = write_clip(tmp_path / "a.mkv", moving_shapes(50))
    whole = decoded(path)
    source = VideoFile(truncated(path, 0.6))
    frames = frames_of(source)
    assert 10 < len(frames) < 45
    for frame, (_, image) in zip(frames[:-1], whole, strict=False):
        assert np.array_equal(frame.image, image)
    (problem,) = source.problems
    assert problem == f"{path}: ends after {frames[-1].seconds:.2f} s of 2.00 s: it is cut short or damaged"


def test_a_damaged_packet_costs_frames_up_to_the_next_key_frame_and_is_told(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_shapes(50), keyframes=10)
    whole = dict(decoded(path))
    source = VideoFile(damaged(path, [20]))
    frames = frames_of(source)
    assert source.problems == [f"{path}: damaged in 1 place, where frames are missing or patched up"]
    assert len(frames) >= 40
    good = [frame for frame in frames if not 0.7 < frame.seconds < 1.3]
    assert len(good) >= 30
    for frame in good:
        assert np.array_equal(frame.image, whole[frame.ticks * frame.time_base])


def test_a_picture_that_cannot_be_converted_is_left_out_and_told(tmp_path, monkeypatch):
    seen = []

    def convert(picture):
        seen.append(picture)
        if len(seen) == 3:
            raise av.error.ArgumentError(22, "Invalid argument")
        return image_of(picture)

    monkeypatch.setattr(file_module, "image_of", convert)
    source = VideoFile(write_clip(tmp_path / "a.mp4", moving_shapes(10)))
    times = [round(frame.seconds * 25) for frame in source]
    source.close()
    assert times == [0, 1, *range(3, 10)]
    assert source.problems == [f"{tmp_path / 'a.mp4'}: damaged in 1 place, where frames are missing or patched up"]


def test_without_pyav_a_video_names_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r"PyAV.*pip install \"cornernet-trt\[video\]\""):
        VideoFile(tmp_path / "a.mp4")


# Cameras, pictures, frames of the caller.


def test_a_camera_that_is_not_there_is_named(capfd):
    with pytest.raises(VideoError, match=r"camera 97 cannot be opened: it is in use or not there"):
        Camera(97)
    assert capfd.readouterr().err == "", "OpenCV says nothing"


def test_a_camera_of_a_negative_index_is_none():
    with pytest.raises(VideoError, match=r"^the index of a camera is expected to be 0 or more, got -1$"):
        Camera(-1)


def test_a_camera_gives_frames_until_it_is_gone(tmp_path, monkeypatch):
    path, capture = write_clip(tmp_path / "a.avi", moving_shapes(5), codec="mpeg4"), cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: capture(str(path)))
    camera = Camera(0)
    assert camera.live
    frames = iter(camera)
    expected = capture(str(path))
    for index in range(5):
        frame = next(frames)
        assert (frame.index, frame.source) == (index, "camera 0")
        assert np.array_equal(frame.image, expected.read()[1])
    with pytest.raises(VideoError, match="camera 0 gives no more frames after 5; it may have been unplugged"):
        next(frames)
    camera.close()


def test_pictures_are_frames_and_one_that_is_broken_leaves_its_place(tmp_path):
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((20, 30, 3), 10 * index, np.uint8))
    (tmp_path / "2.png").write_bytes(b"no picture")
    source = Pictures([str(tmp_path)], fps=10)
    frames = frames_of(source)
    assert [(frame.index, frame.seconds, frame.image[0, 0, 0]) for frame in frames] == [
        (0, 0.0, 0),
        (1, 0.1, 10),
        (3, 0.3, 30),
    ]
    assert source.problems == [f"{tmp_path / '2.png'}: cannot be decoded as a picture"]


def test_pictures_of_which_none_can_be_read_are_an_error(tmp_path):
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.raises(VideoError, match="none of 1 pictures can be read"):
        frames_of(Pictures([str(tmp_path)]))


def test_arrays_of_the_caller_have_times_by_their_rate():
    images = list(moving_shapes(4))
    frames = frames_of(Frames(images, fps=29.97, name="mine"))
    assert [frame.image is image for frame, image in zip(frames, images, strict=True)] == [True] * 4
    assert [frame.ticks * frame.time_base for frame in frames] == [Fraction(100, 2997) * index for index in range(4)]
    assert [frame.source for frame in frames] == ["mine"] * 4


def test_arrays_without_a_rate_have_the_times_at_which_they_came():
    frames = frames_of(Frames(moving_shapes(50)))
    times = [frame.seconds for frame in frames]
    assert times[0] == 0
    assert all(before < after for before, after in pairwise(times))


def test_video_frames_of_the_caller_are_given_as_they_are():
    given = [VideoFrame(image, 10 * n, 7 * n, TICK, "elsewhere") for n, image in enumerate(moving_shapes(3))]
    assert frames_of(Frames(given)) == given


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (np.zeros((4, 4), np.uint8), r"mine, frame 2: a frame is uint8 \[H, W, 3\] in BGR order, got uint8 \[4, 4\]"),
        (np.zeros((4, 4, 3)), r"mine, frame 2: .* got float64 \[4, 4, 3\]"),
        (np.zeros((0, 4, 3), np.uint8), r"mine, frame 2: .* got uint8 \[0, 4, 3\]"),
    ],
)
def test_an_array_that_is_no_frame_is_named_with_its_place(bad, said):
    with pytest.raises(FrameError, match=said):
        frames_of(Frames([*moving_shapes(2), bad], name="mine"))


def test_a_generator_of_the_caller_is_closed():
    closed = []

    def frames():
        try:
            yield from moving_shapes(5)
        finally:
            closed.append(True)

    source = Frames(frames())
    next(iter(source))
    source.close()
    source.close()
    assert closed == [True]


def test_a_source_is_told_by_what_it_is(tmp_path):
    path = write_clip(tmp_path / "a.mp4", moving_shapes(3))
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    for given, kind in ((path, VideoFile), (str(path), VideoFile), (tmp_path, Pictures), (iter([]), Frames)):
        with_source = open_source(given)
        assert type(with_source) is kind
        assert open_source(with_source) is with_source
        with_source.close()


@pytest.mark.parametrize("wrong", [None, 1.5, np.zeros((4, 4, 3), np.uint8), b"a.mp4"], ids=str)
def test_what_is_no_source_is_named(wrong):
    with pytest.raises(VideoError, match=r"a source is a path.*, got \w+$"):
        open_source(wrong)
