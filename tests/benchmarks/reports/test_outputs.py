"""Where reports go: standard output, plain and wide enough there, unless the object takes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cornernet_bench.cli import main
from cornernet_bench.reports.blocks import print_blocks, table_of
from cornernet_bench.reports.outputs import STDOUT, console_for_report, write_json


def test_a_report_goes_to_standard_output_and_leaves_it_to_the_object(capsys):
    for json_file in (None, Path("report.json"), STDOUT, Path("/dev/stdout")):
        console_for_report(json_file).print(f"to {json_file}")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("to None\nto report.json\n", "to -\nto /dev/stdout\n")


@pytest.mark.parametrize(("columns", "width"), [("", 120), ("72", 72)])
def test_a_pipe_is_as_wide_as_the_environment_says_or_120(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert console_for_report().width == width


def test_the_object_goes_to_standard_output_or_to_a_file(tmp_path, capsys):
    for path in (None, STDOUT, tmp_path / "a.json"):
        write_json(path, {"ap": 1.5})
    assert json.loads(capsys.readouterr().out) == {"ap": 1.5}
    assert json.loads((tmp_path / "a.json").read_text()) == {"ap": 1.5}


def test_latency_gives_the_object_alone_to_standard_output(bundle_path, capsys):
    assert main(["latency", str(bundle_path), "--iterations", "1", "--warm-up", "1", "--json", "-"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["iterations"] == 1
    assert "end to end" in said.err


def test_a_reader_that_has_stopped_ends_the_command_with_141(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    code = (
        "from cornernet_bench.reports.outputs import console_for_report\n"
        "from cornernet_runtime.cli.common import run_command\n"
        "raise SystemExit(run_command(lambda: console_for_report().print('a report') or 0))\n"
    )
    done = subprocess.run(  # noqa: S603 - fixed
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    "work",
    [
        "console_for_report().print('a report') or 0",
        "write_json(STDOUT, {'ap': 1}) or 0",
        "print('a path') or 0",
    ],
)
@pytest.mark.parametrize(
    ("redirection", "reason"), [(">/dev/full", "No space left on device"), (">&-", "it is closed")]
)
def test_a_standard_output_that_takes_nothing_is_one_line(work, redirection, reason):
    code = (
        "from cornernet_bench.reports.outputs import STDOUT, console_for_report, write_json\n"
        "from cornernet_runtime.cli.common import run_command\n"
        f"raise SystemExit(run_command(lambda: {work}))\n"
    )
    done = subprocess.run(  # noqa: S603 - fixed
        ["/bin/sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"error: cannot write standard output: {reason}; send it elsewhere\n")


@pytest.mark.parametrize("columns", ["20", "60"])
def test_a_table_is_whole_in_a_narrow_terminal(monkeypatch, capsys, columns):
    monkeypatch.setenv("COLUMNS", columns)
    table = table_of(["", "p50 ms", "AP 95 %", "mean"], [["preprocess", "123.45", "76.10 to 79.53", "123456789.25"]])
    print_blocks(console_for_report(), [table])
    names, _, row = capsys.readouterr().out.split("\n")[1:4]
    assert names.split() == ["p50", "ms", "AP", "95", "%", "mean"]
    assert row.split() == ["preprocess", "123.45", "76.10", "to", "79.53", "123456789.25"]
