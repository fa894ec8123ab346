"""``cornernet-bench selftest``: layers in processes of their own, whatever becomes of these, and the report."""

import getpass
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import fields
from pathlib import Path

import pytest
from places import ROOT, python_path

from cornernet_bench import cli
from cornernet_bench.selftest import run as selftest
from cornernet_bench.selftest.report import LAYERS, Finding, Outcome, Report, Request, joint_state, without_user
from cornernet_bench.selftest.run import run_layer
from cornernet_runtime.version import __version__

DOCUMENT = ROOT / "docs" / "selftest.md"
DEADLINE = 30  # seconds in which a process has to be gone


@pytest.fixture
def plant(tmp_path, monkeypatch):
    """Return a function that puts functions in the place of layers, in the processes that run them."""

    def change(**bodies):
        folder = tmp_path / "planted"
        folder.mkdir(exist_ok=True)
        code = "import os, signal, subprocess, sys, time\nfrom cornernet_bench.selftest import layers\n"
        code += "from cornernet_bench.selftest.report import Finding\n"
        code += "from cornernet_runtime.errors import KernelError\n"
        for layer, body in bodies.items():
            code += f"def {layer}(request, notes):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
            code += f"layers.RUNNERS[{layer!r}] = {layer}\n"
        (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
        monkeypatch.syspath_prepend(folder)

    return change


SOUND = 'return Finding("passed", "all is well", {"count": 3})'


def run(layer, limit_s=60.0):
    """Run a layer; return what it found, and its lines of progress."""
    said = []
    found, interrupted = run_layer(layer, Request(), limit_s, said.append)
    assert not interrupted
    return found, said


def ended(pid):
    """Return whether a process is gone before the deadline."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


# A layer in its process.


def test_a_layer_tells_progress_and_what_it_found(plant):
    plant(L1=f'notes.say("working")\nprint("noise")\n{SOUND}')
    found, said = run("L1")
    assert found == Finding("passed", "all is well", {"count": 3}, "noise")
    assert said == ["L1: working"]


def test_a_crash_is_a_failure_that_keeps_what_was_known(plant):
    plant(L3='notes.keep(version="11.4")\nos.kill(os.getpid(), signal.SIGSEGV)')
    found, _ = run("L3")
    assert (found.state, found.said, found.figures) == ("failed", "crashed: SIGSEGV", {"version": "11.4"})
    assert "Fatal Python error: Segmentation fault" in found.output
    assert "sitecustomize.py" in found.output  # where


def test_a_crash_after_the_end_is_a_failure(plant):
    plant(L3=f"import atexit\natexit.register(os.abort)\n{SOUND}")
    found, _ = run("L3")
    assert (found.state, found.said) == ("failed", "all is well; then it crashed: SIGABRT")
    assert found.figures == {"count": 3}


@pytest.mark.slow
def test_a_layer_that_hangs_is_ended_with_all_that_it_started(plant):
    plant(L5='child = subprocess.Popen(["sleep", "600"])\nnotes.keep(pid=child.pid)\ntime.sleep(600)')
    found, _ = run("L5", limit_s=8)
    assert (found.state, found.said) == ("failed", "did not end within 8 seconds, and was ended")
    assert ended(found.figures["pid"])


@pytest.mark.parametrize(
    ("body", "said", "output"),
    [
        ('print("giving up")\nos._exit(3)', "ended with status 3: giving up", "giving up"),
        ("os._exit(0)", "ended with status 0", ""),
        ('raise KernelError("expected a kernel, got none")', "expected a kernel, got none", ""),
        ('raise ValueError("two\\nlines")', "ValueError: two lines", "Traceback"),
    ],
    ids=["status", "no word", "error", "defect"],
)
def test_a_layer_that_ends_otherwise_is_a_failure_with_the_reason(plant, body, said, output):
    plant(L2=body)
    found, _ = run("L2")
    assert (found.state, found.said) == ("failed", said)
    assert found.output.startswith(output)
    assert bool(output) == bool(found.output)


def test_the_end_of_the_output_is_kept(plant):
    plant(L2=f'for number in range(1000): print("line", number)\n{SOUND}')
    lines = run("L2")[0].output.splitlines()
    assert (len(lines), lines[-1]) == (selftest.TAIL_LINES, "line 999")


# The report.


@pytest.mark.slow
def test_layers_run_one_by_one_and_the_report_grows(plant):
    plant(L1=SOUND, L2='return Finding("skipped", "no compiler")', L5='raise KernelError("wrong")')
    reports = []
    last = selftest.run_selftest(Request(("L1", "L2", "L5")), lambda _line: None, reports.append)
    states = ["skipped", "passed", "passed", "failed", "failed"]
    assert [report.state for report in reports] == states
    assert [len(report.layers) for report in reports] == [0, 1, 2, 3, 3]
    assert [report.partial for report in reports] == [True] * 4 + [False]
    assert [report.not_run for report in reports] == [("L1", "L2", "L5"), ("L2", "L5"), ("L5",), (), ()]
    assert reports[-1] == last
    assert [(layer.layer, layer.state, layer.said) for layer in last.layers] == [
        ("L1", "passed", "all is well"),
        ("L2", "skipped", "no compiler"),
        ("L5", "failed", "wrong"),
    ]
    assert all(layer.seconds > 0 and layer.proves == LAYERS[layer.layer] for layer in last.layers)
    assert last.doctor["version"] == __version__
    assert {"gpu", "tensorrt", "plugin"} <= {fact["key"] for fact in last.doctor["facts"]}
    assert {"numpy", "rich"} <= set(last.versions)


@pytest.mark.parametrize(
    ("states", "joint"),
    [
        (["passed", "failed", "skipped"], "failed"),
        (["skipped", "passed"], "passed"),
        (["passed", "partly", "skipped"], "partly"),
        (["partly", "failed"], "failed"),
        (["interrupted", "passed"], "passed"),
        (["skipped", "skipped"], "skipped"),
        ([], "skipped"),
    ],
)
def test_a_report_is_as_its_worst_layer_but_skipping_is_not_bad(states, joint):
    assert joint_state(states) == joint


def test_a_report_names_neither_the_user_nor_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere/ada")
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    text = {
        "model": "/somewhere/ada/models/ada.onnx",
        "lines": ["at /somewhere/ada", "/scratch/ada/plugin.so:1", "/somewhere/adam", "the language ada", 3, None],
    }
    assert without_user(text) == {
        "model": "~/models/ada.onnx",
        "lines": ["at ~", "/scratch/USER/plugin.so:1", "/somewhere/adam", "the language ada", 3, None],
    }


def test_a_report_holds_no_environment(plant, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "swordfish")
    plant(L1=SOUND)
    assert "swordfish" not in selftest.run_selftest(Request(("L1",)), lambda _line: None, lambda _: None).text()


def documented(heading):
    """Return the names of a table of the document, in order."""
    section = DOCUMENT.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [name for line in section.splitlines() if "|" in line for name in re.findall(r"`(\w+)`", line.split("|")[1])]


def test_the_document_has_every_key_of_the_report_in_order():
    assert documented("The report") == [field.name for field in fields(Report)]
    assert documented("A layer") == [field.name for field in fields(Outcome)]


# The command.


@pytest.mark.slow
def test_the_command_prints_a_table_and_writes_the_report(plant, tmp_path, capsys):
    plant(L1=SOUND, L4='return Finding("skipped", "not installed")')
    file = tmp_path / "report.json"
    assert cli.main(["selftest", "--layers", "L1,L4", "--report", str(file)]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert any(re.fullmatch(r"L1 +kernels compute the reference, on the CPU +passed +\d+", line) for line in lines)
    assert any(re.fullmatch(r"L4 +every call exists in the .* +skipped +\d+", line) for line in lines)
    assert lines[-4:] == [
        "L1 passed: all is well",
        "L4 skipped: not installed",
        "1 passed, 1 skipped (L4: not installed)",
        f"report, for whoever is to help: {file}",
    ]
    assert [line for line in lines if line != line.rstrip()] == []
    content = json.loads(file.read_text())
    assert list(content) == documented("The report")
    assert [list(layer) for layer in content["layers"]] == [documented("A layer")] * 2
    assert (content["partial"], content["state"], content["schema_version"]) == (False, "passed", 2)


def test_what_was_found_is_not_broken_at_the_terminals_edge(plant, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path = "/a/long/path/" * 12 + "library.so"
    plant(L3=f'return Finding("skipped", "looked at {path}")')
    assert cli.main(["selftest", "--layers", "L3", "--report", str(tmp_path / "report.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"L3 skipped: looked at {path}" in lines
    assert "1 skipped (L3)" in lines


@pytest.mark.slow
def test_a_failed_layer_ends_the_command_with_1_and_the_reason(plant, tmp_path, capsys):
    plant(L1='raise KernelError("the kernel is wrong")', L2=SOUND)
    assert cli.main(["selftest", "--layers", "L1,L2", "--report", str(tmp_path / "report.json")]) == 1
    told = capsys.readouterr()
    assert "\nL1 failed: the kernel is wrong\n" in told.out
    assert told.err.endswith("error: 1 layer failed: L1\n")
    assert [layer["state"] for layer in json.loads((tmp_path / "report.json").read_text())["layers"]] == [
        "failed",
        "passed",
    ]


def test_without_a_name_the_report_lies_in_the_cache_folder(plant, tmp_path, monkeypatch):
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    plant(L1=SOUND)
    assert cli.main(["selftest", "--layers", "L1"]) == 0
    assert json.loads((tmp_path / "cache" / "selftest.json").read_text())["state"] == "passed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "planted"]


def test_without_a_folder_for_the_report_a_warning_says_so_once(plant, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path / "file" / "cache"))
    plant(L1=SOUND)
    assert cli.main(["selftest", "--layers", "L1"]) == 0
    told = capsys.readouterr()
    assert told.err.count("warning: no report is kept: cannot make the folder") == 1
    assert "; name a file with --report FILE\n" in told.err
    assert "for whoever is to help" not in told.out


def test_a_usual_report_that_cannot_be_replaced_is_warned_of_once(plant, tmp_path, monkeypatch, capsys):
    (tmp_path / "selftest.json").mkdir()
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path))
    plant(L1=SOUND)
    assert cli.main(["selftest", "--layers", "L1"]) == 0
    assert capsys.readouterr().err.count("warning: no report is kept: cannot write") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "nowhere"], "nowhere does not exist; cornernet-export makes bundles"),
        (["--model", "empty"], "empty: no bundle.json in it"),
        (["--model", "text.onnx"], "text.onnx"),
        (["--model", "text.safetensors"], "text.safetensors: not a whole safetensors file"),
        (["--model", "text.md"], "text.md is no bundle folder or .onnx file"),
        (["--images", "empty"], "empty"),
        (["--images", "nowhere"], "nowhere"),
        (
            ["--layers", "L1,L5", "--model", "text.onnx"],
            "--model is for L6, and --layers names L1,L5 only: add L6 there, or leave --model out",
        ),
        (["--layers", "L1", "--images", "."], "--images is for L6, and --layers names L1 only"),
        (["--layers", "L6", "--architectures", "80"], "--architectures is for L2, and --layers names L6 only"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_report_is_replaced(tmp_path, monkeypatch, capsys, arguments, said):
    (tmp_path / "selftest.json").write_text("of before")
    monkeypatch.setenv("CORNERNET_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for suffix in ("onnx", "safetensors", "md"):
        (tmp_path / f"text.{suffix}").write_text("no model, but words")
    assert cli.main(["selftest", *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert said in told
    assert told.count("\n") == 1
    assert (tmp_path / "selftest.json").read_text() == "of before"


def test_a_report_that_cannot_be_written_is_told_before_anything_runs(tmp_path, capsys):
    start = time.monotonic()
    assert cli.main(["selftest", "--report", str(tmp_path / "nowhere" / "report.json")]) == 1
    assert time.monotonic() - start < 2
    assert "error: cannot write" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--layers", "L7"], "expected some of L1,L2,L3,L4,L5,L6, got 'L7'"),
        (["--layers", "L1,L5,L1"], "expected each layer once, got L1 twice"),
        (["--architectures", "70"], "expected some of 75,80,"),
        (["--scenes", "0"], "expected a whole number of 1 or more, got '0'"),
        (["--frames", "-1"], "expected"),
        (["--limit", "0"], "expected a whole number of 1 or more"),
    ],
)
def test_wrong_usage_ends_with_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["selftest", *arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def started(plant, tmp_path):
    """The command under way, and the process of its second layer, which hangs."""
    plant(L1=SOUND, L2='notes.keep(pid=os.getpid())\nnotes.say(f"pid {os.getpid()}")\ntime.sleep(600)')
    command = [sys.executable, "-m", "cornernet_bench.cli", "selftest", "--layers", "L1,L2,L3"]
    (temporary := tmp_path / "temporary").mkdir()
    process = subprocess.Popen(  # noqa: S603 - this interpreter
        [*command, "--report", str(tmp_path / "report.json")],
        env={**os.environ, "PYTHONPATH": python_path(*sys.path), "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if match := re.search(r"pid (\d+)", line):
            yield process, int(match[1])
            break
    process.kill()
    process.stdout.close()
    process.stderr.close()
    process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_keeps_what_is_known(started, tmp_path, number):
    process, worker = started
    process.send_signal(number)
    told = "\n" + process.stdout.read()
    assert process.wait(DEADLINE) == 130
    assert ended(worker)
    assert re.search(r"\nL1 .* passed +\d+\n", told)
    assert re.search(r"\nL2 .* interrupted +\d+\n", told)
    assert re.search(r"\nL3 .* not run +-\n", told)
    assert "1 passed, 1 interrupted (L2: by the user), 1 not run (L3)\n" in told
    assert "not finished: part of the report, for whoever is to help" in told
    assert list((tmp_path / "temporary").iterdir()) == []
    content = json.loads((tmp_path / "report.json").read_text())
    assert (content["partial"], content["command"]) == (True, shlex.join(["cornernet-bench", *process.args[3:]]))
    assert [(layer["layer"], layer["state"], layer["said"]) for layer in content["layers"]] == [
        ("L1", "passed", "all is well"),
        ("L2", "interrupted", "by the user"),
    ]
    assert (content["not_run"], content["layers"][1]["figures"]) == (["L3"], {"pid": worker})


def test_ctrl_c_before_the_first_layer_prints_no_empty_table(monkeypatch, tmp_path, capsys):
    def interrupted(*_arguments):
        return Finding("interrupted", "by the user"), True

    monkeypatch.setattr(selftest, "run_layer", interrupted)
    assert cli.main(["selftest", "--layers", "L1,L2", "--report", str(tmp_path / "report.json")]) == 130
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "2 not run (L1, L2)",
        f"not finished: part of the report, for whoever is to help: {tmp_path / 'report.json'}",
    ]
    assert "proves that" not in "".join(lines)


def test_a_kill_leaves_the_report_so_far_and_no_process(started, tmp_path):
    process, worker = started
    process.kill()
    assert ended(worker)
    content = json.loads((tmp_path / "report.json").read_text())
    assert (content["partial"], [layer["layer"] for layer in content["layers"]]) == (True, ["L1"])
