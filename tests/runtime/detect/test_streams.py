"""The command on live streams: what it writes and says, how it ends, and what it never shows."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest
from cases.video_clips import STEP, decoded, write_clip
from places import ROOT, python_path
from servers.live_servers import HOST, PATIENCE, Server, free_port, http_answer, numbered, paced

from cornernet_runtime.detect import videos as detect_module
from cornernet_runtime.video.addresses import are_videos


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Return two recordings of 2 s whose times do not overlap, as transport streams."""
    folder, found = tmp_path_factory.mktemp("recordings"), []
    for first in (100, 500):
        ticks = [STEP * (first + index) for index in range(50)]
        path = write_clip(folder / f"{first}.ts", numbered(first, 50), ticks, keyframes=10)
        found.append(path.read_bytes())
    return found


def started(bundle_path, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT / "runtime"), "COLUMNS": "150", "TERM": "xterm"}
    command = [sys.executable, "-m", "cornernet_runtime.cli.detect", str(bundle_path), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **options)  # noqa: S603 - our own command


@pytest.mark.slow
def test_a_stream_is_recorded_for_as_long_as_asked_and_over_a_gap(detect, recordings, tmp_path):
    with Server(lambda client, number: paced(client, recordings[number % 2], 2)) as server:
        url = f"tcp://me:s3cret@{HOST}:{server.port}?token=s3cret"
        options = ("--duration", "3", "--json", "-", "--output", tmp_path)
        status, output, errors = detect(url, *options)
    name = f"tcp://{HOST}:{server.port}"
    assert status == 0
    rows = [json.loads(line) for line in output.splitlines()]
    assert {row["source"] for row in rows} == {name}
    assert all(before["frame"] < after["frame"] for before, after in pairwise(rows))
    assert 2 < rows[-1]["seconds"] - rows[0]["seconds"] < 3
    (written,) = tmp_path.iterdir()
    assert written.name == f"127.0.0.1-{server.port}.mp4"
    times = [float(seconds) for seconds, _ in decoded(written)]
    assert rows[0]["seconds"] > 0
    assert times == pytest.approx([row["seconds"] - rows[0]["seconds"] for row in rows], abs=1e-4)
    assert errors.count(f"note: {name}: live\n") == 2
    assert errors.count(f"warning: {name}: lost: the stream ended; it is connected again as soon as it answers\n") == 1
    assert "s3cret" not in output + errors


def test_a_stream_that_does_not_begin_is_an_error(detect, monkeypatch):
    monkeypatch.setattr(detect_module, "START_WITHIN", 0.3)
    name = f"tcp://{HOST}:{free_port()}"
    status, _, errors = detect(name)
    assert status == 1
    assert f"error: {name}: given up after 0.3 s without a frame: connection refused\n" in errors


def test_a_server_that_wants_credentials_is_an_error_without_those_given(detect):
    answer = http_answer("401 Unauthorized")
    with Server(lambda client, _: (client.recv(65536), client.sendall(answer))) as server:
        status, output, errors = detect(f"http://me:s3cret@{HOST}:{server.port}/live.ts?token=s3cret")
    assert (status, output) == (1, "")
    said = "it wants a user and a password (401); give SCHEME://USER:PASSWORD@HOST/PATH"
    assert f"error: http://{HOST}:{server.port}/live.ts: {said}\n" in errors
    assert "s3cret" not in errors


def test_a_video_file_of_a_web_server_is_done_as_a_file(detect, tmp_path):
    content = write_clip(tmp_path / "a.mp4", numbered(0, 25)).read_bytes()
    with Server(lambda client, _: (client.recv(65536), client.sendall(http_answer("200 OK", content)))) as server:
        status, output, errors = detect(
            f"http://{HOST}:{server.port}/folder/a.mp4", "--json", "-", "--output", tmp_path
        )
    assert status == 0
    assert [json.loads(line)["frame"] for line in output.splitlines()] == list(range(25))
    assert (tmp_path / f"127.0.0.1-{server.port}-folder-a.mp4.mp4").exists()
    assert "25 frames, " in errors


@pytest.mark.slow
def test_ctrl_c_while_nothing_comes_ends_well(bundle_path, recordings, tmp_path):
    lines, sent = tmp_path / "a.part.jsonl", threading.Event()
    with Server(lambda client, _: (paced(client, recordings[0], 2), sent.set(), server.wait())) as server:
        url = f"tcp://{HOST}:{server.port}"
        process = started(
            bundle_path, url, "--output", tmp_path, "--json", tmp_path / "a.jsonl", stderr=subprocess.PIPE, text=True
        )
        assert sent.wait(PATIENCE)
        wait_until(lambda: lines.exists() and lines.read_bytes().count(b"\n") > 0, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert "error: interrupted: what was done until then is kept" in errors
    assert "Traceback" not in errors
    rows = (tmp_path / "a.jsonl").read_text().splitlines()
    assert len(decoded(tmp_path / f"127.0.0.1-{server.port}.mp4")) == len(rows) > 0


def test_progress_on_a_terminal_tells_the_state(bundle_path, recordings):
    terminal, end = os.openpty()
    begin = threading.Event()

    def talk(client, _):
        begin.wait(PATIENCE)
        paced(client, recordings[0], 2)
        server.wait()

    shown = ""
    with Server(talk) as server:
        process = started(bundle_path, f"tcp://{HOST}:{server.port}", stdout=end, stderr=end)
        os.close(end)
        for words, action in (
            ("connecting, 0.0 fps", begin.set),
            (f"note: tcp://{HOST}:{server.port}: live", lambda: None),
            (r"━ \d+\.\d fps, lag \d+ ms", lambda: process.send_signal(signal.SIGINT)),
        ):
            while not re.search(words, shown):
                shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(terminal, 65536).decode(errors="replace"))
            action()
        # A terminal has to be read from, lest the command waits for it.
        drain = threading.Thread(target=read_to_the_end, args=(terminal,))
        drain.start()
        assert process.wait(PATIENCE) == 130
        drain.join(PATIENCE)
    os.close(terminal)


def read_to_the_end(terminal):
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass  # how Linux says that the other end was closed


def wait_until(condition, process):
    deadline = time.perf_counter() + PATIENCE
    while not condition() and process.poll() is None and time.perf_counter() < deadline:
        time.sleep(0.02)
    assert condition()


def test_addresses_are_told_from_pictures():
    sources = ["rtsp://host/a", "http://host/a.png", "udp://@:5000", "a.png", "C:/a.png"]
    assert are_videos(sources) == [True, True, True, False, False]
