"""What the machine is: its processor, its GPUs, and how to ask its programs without hanging on them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

TOOL_TIMEOUT_SECONDS = 10.0  # of each program asked for its version: nvidia-smi waits for ever on a hung driver


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU, its compute capability such as ``9.0``. None is what its driver does not tell."""

    name: str
    compute_capability: str | None
    driver_version: str | None
    memory_mib: int | None


class ProbeError(Exception):
    """Something that is there did not answer as it should; the message is for the user."""


def cpu_name() -> str:
    """Return the model of the processor, or its architecture where the system does not tell."""
    with contextlib.suppress(OSError):  # only Linux has the file, and on ARM it names no model
        names = re.findall(r"(?m)^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(errors="replace"))
        if names:
            return str(names[0])
    return platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Return whether the processor computes in bfloat16, as far as the system tells."""
    with contextlib.suppress(OSError):
        flags = re.search(r"(?m)^flags\s*: (.+)$", Path("/proc/cpuinfo").read_text(errors="replace"))
        return flags is not None and not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags[1].split())
    return False


def core_count() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs, asking nvidia-smi or, where that is not there, the driver's library.

    Raises:
        ProbeError: There is a driver, but it does not answer as it should.
    """
    path = shutil.which("nvidia-smi")
    return _gpus_of_nvidia_smi(path) if path else _gpus_of_libcuda()


def output_of(*command: str) -> str:
    """Return the standard output of a program; raise ProbeError if it fails or takes too long."""
    name = Path(command[0]).name
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(  # noqa: S603 - found on PATH, fixed arguments
            command, stdin=none, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True
        )
        output, errors = process.communicate(timeout=TOOL_TIMEOUT_SECONDS)
    except OSError as error:
        raise ProbeError(f"{name} does not start: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        # All of its session, as a script's child would live on; and what hangs in a driver cannot be killed.
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        raise ProbeError(f"{name} did not answer within {TOOL_TIMEOUT_SECONDS:g} seconds") from error
    if process.returncode:
        said = one_line(output or errors) or "nothing"
        raise ProbeError(f"{name} failed with status {process.returncode} and said: {said}")
    return output


def one_line(text: str) -> str:
    """Return a text without line breaks, cut to 240 letters."""
    line = " ".join(text.split())
    return line if len(line) <= 240 else f"{line[:237]}..."


def _gpus_of_nvidia_smi(path: str) -> tuple[Gpu, ...]:
    query = "--query-gpu=name,compute_cap,driver_version,memory.total"
    gpus = []
    for line in output_of(path, query, "--format=csv,noheader,nounits").splitlines():
        name, *rest = line.strip().rsplit(", ", 3)
        if len(rest) != 3:
            raise ProbeError(f"nvidia-smi printed: {one_line(line)}")
        capability, driver, memory = (None if value.startswith("[") else value for value in rest)  # "[N/A]"
        gpus.append(Gpu(name, capability, driver, int(memory) if memory and memory.isdecimal() else None))
    return tuple(gpus)


def _gpus_of_libcuda() -> tuple[Gpu, ...]:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    status = cuda.cuInit(0)
    if status in {34, 100}:  # CUDA_ERROR_STUB_LIBRARY, CUDA_ERROR_NO_DEVICE
        return ()
    if status:
        raise ProbeError(f"the CUDA driver does not start: cuInit returned {status}")
    driver = None
    with contextlib.suppress(OSError):  # the library knows the version of CUDA only
        driver = Path("/sys/module/nvidia/version").read_text(encoding="ascii").strip()
    count, device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    gpus = []
    cuda.cuDeviceGetCount(ctypes.byref(count))
    for index in range(count.value):
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, len(name), device)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # COMPUTE_CAPABILITY_MAJOR
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)  # COMPUTE_CAPABILITY_MINOR
        cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        capability = f"{major.value}.{minor.value}"
        gpus.append(Gpu(name.value.decode(errors="replace"), capability, driver, memory.value // 2**20))
    return tuple(gpus)
