"""What the doctor says of programs and of the GPU."""

import ctypes
import os
import shutil
import subprocess
import time

import pytest
from cases.doctor import fact_of, facts

from cornernet_runtime import machine
from cornernet_runtime.cli.doctor import main
from cornernet_runtime.doctor import Gpu, diagnose

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


def write_program(path, script):
    path.write_text(f"#!/bin/sh\nPATH={os.defpath}\n{script}\n")
    path.chmod(0o755)
    return path
