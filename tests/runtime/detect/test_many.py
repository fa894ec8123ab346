"""The command on several live sources, which it runs at the same time: what is whose, and what one's failure costs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from itertools import pairwise

import pytest
from cases.video_clips import decoded, write_clip
from places import ROOT, python_path
from servers.live_servers import HOST, PATIENCE, Server, free_port, number_of, numbered, paced

from cornernet_runtime.cli.detect import main
from cornernet_runtime.detect import videos as detect_module


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Return two recordings of 2 s, as transport streams, whose frames show numbers from 0 and from 500."""
    folder = tmp_path_factory.mktemp("recordings")
    return [write_clip(folder / f"{first}.ts", numbered(first, 50), keyframes=10).read_bytes() for first in (0, 500)]


def by_source(lines):
    rows = defaultdict(list)
    for line in lines.splitlines():
        row = json.loads(line)
        rows[row["source"]].append(row)
    return rows


def started(bundle_path, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT / "runtime"), "COLUMNS": "150", "TERM": "xterm"}
    command = [sys.executable, "-m", "cornernet_runtime.cli.detect", str(bundle_path), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, **options)  # noqa: S603 - our own command


@pytest.mark.slow
def test_live_sources_run_at_the_same_time_and_one_that_fails_ends_alone(detect, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(detect_module, "START_WITHIN", 1.0)
    monkeypatch.setenv("COLUMNS", "300")
    clip = write_clip(tmp_path / "clip.mp4", numbered(0, 12))
    both = threading.Barrier(2)

    def talk(client, content):
        both.wait(PATIENCE)  # neither would go on if the other came after it
        paced(client, content, 3)

    gone = f"tcp://{HOST}:{free_port()}"
    with (
        Server(lambda client, _: talk(client, recordings[0])) as server,
        Server(lambda client, _: talk(client, recordings[1])) as other,
    ):
        names = [f"tcp://{HOST}:{one.port}" for one in (server, other)]
        options = ("--duration", "1.5", "--json", "-", "--output", tmp_path / "out")
        status, output, errors = detect(names[0], gone, clip, names[1], *options)
    assert status == 1
    assert f"error: {gone}: given up after 1 s without a frame: connection refused\n" in errors
    rows = by_source(output)
    assert next(iter(rows)) == str(clip), "files come first"
    assert set(rows) == {str(clip), *names}
    assert len(rows[str(clip)]) == 12
    for name, one, first in zip(names, (server, other), (0, 500), strict=True):
        assert all(before["frame"] < after["frame"] for before, after in pairwise(rows[name]))
        frames = decoded(tmp_path / "out" / f"127.0.0.1-{one.port}.mp4")
        assert len(frames) == len(rows[name]) > 0
        assert all(first <= number_of(image) < first + 50 for _, image in frames)
    assert len(list((tmp_path / "out").iterdir())) == 3
    table = [line.split()[0] for line in errors.splitlines() if re.match(r"  \S+ .* \d+\.\d +\d+ *$", line)]
    assert table == [str(clip), names[0], gone, names[1]]


def test_cameras_that_are_not_there_are_named_each(detect):
    status, output, errors = detect("97", "98")
    assert (status, output) == (1, "")
    assert "error: camera 97 cannot be opened: it is in use or not there" in errors
    assert "error: camera 98 cannot be opened: it is in use or not there" in errors


def test_several_are_not_shown_in_one_window(bundle_path, capsys):
    with pytest.raises(SystemExit) as left:
        main([str(bundle_path), "0", "rtsp://host/a", "--show"])
    assert left.value.code == 2
    assert "--show shows one camera or stream; name one, or leave --show out" in capsys.readouterr().err


def test_ctrl_c_keeps_what_each_has_and_progress_tells_of_each(bundle_path, recordings, tmp_path):
    terminal, end = os.openpty()

    def talk(client, content):
        paced(client, content, 2)
        server.wait()

    with (
        Server(lambda client, _: talk(client, recordings[0])) as server,
        Server(lambda *_: silent.wait()) as silent,
    ):
        names = [f"tcp://{HOST}:{one.port}" for one in (server, silent)]
        files = ("--output", tmp_path, "--json", tmp_path / "a.jsonl")
        process = started(bundle_path, *names, *files, stdout=end, stderr=end)
        os.close(end)
        shown = ""
        for words in (
            rf"{names[0]} ━+ +\d+\.\d fps, lag [1-9]\d* ms",  # not before the first result
            rf"{names[1]} .* (connecting|lost|stalled), 0\.0 fps",
        ):
            while not re.search(words, shown):
                shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(terminal, 65536).decode(errors="replace"))
        process.send_signal(signal.SIGINT)
        # A terminal has to be read from, lest the command waits for it.
        drain = threading.Thread(target=read_to_the_end, args=(terminal,))
        drain.start()
        assert process.wait(PATIENCE) == 130
        drain.join(PATIENCE)
    os.close(terminal)
    rows = by_source((tmp_path / "a.jsonl").read_text())
    assert list(rows) == [names[0]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"127.0.0.1-{server.port}.mp4", "a.jsonl"]
    assert len(decoded(tmp_path / f"127.0.0.1-{server.port}.mp4")) == len(rows[names[0]]) > 0


def read_to_the_end(terminal):
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass  # how Linux says that the other end was closed
