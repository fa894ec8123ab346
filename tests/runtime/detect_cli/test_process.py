"""The command in a process of its own: what it prints where, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cases.detect_cli import errors_in, noise, rows_of, save
from places import ROOT, python_path


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": python_path(ROOT / "runtime")}
    command = [sys.executable, "-m", "cornernet_runtime.cli.detect", *map(str, arguments)]
    return subprocess.Popen(  # noqa: S603 - our own command
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_json_to_standard_output_is_only_json_lines(planted_model, pictures):
    process = start(planted_model, pictures, "--json", "-")
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert [Path(row["source"]).name for row in rows_of(output)] == ["a.png", "b.png", "c.jpg"]
    assert "3 pictures, 6 objects" in errors
    assert "\x1b" not in errors, "no terminal, no colours"


def test_broken_pictures_are_one_line_each_and_no_traceback(planted_model, pictures):
    for name in ("b.jpg", "d.bmp", "e.tif"):  # OpenCV would add reports of its own
        save(pictures / name, noise(seed=9))
        content = (pictures / name).read_bytes()
        (pictures / name).write_bytes(content[: len(content) // 2])
    process = start(planted_model, pictures)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert "Traceback" not in errors
    assert "OpenCV" not in errors
    assert errors_in(errors) == [
        *(f"error: {pictures / name}: cannot be decoded as a picture" for name in ("b.jpg", "d.bmp", "e.tif")),
        "error: 3 of 6 pictures could not be read",
    ]


def test_a_reader_that_stops_ends_the_command_quietly(planted_model, pictures):
    process = start(planted_model, pictures, "--json", "-")
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 141, errors
    assert "Traceback" not in errors
    assert "Exception" not in errors
