"""The window: refused in one line where there can be none, and ended by its user where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import cv2
import pytest
from cases.video_clips import decoded, moving_shapes, write_clip
from places import ROOT, python_path

from cornernet_runtime.cli.detect import main
from cornernet_runtime.errors import OutputError
from cornernet_runtime.video import window
from cornernet_runtime.video.window import Window

NO_WINDOWS = (
    "a window needs an OpenCV with a window system, and opencv-python-headless has none; pip uninstall -y "
    "opencv-python-headless opencv-python && pip install opencv-python (not both: each overwrites the other)"
)
NO_SCREEN = (
    "a window needs a screen, and neither DISPLAY nor WAYLAND_DISPLAY names one; "
    "run it where there is a screen, or have a video written (--output DIR)"
)
# Shows frames in a window and prints for each whether to go on; the third is after the window was closed.
SHOWING = """
import sys
import cv2
from cornernet_runtime.detector import Detector
from cornernet_runtime.video.window import Window

with Detector.open(sys.argv[1]) as detector, Window("trial") as window, detector.stream(sys.argv[2]) as stream:
    for result in stream:
        if result.index == 2:
            cv2.destroyWindow(window._name)
        more = window.show(result)
        print(more, cv2.getWindowImageRect(window._name)[2:] if more else "")
        if not more:
            break
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_shapes(9, (720, 2560)))


class Watcher:
    """A window for machines without: whoever looks at it has seen enough after 5 frames."""

    closed = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        Watcher.closed = True

    def show(self, result):
        return result.index < 4


@pytest.fixture(scope="module")
def screen():
    """The name of a screen on which OpenCV can open windows: the one that is there, or one that nobody sees."""
    if not cv2.currentUIFramework():
        pytest.skip("the installed OpenCV (opencv-python-headless) has no window system")
    if os.environ.get("DISPLAY"):
        yield os.environ["DISPLAY"]
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no screen, and no Xvfb to make one: apt-get install xvfb")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1600x900x24"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:  # noqa: S603
        yield f":{server.stdout.readline().strip()}"  # printed when it is ready
        server.terminate()


def run(*command, screen=None):
    """Run Python with the source on its path; with a screen, or none."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment["PYTHONPATH"] = python_path(ROOT / "runtime")
    if screen:
        environment["DISPLAY"] = screen
    command = [sys.executable, *map(str, command)]
    return subprocess.run(  # noqa: S603 - our own command
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_show_is_refused_in_one_line_where_there_is_no_window(bundle_path, clip, tmp_path):
    done = run("-m", "cornernet_runtime.cli.detect", bundle_path, clip, "--show", "--output", tmp_path / "out")
    reason = NO_SCREEN if cv2.currentUIFramework() else NO_WINDOWS
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {reason}\n")
    assert not (tmp_path / "out").exists()


def test_a_screen_that_does_not_answer_is_named(monkeypatch):
    # The trial is a real one, and fails with any OpenCV.
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":98765")
    with pytest.raises(OutputError, match=r"^a window cannot be opened on the screen :98765: python\S* failed with"):
        Window()


def test_pictures_have_no_window(bundle_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(bundle_path), "a.png", "--show"])
    assert caught.value.code == 2
    assert "--show is for videos and cameras; a.png is neither" in capsys.readouterr().err


def test_who_has_seen_enough_ends_the_run_and_keeps_what_was_written(bundle_path, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(window, "Window", Watcher)
    lines = tmp_path / "a.jsonl"
    status = main([str(bundle_path), str(clip), "--show", "--output", str(tmp_path), "--json", str(lines)])
    assert status == 130
    assert "error: interrupted: what was done until then is kept" in capsys.readouterr().err
    assert [json.loads(line)["frame"] for line in lines.read_text().splitlines()] == list(range(5))
    assert len(decoded(tmp_path / "clip.mp4")) == 5
    assert Watcher.closed


def test_frames_are_shown_until_the_window_is_closed(bundle_path, clip, screen):
    done = run("-c", SHOWING, bundle_path, clip, screen=screen)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True (1280, 360)"] * 2 + ["False "]


def test_a_run_with_a_window_writes_what_one_without_does(bundle_path, clip, screen, tmp_path):
    for name, options in (("shown", ["--show"]), ("not", [])):
        command = ["-m", "cornernet_runtime.cli.detect", bundle_path, clip, "--output", tmp_path / name, *options]
        done = run(*command, screen=screen)
        assert done.returncode == 0, done.stderr
    shown, expected = (decoded(tmp_path / name / "clip.mp4") for name in ("shown", "not"))
    assert len(shown) == 9
    for (time, image), (expected_time, expected_image) in zip(shown, expected, strict=True):
        assert time == expected_time
        assert (image == expected_image).all()
