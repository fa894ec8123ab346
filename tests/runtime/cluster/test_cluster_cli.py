"""``cornernet-detect --ray``: the same lines as without, what it says, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cases.cluster import files_of
from cases.video_clips import moving_shapes, write_clip

from cornernet_runtime.cli.detect import main

# Connects with another environment for its workers: a module of this name cannot be imported there.
WITHOUT = """
import logging, os, sys
address, stub, *arguments = sys.argv[1:]
os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
import ray
path = f"{stub}:{os.environ['PYTHONPATH']}"
from cornernet_runtime.cluster import connect
with connect._silent_descriptor():
    ray.init(address, runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False, logging_level=logging.ERROR)
from cornernet_runtime.cli.detect import main
raise SystemExit(main([*arguments, "--ray", address]))
"""


# Has Ray repeat a line, as it does when workers die; all but the first it keeps until the end of the connection.
REPEATED = """
import sys
from cornernet_runtime.cluster.connect import connected
with connected(sys.argv[1]):
    from ray._private.worker import stdout_deduplicator
    for pid in (1, 2, 3):
        line = {"ip": "127.0.0.1", "pid": pid, "lines": ["a worker died"], "is_err": False, "job": "01000000"}
        stdout_deduplicator.deduplicate(line)
    print("a line of ours")
print("another")
"""

# Uses Ray, and waits for a signal afterwards; a handler that is set before is there again.
AFTERWARDS = """
import signal, sys, time
from cornernet_runtime.cluster.connect import connected
for handler in (signal.SIG_IGN, signal.SIG_DFL):
    signal.signal(signal.SIGTERM, handler)
    with connected(sys.argv[1]):
        pass
    assert signal.getsignal(signal.SIGTERM) is handler, signal.getsignal(signal.SIGTERM)
