"""The command on videos: what it writes, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from cases.video_clips import decoded, moving_shapes, truncated, write_clip
from places import ROOT, python_path

from cornernet_runtime.cli.detect import main
from cornernet_runtime.detector import Detector
from cornernet_runtime.draw import draw_detections
from cornernet_runtime.video import writer
from cornernet_runtime.video.addresses import are_videos
from cornernet_runtime.video.file import VideoFile


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_shapes(50), sound=2)


def rows_of(text):
    return [json.loads(line) for line in text.splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def errors_in(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]


def test_lines_and_video_hold_what_the_detector_finds(detect, bundle_path, clip, tmp_path):
    status, output, errors = detect(clip, "--output", tmp_path, "--json", tmp_path / "a.jsonl", "--score", "0.2")
    assert (status, output, errors_in(errors)) == (0, "", [])
    assert names(tmp_path) == ["a.jsonl", "clip.mp4"]
    rows = rows_of((tmp_path / "a.jsonl").read_text())
    assert [(row["source"], row["frame"]) for row in rows] == [(str(clip), index) for index in range(50)]
    written, objects = decoded(tmp_path / "clip.mp4"), 0
    with Detector.open(bundle_path) as detector:
        for row, frame, (seconds, image) in zip(rows, VideoFile(clip), written, strict=True):
            expected = detector(frame.image).above(0.2)
            objects += len(expected)
            assert row["seconds"] == frame.seconds == float(seconds)
            assert [found["label"] for found in row["detections"]] == [name for _, _, name in expected]
            boxes = np.array([found["box"] for found in row["detections"]]).reshape(-1, 4)
            assert np.abs(boxes - expected.boxes).max(initial=0) <= 0.0006  # half of the third decimal, and float32
            drawn = draw_detections(frame.image, expected).astype(int)
            assert np.abs(drawn - image).mean() < 10
    assert f"50 frames, {objects} objects of score 0.2 or more; milliseconds a frame: reading " in errors
    assert f"wrote {tmp_path / 'clip.mp4'}\n" in errors
    assert f"wrote {tmp_path / 'a.jsonl'}\n" in errors
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert len(container.streams.audio) == 1


def test_every_start_and_duration_take_a_part(detect, clip, tmp_path):
    options = ("--every", "4", "--start", "0.5", "--duration", "1")
    status, output, _ = detect(clip, *options, "--json", "-", "--output", tmp_path)
    assert status == 0
    rows = rows_of(output)
    # Frame 13 is the first at or after half a second.
    assert [row["seconds"] for row in rows] == pytest.approx([0.52 + 0.16 * index for index in range(7)])
    assert [row["frame"] for row in rows] == [4 * index for index in range(7)]
    times = [seconds for seconds, _ in decoded(tmp_path / "clip.mp4")]
    assert times == [Fraction(16 * index, 100) for index in range(7)]


def test_several_videos_share_the_lines_and_have_a_row_each(detect, clip, tmp_path):
    (tmp_path / "more").mkdir()
    other = write_clip(tmp_path / "more" / "clip.mkv", moving_shapes(9))
    status, output, errors = detect(clip, other, "--json", "-", "--output", tmp_path / "out")
    assert status == 0
    assert [row["source"] for row in rows_of(output)] == [str(clip)] * 50 + [str(other)] * 9
    assert names(tmp_path / "out") == ["clip-2.mp4", "clip.mp4"]
    assert len(decoded(tmp_path / "out" / "clip-2.mp4")) == 9
    assert "59 frames, " in errors


def test_a_glob_of_videos_is_a_source(detect, tmp_path):
    for name in ("b.mp4", "a.mp4"):
        write_clip(tmp_path / name, moving_shapes(2))
    _, output, _ = detect(tmp_path / "*.mp4", "--json", "-")
    assert [Path(row["source"]).name for row in rows_of(output)] == ["a.mp4", "a.mp4", "b.mp4", "b.mp4"]


def test_a_video_that_fails_is_named_and_the_others_are_done(detect, clip, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    status, output, errors = detect(tmp_path / "bad.mp4", clip, "--json", "-")
    assert status == 1
    assert {row["source"] for row in rows_of(output)} == {str(clip)}
    (error,) = errors_in(errors)
    assert error == (f"error: {tmp_path / 'bad.mp4'}: no video that FFmpeg can read, or cut short; give a video file")


def test_a_video_that_is_cut_short_is_done_as_far_as_it_goes_with_a_warning(detect, tmp_path):
    path = truncated(write_clip(tmp_path / "a.mkv", moving_shapes(50)), 0.6)
    status, output, errors = detect(path, "--json", "-", "--output", tmp_path / "out")
    assert status == 0
    count = len(rows_of(output))
    assert 10 < count < 45
    assert errors.count("warning: ") == 1
    assert f"warning: {path}: ends after " in errors
    assert len(decoded(tmp_path / "out" / "a.mp4")) == count


def test_a_video_is_not_overwritten_by_its_own_annotated_copy(detect, clip):
    before = clip.read_bytes()
    status, _, errors = detect(clip, "--output", clip.parent)
    assert status == 1
    assert "would overwrite a video to be read; choose another --output folder" in errors
    assert clip.read_bytes() == before


def test_a_camera_that_is_not_there_is_an_error(detect):
    status, _, errors = detect("97")
    assert status == 1
    assert errors_in(errors)[0].startswith("error: camera 97 cannot be opened")


def camera_of(path, monkeypatch):
    """Let OpenCV read a file instead of a camera, at 50 frames a second."""
    capture = cv2.VideoCapture(str(path))

    class Paced:
        isOpened, release = capture.isOpened, capture.release  # noqa: N815 - OpenCV's name

        def read(self):
            time.sleep(0.02)
            return capture.read()

    monkeypatch.setattr(cv2, "VideoCapture", lambda _: Paced())


def test_a_camera_is_recorded_for_as_long_as_asked(detect, clip, tmp_path, monkeypatch):
    camera_of(clip, monkeypatch)
    status, output, errors = detect("0", "--duration", "0.5", "--json", "-", "--output", tmp_path)
    assert (status, errors_in(errors)) == (0, [])
    rows = rows_of(output)
    assert {row["source"] for row in rows} == {"camera 0"}
    assert 0 < len(rows) <= 26
    assert rows[-1]["seconds"] < 0.5
    assert names(tmp_path) == ["camera-0.mp4"]
    assert [float(seconds) for seconds, _ in decoded(tmp_path / "camera-0.mp4")] == [row["seconds"] for row in rows]


def test_a_camera_that_is_unplugged_leaves_what_was_recorded(detect, clip, tmp_path, monkeypatch):
    camera_of(clip, monkeypatch)
    status, output, errors = detect("0", "--json", "-", "--output", tmp_path)
    assert status == 1
    part = tmp_path / "camera-0.part.mp4"
    (error,) = errors_in(errors)
    assert error.startswith("error: camera 0 gives no more frames after 50; it may have been unplugged")
    assert error.endswith(f"; the video of what was done until then is {part}")
    assert len(decoded(part)) == len(rows_of(output)) > 10


def test_progress_on_a_terminal_tells_rate_lag_and_objects(bundle_path, clip):
    terminal, end = os.openpty()
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT / "runtime"), "COLUMNS": "150", "TERM": "xterm"}
    command = [sys.executable, "-m", "cornernet_runtime.cli.detect", str(bundle_path), str(clip), "--score", "0.1"]
    process = subprocess.Popen(command, env=environment, stdout=end, stderr=end)  # noqa: S603 - our own command
    os.close(end)
    shown = b""
    try:
        while data := os.read(terminal, 65536):
            shown += data
    except OSError:
        pass  # how Linux says that the other end was closed
    os.close(terminal)
    assert process.wait(60) == 0
    words = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"clip\.mp4 .* \d+\.\d fps, lag \d+ ms, \d+ objects 0:00:\d\d", words)
    assert re.search(r"50 frames, \d+ objects of score 0\.1 or more", words)


def test_a_name_cannot_give_orders_to_the_terminal(detect, clip, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    named = tmp_path / "a\x1b]0;title\x07\n\x9b2J.mp4"
    named.write_bytes(clip.read_bytes())
    missing = tmp_path / "\x1b[2J.mp4"
    status, _, errors = detect(named, missing, "--output", tmp_path / "out")
    assert status == 1
    assert not set(errors) & set("\x1b\x07\x9b")
    assert f"  {tmp_path}/a?]0;title??" in errors, "the table"
    assert f"error: {tmp_path}/?[2J.mp4: " in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.mp4", "b.png"], "pictures and videos take a command each"),
        (["a.mp4", "--corners", "--output", "out"], "--corners is for pictures"),
        (["a.png", "--every", "2"], "--every is for videos and cameras; a.png is neither"),
        (["a.png", "--start", "2"], "--start is for videos and cameras; a.png is neither"),
        (["a.mp4", "--every", "0"], "expected a whole number from 1, got '0'"),
        (["a.mp4", "--duration", "-1"], "expected seconds above 0, got '-1'"),
        (["a.mp4", "--start", "soon"], "expected seconds above 0, got 'soon'"),
    ],
)
def test_wrong_usage_is_told(bundle_path, capsys, arguments, said):
    with pytest.raises(SystemExit) as caught:
        main([str(bundle_path), *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_videos_are_told_by_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "7").mkdir()
    sources = ["a.mp4", "b.MKV", "*.ts", "0", "7", "a.png", "folder", "a.mp4.png"]
    assert are_videos(sources) == [True, True, True, True, False, False, False, False]


def started(bundle_path, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT / "runtime")}
    command = [sys.executable, "-m", "cornernet_runtime.cli.detect", str(bundle_path), *map(str, arguments)]
    return subprocess.Popen(  # noqa: S603 - our own command
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    images = list(moving_shapes(50))
    return write_clip(tmp_path_factory.mktemp("long") / "long.mp4", images * 60, sound=120)


def test_an_interrupt_within_the_writing_of_a_frame_comes_after_it(detect, clip, tmp_path, monkeypatch):
    drawn = []

    def drawing(image, detections):
        drawn.append(image)
        if len(drawn) == 20:
            signal.raise_signal(signal.SIGINT)
        return draw_detections(image, detections)

    monkeypatch.setattr(writer, "draw_detections", drawing)
    status, _, _ = detect(clip, "--output", tmp_path, "--json", tmp_path / "a.jsonl")
    assert status == 130
    assert len(rows_of((tmp_path / "a.jsonl").read_text())) == 20
    assert [seconds for seconds, _ in decoded(tmp_path / "clip.mp4")] == [Fraction(index, 25) for index in range(20)]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_what_was_done(bundle_path, long_clip, tmp_path, how):
    process = started(bundle_path, long_clip, "--output", tmp_path, "--json", tmp_path / "a.jsonl")
    lines = tmp_path / "a.part.jsonl"
    while process.poll() is None and not (lines.exists() and lines.read_bytes().count(b"\n") > 150):
        time.sleep(0.02)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    clean = how == signal.SIGINT
    assert process.returncode == (130 if clean else -signal.SIGKILL), errors
    expected = ["a.jsonl", "long.mp4"] if clean else ["a.part.jsonl", "long.part.mp4"]
    assert names(tmp_path) == expected
    rows = rows_of((tmp_path / expected[0]).read_text())
    times = [seconds for seconds, _ in decoded(tmp_path / expected[1])]
    assert times == [Fraction(index, 25) for index in range(len(times))]
    if clean:
        assert len(rows) in (len(times), len(times) + 1)
        assert "error: interrupted: what was done until then is kept" in errors
        assert f"wrote {tmp_path / 'long.mp4'}" in errors
    else:
        assert len(times) > len(rows) - 50
    with av.open(str(tmp_path / expected[1])) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 8000


@pytest.mark.slow
def test_a_disk_that_is_full_is_one_line_and_what_was_done_is_kept(bundle_path, long_clip, tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))

    process = started(bundle_path, long_clip, "--output", tmp_path, preexec_fn=limit)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (1, "")
    assert errors == (
        f"error: cannot write {tmp_path / 'long.mp4'}: File too large; "
        f"what was written until then is in {tmp_path / 'long.part.mp4'}\n"
    )
    assert names(tmp_path) == ["long.part.mp4"]
    assert len(list(VideoFile(tmp_path / "long.part.mp4"))) > 20
