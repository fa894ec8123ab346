"""How the doctor reports, and how it ends."""

import json
import os
import re
import subprocess
import sys

import pytest
from cases.doctor import run_doctor, run_python

from cornernet_runtime.bundle.records import from_json, to_json
from cornernet_runtime.cli.doctor import main
from cornernet_runtime.doctor import Report, diagnose


def test_report_file_holds_the_facts(tmp_path, capsys):
    path = tmp_path / "report.json"
    assert main(["--report", str(path)]) == 0
    data = json.loads(path.read_text(encoding="utf-8"))
    assert from_json(Report, data) == diagnose()
    assert data == to_json(diagnose())
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["report.json"]
    assert "report.json" not in capsys.readouterr().out


def test_keys_of_the_facts_are_distinct_lower_snake_case():
    keys = [fact.key for fact in diagnose().facts]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", key) for key in keys)


def test_report_that_cannot_be_written_ends_with_one_line(tmp_path, capsys):
    path = tmp_path / "absent" / "report.json"
    assert main(["--report", str(path)]) == 1
    assert capsys.readouterr().err == f"error: cannot write {path}: No such file or directory\n"


def test_usage_error_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--nonsense"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err


def test_output_to_a_pipe_is_plain_and_keeps_each_command_on_a_line(tmp_path):
    done = run_doctor("--report", str(tmp_path / "report.json"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "missing  for converting videos: apt-get install ffmpeg" in done.stdout
    lines = done.stdout.splitlines()
    assert max(map(len, lines[:-1])) <= 120  # the last one is the summary
    assert commands_not_whole(tmp_path / "report.json", lines) == []


def test_reader_that_has_stopped_ends_the_doctor_with_141():
    reader, writer = os.pipe()
    os.close(reader)
    code = "import sys; from cornernet_runtime.cli.doctor import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False)  # noqa: S603
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_terminal_of_80_columns_gets_colours_and_keeps_each_command_on_a_line(tmp_path):
    done = run_doctor("--report", str(tmp_path / "report.json"), FORCE_COLOR="1", COLUMNS="80")
    assert "\x1b[32mok" in done.stdout
    lines = re.sub(r"\x1b\[[\d;]*m", "", done.stdout).splitlines()
    assert max(map(len, lines)) <= 80
    assert commands_not_whole(tmp_path / "report.json", lines) == []


def test_last_line_says_what_this_installation_can_do_however_long(capsys, hide):
    hide("torch", "onnx", "pycocotools")
    assert main([]) == 0
    report = diagnose()
    summary = capsys.readouterr().out.splitlines()[-1]
    assert summary == f"can: {', '.join(report.can)}; cannot: {', '.join(report.cannot)}"
    assert len(summary) > 120
    assert report.cannot[-1] == "TensorRT engine (no GPU)"


def test_import_loads_no_framework():
    heavy = {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "cuda"}
    code = f"import sys, cornernet_runtime.cli.doctor; print({heavy} & sys.modules.keys())"
    assert run_python(code).stdout == "set()\n"


def test_run_loads_neither_torch_nor_onnx_nor_openvino():
    heavy = {"torch", "onnx", "openvino", "tensorrt"}
    code = f"import sys, cornernet_runtime.doctor as it; it.diagnose(); print({heavy} & sys.modules.keys())"
    assert run_python(code).stdout == "set()\n"


def commands_not_whole(report, lines):
    """Return the commands, of which a report file has some, that stand on no line as a whole."""
    found = json.loads(report.read_text(encoding="utf-8"))["facts"]
    commands = [fact["command"] for fact in found if fact["command"]]
    assert commands
    return [command for command in commands if not any(command in line for line in lines)]