print("finished", flush=True)
time.sleep(60)
"""


@pytest.fixture
def run(bundle_path, ray_address):
    """Return a function that runs cornernet-detect on the cluster in a process of its own."""

    def start(*arguments, script=("-m", "cornernet_runtime.cli.detect"), address=ray_address, **options):
        command = [sys.executable, *script, str(bundle_path), *map(str, arguments)]
        command += [] if address is None else ["--ray", address]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **options)  # noqa: S603 - ours

    return start


def ended(process, within=100):
    output, errors = process.communicate(timeout=within)
    return process.returncode, output, errors


def wait_for_parts(folder, count, process):
    """Wait until some parts are done, and return them."""
    for _ in range(1000):
        done = list(folder.glob("parts/0*.parquet")) if folder.exists() else []
        if len(done) >= count:
            return {path.name for path in done}
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"{len(done)} of {count} parts after 50 seconds")


def test_lines_of_pictures_are_those_of_a_single_process(run, detect, pictures, tmp_path):
    status, output, errors = ended(
        run(pictures, "--output", tmp_path / "run", "--json", tmp_path / "a.jsonl", "--score", "0.1")
    )
    assert (status, output) == (1, "")
    expected, _, expected_errors = detect(pictures, "--json", tmp_path / "b.jsonl", "--score", "0.1")
    assert expected == 1
    lines = (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() == lines
    assert len(lines.splitlines()) == 39
    told = [line for line in expected_errors.splitlines() if line.startswith("error: ")]
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == told
    assert told[-1] == "error: 2 of 41 pictures could not be read"
    assert re.search(r"39 pictures, \d+ objects of score 0.1 or more; [\d.]+ pictures/s by [12] worker", errors)
    assert f"wrote {tmp_path / 'run'}: 6 parts" in errors
    assert not re.search(r"\(raylet\)|\[20|[Ww]arning|WARN", errors)  # of Ray's own


def test_lines_of_videos_are_those_of_a_single_process(detect, ray_address, tmp_path):
    clips = [write_clip(tmp_path / f"{name}.mp4", moving_shapes(80), keyframes=10) for name in "ab"]
    options = ("--every", "3", "--score", "0.1", "--json", "-")
    status, output, errors = detect(
        *clips, *options, "--output", tmp_path / "run", "--part-size", "8", "--ray", ray_address
    )
    assert status == 0, errors
    assert len(files_of(tmp_path / "run")) == 6
    assert output == detect(*clips, *options)[1]
    assert len(output.splitlines()) == 54
    assert re.search(r"54 frames, \d+ objects of score 0.1 or more; [\d.]+ frames/s by 2 workers", errors)


def test_a_killed_driver_is_gone_on_with(run, detect, pictures, tmp_path):
    arguments = (pictures, "--output", tmp_path / "run", "--score", "0.1", "--part-size", "1")
    process = run(*arguments)
    wait_for_parts(tmp_path / "run", 4, process)
    process.kill()
    process.communicate()
    before = wait_until_still(tmp_path / "run")
    assert 4 <= len(before) < 41
    status, _, errors = ended(run(*arguments, "--json", tmp_path / "a.jsonl"))
    assert status == 1, errors
    after = files_of(tmp_path / "run")
    assert {name: after[name] for name in before} == before
    assert f"{len(before)} of 41 parts kept from an earlier run" in errors
    detect(pictures, "--json", tmp_path / "b.jsonl", "--score", "0.1")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_the_end_of_a_connection_writes_nothing_of_rays(ray_address):
    command = (sys.executable, "-c", REPEATED, ray_address)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert (done.returncode, done.stdout) == (0, "a line of ours\nanother\n"), done.stderr


def test_sigterm_after_a_run_ends_the_process_as_before_it(ray_address):
    command = (sys.executable, "-c", AFTERWARDS, ray_address)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:  # noqa: S603 - ours
        said = process.stdout.readline()
        process.terminate()
        _, errors = process.communicate(timeout=60)
    assert (said, process.returncode, errors) == ("finished\n", -signal.SIGTERM, "")


def wait_until_still(folder):
    """Return the files once nobody writes any more: Ray ends the workers of a driver that is gone."""
    before = None
    for _ in range(60):
        now = {name: state for name, state in files_of(folder).items() if not name.startswith(".")}
        if now == before:
            return now
        before = now
        time.sleep(1)
    raise AssertionError("somebody still writes a minute after the driver was killed")


def test_ctrl_c_keeps_what_is_finished_and_says_so(run, pictures, tmp_path):
    process = run(pictures, "--output", tmp_path / "run", "--part-size", "1")
    wait_for_parts(tmp_path / "run", 3, process)
    process.send_signal(signal.SIGINT)
    status, output, errors = ended(process)
    assert (status, output) == (130, "")
    message = f"error: interrupted: finished parts are kept in {tmp_path / 'run'}; the same command goes on from there"
    assert errors.splitlines() == [message]
    assert 3 <= len([name for name in files_of(tmp_path / "run") if not name.startswith(".")]) < 41


@pytest.mark.parametrize(
    ("module", "raises", "words"),
    [
        (
            "onnxruntime",
            "ImportError('no such package')",
            "worker on .*: ONNX Runtime is not installed; pip install onnxruntime",
        ),
        (
            "cornernet_runtime",
            "ModuleNotFoundError(\"No module named 'cornernet_runtime'\")",
            "a worker has no cornernet-trt; install the same version on every machine",
        ),
    ],
)
def test_a_worker_that_lacks_a_package_ends_the_run_in_one_line(
    module, raises, words, run, ray_address, pictures, tmp_path
):
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / f"{module}.py").write_text(f"raise {raises}\n")
    process = run(
        # One part, one worker: of several Ray would repeat itself at the end of a connection that is not ours.
        *(pictures, "--output", tmp_path / "run", "--part-size", "64"),
        script=("-c", WITHOUT, ray_address, str(tmp_path / "stub")),
        address=None,
    )
    status, output, errors = ended(process)
    assert (status, output) == (1, "")
    assert errors.startswith("error: ")
    assert re.search(words, errors)
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("what", ["nobody", "no Ray", "no address"])
def test_where_there_is_no_ray_it_says_how_to_start_one(what, run, pictures, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if what == "nobody":
            server.close()
        address = "somewhere" if what == "no address" else f"127.0.0.1:{port}"
        status, output, errors = ended(run(pictures, "--output", tmp_path / "run", address=address), 40)
    assert (status, output) == (1, "")
    assert len(errors.splitlines()) == 1
    assert "HOST:PORT of a Ray cluster" in errors if what == "no address" else "`ray start --head`" in errors
    assert "local" in errors
    assert not list(tmp_path.glob("run/*"))  # another run may have the folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.png", "--ray", "local"], "name a folder with --output"),
        (["a.png", "--ray", "local", "--output", "o", "--corners"], "--corners does not go with --ray"),
        (["a.mp4", "--ray", "local", "--output", "o", "--start", "1"], "--start does not go with --ray"),
        (["a.mp4", "--ray", "local", "--output", "o", "--show"], "--show does not go with --ray"),
        (["rtsp://host/a", "--ray", "local", "--output", "o"], "rtsp://host/a is none"),
        (["0", "--ray", "local", "--output", "o"], "--ray takes files that all machines see; 0 is none"),
        (["a.png", "a.mp4", "--ray", "local", "--output", "o"], "pictures and videos take a command each"),
        (["a.png", "--ray", "local", "--output", "o", "--every", "2"], "--every is for videos"),
        (["a.png", "--ray", "local", "--output", "o", "--worker-gpus", "1.5"], "a whole number or a part of 1"),
        (["a.png", "--workers", "2"], "--workers goes with --ray ADDRESS"),
        (["a.parquet"], "Parquet files are read with --ray"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, words, bundle_path, capsys):
    with pytest.raises(SystemExit) as end:
        main([str(bundle_path), *arguments])
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_relative_paths_are_those_of_the_command(run, detect, pictures, tmp_path, monkeypatch):
    folder = Path(os.path.relpath(pictures, tmp_path))
    process = run(folder / "00*.png", "--output", "run", "--json", "a.jsonl", cwd=tmp_path)
    status, _, errors = ended(process)
    assert status == 0, errors
    monkeypatch.chdir(tmp_path)
    detect(folder / "00*.png", "--json", "b.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
