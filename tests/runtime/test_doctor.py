"""The doctor: what it finds here, what it says of things that are missing or broken, and how it ends."""

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib

import av
import cv2
import numpy as np
import onnxruntime
import pytest
from places import ROOT

from cornernet_runtime import doctor, machine, plugin
from cornernet_runtime.cli.doctor import main
from cornernet_runtime.detector import BACKENDS
from cornernet_runtime.doctor import Gpu, Report, diagnose
from cornernet_runtime.records import from_json, to_json
from cornernet_runtime.video import writer

LOAD_LIBRARY = ctypes.CDLL
COMPILER = shutil.which("gcc")
LIBCUDA = """
#include <stddef.h>
#include <string.h>
int cuInit(unsigned flags) { return STATUS; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index + 7; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    strcpy(name, device == 7 ? "Pretend GPU" : "");
    return 0;
}
int cuDeviceGetAttribute(int *value, int which, int device) { *value = which == 75 ? 8 : 6; return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)24 << 30; return 0; }
"""


@pytest.fixture(autouse=True)
def programs(tmp_path, monkeypatch):
    """The only folder on PATH: empty, so that a test decides which programs there are; no GPU driver, no TensorRT."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CORNERNET_PLUGIN", raising=False)
    for place in ("PACKAGED_PLUGIN", "BUILT_PLUGIN"):  # one may have been built here
        monkeypatch.setattr(plugin, place, tmp_path / "none.so")
    monkeypatch.setattr(ctypes, "CDLL", refuse_library)
    for module in ("tensorrt", "tensorrt_lean_bindings"):
        monkeypatch.setitem(sys.modules, module, None)  # what Python takes as: cannot be imported
    return folder


def test_versions_are_those_that_the_packages_report_themselves():
    found = facts()
    assert found["numpy"].value == np.__version__
    assert found["opencv"].value.startswith(cv2.__version__)
    assert found["onnxruntime"].value.startswith(f"{onnxruntime.__version__} (providers: ")
    assert found["python"].value == f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"


def test_execution_providers_are_those_of_onnxruntime():
    assert diagnose().execution_providers == tuple(onnxruntime.get_available_providers())


@pytest.mark.parametrize(
    ("distribution", "key", "command"),
    [
        ("torch", "torch", 'pip install ".[export]"'),
        ("pycocotools", "pycocotools", 'pip install ".[bench]"'),
        ("openvino", "openvino", "pip install openvino"),
        ("av", "av", 'pip install ".[video]"'),
        ("ray", "ray", 'pip install ".[cluster]"'),
    ],
)
def test_missing_package_is_optional_and_has_its_command(hide, distribution, key, command):
    hide(distribution)
    fact = facts()[key]
    assert (fact.state, fact.value, fact.command) == ("missing", "", command)
    assert fact.purpose


def test_missing_torch_leaves_the_installation_usable_without_export_and_training(hide):
    hide("torch")
    report = diagnose()
    assert report.usable
    assert {"export (no PyTorch)", "train (no PyTorch)"} <= set(report.cannot)
    assert report.can[0].startswith("detect on the CPU (ONNX Runtime")


def test_extras_in_commands_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commands = " ".join(command or "" for *_, command in doctor._ROWS.values())
    extras = set(re.findall(r"pip install \"\.\[(\w+)\]\"", commands))
    assert {"bench", "export", "video"} <= extras <= set(project["optional-dependencies"])


def test_pyav_has_its_encoder_of_h264_beside_its_version(monkeypatch):
    assert facts()["av"].value == f"{av.__version__} (H.264 encoder: {writer.ENCODERS[0]})"
    assert (*doctor._H264_ENCODERS, "mpeg4") == writer.ENCODERS
    for has, note in (
        ({"libopenh264", "h264"}, "H.264 encoder: libopenh264"),
        ({"h264", "mpeg4"}, "no H.264 encoder: annotated videos become MPEG-4 part 2"),
    ):
        monkeypatch.setattr(av, "codecs_available", has)
        assert facts()["av"].value == f"{av.__version__} ({note})"


def test_pyav_that_does_not_load_is_a_problem_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    fact = facts()["av"]
    assert (fact.state, fact.command) == ("problem", 'pip install --force-reinstall "av>=18,<19"')
    assert fact.value.startswith("ModuleNotFoundError: import of av halted")


@pytest.mark.parametrize(
    ("program", "key", "output", "version"),
    [
        (
            "nvcc",
            "nvcc",
            "Copyright (c) 2005-2025\nCuda tools, release 13.0, V13.0.88\nBuild 13.0.r13.0/1_0",
            "13.0",
        ),
        ("g++", "gxx", "g++ (Ubuntu 13.3.0-6ubuntu2~24.04) 13.3.0\nCopyright (C) 2023 Free", "13.3.0"),
        ("cmake", "cmake", "cmake version 3.25.1\n\nCMake suite", "3.25.1"),
        ("ffmpeg", "ffmpeg", "ffmpeg version 5.1.6-0+deb12u1 Copyright (c) 2000-2024", "5.1.6-0+deb12u1"),
        ("cmake", "cmake", "something else", "version unknown"),
    ],
)
def test_version_of_a_program_is_read_from_what_it_prints(programs, program, key, output, version):
    path = write_program(programs / program, f"cat <<'END'\n{output}\nEND")
    assert facts()[key].value == f"{version} ({path})"


def test_missing_program_has_its_debian_package():
    fact = facts()["gxx"]
    assert (fact.state, fact.command) == ("missing", "apt-get install g++")


def test_gpu_is_read_from_nvidia_smi(programs):
    write_program(programs / "nvidia-smi", "echo 'NVIDIA H200, 9.0, 580.65.06, 143771'")
    report = diagnose()
    assert report.gpus == (Gpu("NVIDIA H200", "9.0", "580.65.06", 143771),)
    value = "NVIDIA H200, compute capability 9.0, driver 580.65.06, 140.4 GiB"
    assert (fact_of(report, "gpu").state, fact_of(report, "gpu").value) == ("ok", value)
    assert "TensorRT engine (no TensorRT)" in report.cannot


def test_equal_gpus_share_a_line_and_a_field_that_is_not_available_is_unknown(programs):
    rows = [
        "NVIDIA L4, 8.9, 580.65.06, 23034",
        "NVIDIA L4, 8.9, 580.65.06, 23034",
        "Odd, one, [N/A], 540.3.0, [N/A]",
    ]
    write_program(programs / "nvidia-smi", "\n".join(f"echo '{row}'" for row in rows))
    report = diagnose()
    assert report.gpus[2] == Gpu("Odd, one", None, "540.3.0", None)
    assert fact_of(report, "gpu").value.splitlines() == [
        "2 x NVIDIA L4, compute capability 8.9, driver 580.65.06, 22.5 GiB",
        "Odd, one, compute capability unknown, driver 540.3.0, memory unknown",
    ]


def test_nvidia_smi_that_fails_is_a_problem_with_its_own_words(programs, capsys):
    write_program(programs / "nvidia-smi", "echo 'Failed to initialize NVML:\nDriver mismatch'; exit 18")
    said = "nvidia-smi failed with status 18 and said: Failed to initialize NVML: Driver mismatch"
    assert main([]) == 1
    assert capsys.readouterr().err == f"error: GPU: {said} (type: apt-get install nvidia-driver)\n"


def test_nvidia_smi_that_hangs_is_a_problem_and_does_not_hold_the_doctor(programs, monkeypatch):
    monkeypatch.setattr(machine, "TOOL_TIMEOUT_SECONDS", 0.3)
    write_program(programs / "nvidia-smi", "sleep 60; echo late")
    start = time.monotonic()
    fact = facts()["gpu"]
    assert (fact.state, fact.value) == ("problem", "nvidia-smi did not answer within 0.3 seconds")
    assert time.monotonic() - start < 20  # far from the 60 of the script, on a busy machine too


def test_children_of_a_program_that_hangs_do_not_outlive_it(programs, monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "TOOL_TIMEOUT_SECONDS", 0.3)
    write_program(programs / "nvidia-smi", f"(sleep 1; touch {tmp_path}/late) & wait")
    diagnose()
    time.sleep(1.5)
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("status", [0, 6])
def test_driver_without_devices_is_no_problem(programs, status):
    write_program(programs / "nvidia-smi", f"echo 'No devices were found'; exit {status}")
    assert facts()["gpu"].state == "missing"


def test_program_that_cannot_start_is_a_problem(programs):
    (programs / "cmake").write_bytes(b"\x7fELF, but not really")
    (programs / "cmake").chmod(0o755)
    fact = facts()["cmake"]
    assert (fact.state, fact.value) == ("problem", "cmake does not start: Exec format error")


def test_gpu_is_read_from_the_drivers_library_without_nvidia_smi(fake_libcuda):
    fake_libcuda(status=0)
    (gpu,) = diagnose().gpus
    assert (gpu.name, gpu.compute_capability, gpu.memory_mib) == ("Pretend GPU", "8.6", 24576)


@pytest.mark.parametrize(("status", "state"), [(100, "missing"), (34, "missing"), (803, "problem")])
def test_library_without_a_device_is_no_problem_and_a_failing_one_is(fake_libcuda, status, state):
    fake_libcuda(status=status)
    assert facts()["gpu"].state == state


def test_both_onnxruntime_distributions_are_a_problem_that_says_how_to_end_it(install, capsys):
    install("onnxruntime-gpu", "1.24.0")
    assert main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"onnxruntime {onnxruntime.__version__}, onnxruntime-gpu 1.24.0 exclude each other" in lines[0]
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime" in lines[0]
    assert "export" in diagnose().can  # the one that won does run


def test_nothing_can_run_without_onnxruntime(hide, capsys):
    hide("onnxruntime", "onnxruntime-gpu", "openvino")
    assert main([]) == 1
    output = capsys.readouterr()
    assert "cannot: detect (no ONNX Runtime), export (no ONNX Runtime)" in output.out
    assert output.err.count("\n") == 1
    assert "ONNX Runtime: not installed: no model can run (type: pip install onnxruntime)" in output.err


@pytest.mark.parametrize("missing", [None, "gpu", "tensorrt", "cuda_python", "openvino"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_backends_are_those_of_the_detector_that_can_run_here(monkeypatch, missing, bfloat16):
    def fact(key):
        return doctor._fact(key, "missing" if key == missing else "ok")

    package = doctor._package_fact
    monkeypatch.setattr(doctor, "_gpu_fact", lambda: ((), fact("gpu")))
    monkeypatch.setattr(doctor, "_tensorrt_fact", lambda: fact("tensorrt"))
    monkeypatch.setattr(
        doctor, "_package_fact", lambda key: fact(key) if key in {"cuda_python", "openvino"} else package(key)
    )
    monkeypatch.setattr(doctor, "has_bfloat16", lambda: bfloat16)
    report = diagnose()
    here = {"onnxruntime"}
    if missing != "openvino":
        here |= {"openvino", "openvino-bf16"} if bfloat16 else {"openvino"}
    if missing in {None, "openvino"}:
        here.add("tensorrt")
    assert report.backends == tuple(name for name in BACKENDS if name in here)
    assert ("TensorRT engine" in report.can) == ("tensorrt" in here)
    on_cpu = "ONNX Runtime" if missing == "openvino" else "ONNX Runtime, OpenVINO"
    assert report.can[0] == f"detect on the CPU ({on_cpu})"


def test_onnxruntime_that_does_not_load_is_a_problem_with_the_reason(tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise OSError('libfoo.so:\\n no such file')")
    done = run_doctor(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'runtime'}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ONNX Runtime: OSError: libfoo.so: no such file (type: pip install ")
    assert done.stderr.count("\n") == 1


def test_onnxruntime_whose_files_are_gone_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    fact = facts()["onnxruntime"]
    assert (fact.state, fact.value) == ("problem", "its files are missing")


def test_numpy_that_does_not_load_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)  # what Python takes as: cannot be imported
    report = diagnose()
    assert fact_of(report, "numpy").state == "problem"
    assert (report.usable, report.backends) == (False, ())
    assert "detect (no NumPy)" in report.cannot


def test_lean_tensorrt_is_named_as_such(install, tmp_path, monkeypatch):
    install("tensorrt-lean-cu13-bindings", "11.4.0.1")
    assert facts()["tensorrt"].state == "missing"  # its module decides
    monkeypatch.delitem(sys.modules, "tensorrt_lean_bindings")
    (tmp_path / "site" / "tensorrt_lean_bindings").mkdir()
    (tmp_path / "site" / "tensorrt_lean_bindings" / "__init__.py").write_text("raise ImportError")
    fact = facts()["tensorrt"]
    assert (fact.state, fact.value) == ("missing", "lean only, 11.4.0.1")


def test_plugin_is_looked_for_at_the_path_in_the_environment(monkeypatch, tmp_path):
    fact = facts()["plugin"]
    assert (fact.value, fact.command) == ("in no usual place; built in a checkout", "make wheel")
    library = tmp_path / "libcornernet.so"
    monkeypatch.setenv("CORNERNET_PLUGIN", str(library))
    assert facts()["plugin"].state == "problem"
    library.touch()
    assert facts()["plugin"].state == "problem"
    library.write_bytes(b"\0cornernet_plugins version 1.2.3 for TensorRT 11\0")
    assert (facts()["plugin"].state, facts()["plugin"].value) == ("ok", f"1.2.3 for TensorRT 11 ({library})")


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


@pytest.fixture
def hide(monkeypatch):
    """Make these packages look as if they were not installed."""
    version, find_spec = importlib.metadata.version, importlib.util.find_spec

    def hide_distributions(*names):
        def version_of_others(name):
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.metadata, "version", version_of_others)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else find_spec(name))

    return hide_distributions


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Write the metadata of a package, as pip does, without any module."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def write_metadata(name, version):
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return write_metadata


@pytest.fixture
def fake_libcuda(monkeypatch, tmp_path):
    """Compile a driver library with one GPU, whose cuInit returns ``status``."""

    def build(status):
        source, library = tmp_path / "cuda.c", tmp_path / "libcuda.so.1"
        source.write_text(LIBCUDA.replace("STATUS", str(status)))
        command = [COMPILER, "-shared", "-fPIC", "-o", str(library), str(source)]
        subprocess.run(command, check=True, env={"PATH": os.defpath})  # noqa: S603 - our own source
        monkeypatch.setattr(ctypes, "CDLL", lambda name: LOAD_LIBRARY(library if name == "libcuda.so.1" else name))

    if COMPILER is None:
        pytest.skip("no C compiler")
    return build


def facts():
    return {fact.key: fact for fact in diagnose().facts}


def fact_of(report, key):
    (fact,) = (fact for fact in report.facts if fact.key == key)
    return fact


def commands_not_whole(report, lines):
    """Return the commands, of which a report file has some, that stand on no line as a whole."""
    found = json.loads(report.read_text(encoding="utf-8"))["facts"]
    commands = [fact["command"] for fact in found if fact["command"]]
    assert commands
    return [command for command in commands if not any(command in line for line in lines)]


def refuse_library(name):
    raise OSError(f"{name}: cannot open shared object file")


def write_program(path, script):
    path.write_text(f"#!/bin/sh\nPATH={os.defpath}\n{script}\n")
    path.chmod(0o755)
    return path


def run_doctor(*arguments, **environment):
    code = "import sys; from cornernet_runtime.cli.doctor import main; sys.exit(main(sys.argv[1:]))"
    return run_python(code, *arguments, **environment)


def run_python(code, *arguments, **environment):
    """Run ``code`` in a fresh interpreter, with colours and columns not decided by whoever runs the tests."""
    inherited = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "NO_COLOR", "COLUMNS"}}
    return subprocess.run(  # noqa: S603 - the code is this file's own
        [sys.executable, "-c", code, *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT / "runtime"), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
