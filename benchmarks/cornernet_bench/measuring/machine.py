"""What a latency was measured on: processor, GPU and its clocks, memory, load, versions, threads."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.machine import ProbeError, core_count, cpu_name, output_of
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

DISTRIBUTIONS = (
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "tensorrt",
    "cuda-core",
    "av",
)
_GPU_QUERY = ("name", "driver_version", "memory.used", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu")


@dataclass(frozen=True, slots=True)
class GpuState:
    """A GPU as nvidia-smi shows it at one moment; None is what it does not tell.

    Attributes:
        name: Of the card.
        driver_version: Of NVIDIA's driver.
        memory_used_mib: Of the whole card, whoever uses it.
        sm_clock_mhz: Of the multiprocessors, now.
        sm_clock_limit_mhz: The highest that they may have.
        memory_clock_mhz: Of its memory, now.
        temperature_c: Of the chip.
    """

    name: str
    driver_version: str
    memory_used_mib: int | None
    sm_clock_mhz: int | None
    sm_clock_limit_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured.

    Attributes:
        cpu: Model of the processor.
        cores: That this process may use.
        cpu_mhz: Mean clock of the cores after the measurement; None where the system does not tell.
        memory_mib: Of the machine; None where the system does not tell.
        load_average: Processes that ran or waited in the minute before the measurement, this one's start included.
        gpu: The first GPU, right after the measurement.
        versions: Of Python, this project and the libraries that are installed, by name.
        threads: That each library in use may take; 0 is its own choice.
    """

    cpu: str
    cores: int
    cpu_mhz: float | None
    memory_mib: int | None
    load_average: float
    gpu: GpuState | None
    versions: dict[str, str]
    threads: dict[str, int]


def describe_machine(load_average: float, threads: int, backends: Collection[str]) -> Machine:
    """Return what there is now.

    Args:
        load_average: From before the measurement, which itself is load.
        threads: Asked for; 0 where none were, and the backends take those of ``default_threads``.
        backends: Names of what ran networks.
    """
    on_cpu = [name for name in sorted(backends) if name.startswith(("onnxruntime", "openvino"))]
    used = {"opencv": cv2.getNumThreads(), **dict.fromkeys(on_cpu, threads or default_threads())}
    if (torch := sys.modules.get("torch")) is not None:
        used["torch"] = torch.get_num_threads()
    return Machine(
        cpu=cpu_name(),
        cores=core_count(),
        cpu_mhz=_cpu_mhz(),
        memory_mib=_memory_mib(),
        load_average=load_average,
        gpu=gpu_state(),
        versions=_versions(),
        threads=used,
    )


def gpu_state() -> GpuState | None:
    """Return the state of the first GPU, or None without nvidia-smi or an answer from it."""
    path = shutil.which("nvidia-smi")
    if path is None:
        return None
    try:
        lines = output_of(path, f"--query-gpu={','.join(_GPU_QUERY)}", "--format=csv,noheader,nounits").splitlines()
    except ProbeError:
        return None  # cornernet-doctor says why; a latency on the CPU needs no GPU
    return parse_gpu_state(lines[0]) if lines else None


def parse_gpu_state(line: str) -> GpuState | None:
    """Return the state in a line of nvidia-smi's table, or None if it is no such line."""
    name, *rest = line.strip().rsplit(", ", len(_GPU_QUERY) - 1)
    if len(rest) != len(_GPU_QUERY) - 1:
        return None
    driver, *numbers = rest
    values = [int(value) if value.isdecimal() else None for value in numbers]  # "[N/A]"
    return GpuState(name, driver, *values)


def load_average() -> float:
    """Return how many processes ran or waited in the last minute; 0 where the system does not tell."""
    with suppress(OSError, AttributeError):  # Windows has none
        return os.getloadavg()[0]
    return 0.0


def peak_rss_mib() -> float:
    """Return the most memory that this process has held so far, MiB."""
    with suppress(OSError):  # what follows counts the process that started this one too, on Linux
        if high := re.search(r"(?m)^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(errors="replace")):
            return int(high[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def thread_limit(threads: int, *, torch: bool) -> Iterator[None]:
    """Let OpenCV, and PyTorch if asked, take so many threads inside the block; 0 leaves them alone."""
    if threads == 0:
        yield
        return
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        if not torch:
            yield
            return
        import torch as pytorch  # noqa: PLC0415 - an extra, and slow to import

        torch_before = pytorch.get_num_threads()
        pytorch.set_num_threads(threads)
        try:
            yield
        finally:
            pytorch.set_num_threads(torch_before)
    finally:
        cv2.setNumThreads(before)


def _versions() -> dict[str, str]:
    found = {"cornernet-trt": __version__, "python": platform.python_version()}
    for name in DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _cpu_mhz() -> float | None:
    with suppress(OSError):
        clocks = re.findall(r"(?m)^cpu MHz\s*: ([\d.]+)$", Path("/proc/cpuinfo").read_text(errors="replace"))
        if clocks:
            return sum(map(float, clocks)) / len(clocks)
    return None


def _memory_mib() -> int | None:
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    return None
