"""Every example as a program of its own, with the shipped model, on a short video whose truth is known."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from cases.video_clips import decoded
from places import ROOT, SOURCE_ROOTS, SUPPORT, python_path

from cornernet_runtime import Detector
from cornernet_train.shapes import CLASS_NAMES
from cornernet_train.shapes_video import moving_shapes, write_shapes_video

EXAMPLES = ROOT / "examples"
SEED, SECONDS, RATE = 2, 2, 25
LONGEST = 30  # lines


@pytest.fixture(scope="module")
def model(shipped_path):
    return shipped_path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "shapes.mp4"
    write_shapes_video(path, SECONDS, SEED)
    return path


@pytest.fixture(scope="module")
def scenes():
    return list(moving_shapes(SEED, SECONDS * RATE))


def need(*packages):
    """Skip where an example lacks what it is about."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed, which this example is about")


def command(name, *arguments):
    return [sys.executable, str(EXAMPLES / name), *map(str, arguments)]


def environment(**more):
    return {**os.environ, "PYTHONPATH": python_path(ROOT / "runtime"), **more}


def lines_of(name, *arguments):
    """Run an example to its end and return the lines that it printed."""
    done = subprocess.run(  # noqa: S603 - our own command
        command(name, *arguments), env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def assert_seen(lines, scenes):
    """Assert that the lines name nearly all objects of their scenes, of which some are hidden, and hardly any other."""
    seen = [set(re.findall("|".join(CLASS_NAMES), line)) for line in lines]
    assert len(seen) == len(scenes)
    assert sum(map(len, seen)) > 0.85 * sum(len(scene.labels) for scene in scenes)


def test_every_example_is_short_says_what_to_type_and_has_a_test():
    tests = Path(__file__).read_text(encoding="utf-8")
    paths = sorted(EXAMPLES.iterdir())
    assert len(paths) == 5
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= LONGEST, path.name
        assert f": python {path.name} MODEL" in text.partition('"""\n')[0], path.name
        assert f'"{path.name}"' in tests, path.name


@pytest.mark.slow
def test_opencv_loop_names_what_it_sees_and_writes_it_drawn(model, clip, scenes, tmp_path):
    assert_seen(lines_of("opencv_loop.py", model, clip, tmp_path / "out.mp4"), scenes)
    plain, drawn = decoded(clip), decoded(tmp_path / "out.mp4")
    assert len(drawn) == len(plain)
    for (_, before), (_, after) in zip(plain[::20], drawn[::20], strict=True):
        assert 1 < np.abs(before.astype(int) - after).mean() < 15  # boxes and labels, and what the codec costs


@pytest.mark.slow
def test_pyav_frames_come_with_their_times(model, clip, scenes):
    lines = lines_of("pyav_frames.py", model, clip)
    assert [line.partition(" s: ")[0] for line in lines] == [f"{index / RATE:.3f}" for index in range(len(scenes))]
    assert_seen(lines, scenes)


@pytest.mark.slow
def test_crossings_are_those_of_the_shapes(model, tmp_path):
    need("supervision", "trackers")
    clip, seconds = tmp_path / "shapes.mp4", 4
    write_shapes_video(clip, seconds, SEED)
    scenes = list(moving_shapes(SEED, seconds * RATE))
    boxes = np.array([scene.boxes for scene in scenes])
    right = (boxes[..., 0] + boxes[..., 2]) / 2 > scenes[0].image.shape[1] / 2
    expected = [
        (index / RATE, f"{CLASS_NAMES[label]} to the {'right' if right[index, label] else 'left'}")
        for index, label in np.add(np.argwhere(right[1:] != right[:-1]), [1, 0]).tolist()
    ]
    assert len(expected) == 3
    found = [line.split(" s: ") for line in lines_of("count_crossings.py", model, clip)]
    assert [what for _, what in found] == [what for _, what in expected]
    for (seconds, _), (truth, _) in zip(found, expected, strict=True):
        assert float(seconds) == pytest.approx(truth, abs=0.13)  # three frames: a track is smoother than its boxes


@pytest.fixture
def server(model):
    """The address of the server, which serves until the end of the test."""
    need("websockets")
    program = command("web_socket_server.py", model, 0)
    with subprocess.Popen(  # noqa: S603 - our own command
        program, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        yield process.stdout.readline().strip()  # printed when it listens
        process.terminate()


def test_the_web_socket_answers_pictures_of_several_clients(server, model, scenes):
    from websockets.asyncio.client import connect  # noqa: PLC0415 - an extra

    assert server.startswith("ws://127.0.0.1:")
    pictures = [scene.image for scene in scenes[::10]]

    async def ask(pictures):
        async with connect(server) as socket:
            answers = []
            for picture in pictures:
                await socket.send(cv2.imencode(".png", picture)[1].tobytes())
                answers.append(json.loads(await socket.recv()))
            return answers

    async def ask_at_once():
        return await asyncio.gather(ask(pictures), ask(pictures[::-1]))

    first, second = asyncio.run(ask_at_once())
    assert first == second[::-1]
    with Detector.open(model) as detector:
        for answer, picture in zip(first, pictures, strict=True):
            expected = detector(picture).above(0.5)
            assert [name for name, _, _ in answer] == [name for _, _, name in expected]
            assert [score for _, score, _ in answer] == pytest.approx(expected.scores.tolist(), abs=1e-5)
            assert np.abs(np.array([box for *_, box in answer]) - expected.boxes).max() < 1e-2


@pytest.mark.parametrize("message", [b"no picture", b"", "text"])
def test_the_web_socket_leaves_who_sends_no_picture_and_serves_the_next(server, scenes, message):
    from websockets.exceptions import ConnectionClosedError  # noqa: PLC0415 - an extra
    from websockets.sync.client import connect  # noqa: PLC0415

    with connect(server) as socket:
        socket.send(message)
        with pytest.raises(ConnectionClosedError, match="1011"):
            socket.recv(timeout=60)
    with connect(server) as socket:
        socket.send(cv2.imencode(".jpg", scenes[0].image)[1].tobytes())
        assert len(json.loads(socket.recv(timeout=60))) >= 5


def test_the_web_socket_refuses_web_pages(server):
    from websockets.exceptions import InvalidStatus  # noqa: PLC0415 - an extra
    from websockets.sync.client import connect  # noqa: PLC0415

    with pytest.raises(InvalidStatus, match="403"), connect(server, origin="https://example.com"):
        pass


def run_gpu_example(how, **settings):
    """Run gpu_frames.py in a process of its own, set up as ``gpu_example`` says; nothing may go wrong."""
    folders = [*SOURCE_ROOTS, SUPPORT]
    path = python_path(*folders)
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "cases.gpu_example", how],
        env=environment(**{"PYTHONPATH": path, **settings}),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_gpu_frames_on_a_driver_that_computes_on_the_cpu(gpu_driver, kernel_cache):
    """All of "gpu_frames.py" but PyTorch's upload and the opening of an engine, for which there is no GPU."""
    run_gpu_example("host", LD_LIBRARY_PATH=str(gpu_driver), CORNERNET_CACHE=str(kernel_cache), FAKE_ORDER="-1")


def test_gpu_frames_on_a_gpu():
    import torch  # noqa: PLC0415 - only where it is asked for a GPU

    if not torch.cuda.is_available():
        if os.environ.get("CORNERNET_REQUIRE_GPU") == "1":
            pytest.fail("CORNERNET_REQUIRE_GPU=1, but PyTorch finds no GPU")
        pytest.skip("no GPU that PyTorch can use")
    run_gpu_example("gpu")
