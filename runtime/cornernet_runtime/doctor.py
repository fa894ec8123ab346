"""What an installation has, what it lacks, and what it can do: the facts behind ``cornernet-doctor``.

Versions come from package metadata: torch, onnx and TensorRT are never imported. Importing probes nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from cornernet_runtime.version import __version__

State = Literal["ok", "missing", "problem"]
Group = Literal["system", "run", "export", "gpu", "other"]

TOOL_TIMEOUT_SECONDS = 10.0  # of each program asked for its version: nvidia-smi waits for ever on a hung driver
PLUGIN_VARIABLE = "CORNERNET_PLUGIN"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that an installation has or lacks.

    Attributes:
        key: Lower-case name for programs, unique in a report.
        label: Name for people.
        group: What it belongs to.
        state: ``missing`` is optional; a ``problem`` is needed and missing, or there and broken.
        value: Version and details; for a problem, what is wrong; mostly empty when missing.
        purpose: What it is for.
        command: What to type to get or repair it; None when it is there or nothing can be typed.
    """

    key: str
    label: str
    group: Group
    state: State
    value: str
    purpose: str = ""
    command: str | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU, its compute capability such as ``9.0``. None is what its driver does not tell."""

    name: str
    compute_capability: str | None
    driver_version: str | None
    memory_mib: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that ``diagnose`` found.

    Attributes:
        version: Of this project.
        usable: Whether some backend can run a model and nothing is a problem.
        can: What this installation can do, in words.
        cannot: What it cannot do, each with the reason in brackets.
        backends: Those that can run a model here.
        execution_providers: What ONNX Runtime offers, in its order.
        gpus: In the driver's order.
        facts: The rows of the table.
    """

    version: str
    usable: bool
    can: tuple[str, ...]
    cannot: tuple[str, ...]
    backends: tuple[str, ...]
    execution_providers: tuple[str, ...]
    gpus: tuple[Gpu, ...]
    facts: tuple[Fact, ...]


_EXPORT = 'pip install "cornernet-trt[export]"'
_BENCH = 'pip install "cornernet-trt[bench]"'
_ROWS: dict[str, tuple[str, Group, str, str | None]] = {  # label, group, purpose and command of a Fact
    "numpy": ("NumPy", "run", "everything", "pip install --force-reinstall numpy"),
    "opencv": ("OpenCV", "run", "pictures", "pip install --force-reinstall opencv-python-headless"),
    "onnxruntime": ("ONNX Runtime", "run", "models on the CPU", 'pip install "cornernet-trt[cpu]"'),
    "torch": ("PyTorch", "export", "export, training, the reference model", _EXPORT),
    "onnx": ("onnx", "export", "export", _EXPORT),
    "onnxscript": ("onnxscript", "export", "export", _EXPORT),
    "safetensors": ("safetensors", "export", "checkpoints", _EXPORT),
    "pycocotools": ("pycocotools", "export", "average precision (COCO)", _BENCH),
    "gpu": ("GPU", "gpu", "TensorRT engines on an NVIDIA GPU", "apt-get install nvidia-driver"),
    "cuda_python": ("CUDA Python", "gpu", "kernels on the GPU", 'pip install "cuda-core[cu13]"'),
    "nvrtc": ("NVRTC", "gpu", "compiling kernels at first use", "pip install nvidia-cuda-nvrtc"),
    "tensorrt": ("TensorRT", "gpu", "building and running engines", "pip install tensorrt"),
    "plugin": ("TensorRT plugin", "gpu", "corner pooling in one kernel", None),
    "nvcc": ("nvcc", "gpu", "building the plugin", "apt-get install nvidia-cuda-toolkit"),
    "gxx": ("g++", "gpu", "building the plugin, testing kernels", "apt-get install g++"),
    "cmake": ("CMake", "gpu", "building the plugin", "apt-get install cmake"),
    "openvino": ("OpenVINO", "other", "models on Intel CPUs", 'pip install "cornernet-trt[openvino]"'),
    "av": ("PyAV", "other", "video with exact timestamps", "pip install av"),
    "ffmpeg": ("ffmpeg", "other", "converting videos", "apt-get install ffmpeg"),
}
_DISTRIBUTIONS = {  # where the name is not the key, or not the only one
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "cuda_python": ("cuda-core",),
    "nvrtc": ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-lean", "tensorrt-lean-cu13-bindings"),
}
_TOOLS = {  # program, its option, and where the version stands in what it prints
    "nvcc": ("nvcc", "--version", r"release ([^\s,]+)"),
    "gxx": ("g++", "--version", r"(?m)(\d+\.\d[\d.]*)\s*$"),
    "cmake": ("cmake", "--version", r"version (\S+)"),
    "ffmpeg": ("ffmpeg", "-version", r"version (\S+)"),
}
_NEEDS = {
    "export": ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors"),
    "measure accuracy": ("pycocotools",),
    "train": ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors", "pycocotools"),
}


class _ProbeError(Exception):
    """Something that is there did not answer as it should; the message is for the user."""


def diagnose() -> Report:
    """Look at this machine and this Python environment.

    Starts ``nvidia-smi`` and the compilers for their versions, each with a time limit, and imports numpy, cv2
    and onnxruntime to see whether they load. What is missing or broken is in the report and raises nothing.
    """
    gpus, gpu = _gpu_fact()
    onnxruntime, providers = _onnxruntime_fact()
    base = (_base_fact("numpy", "numpy"), _base_fact("opencv", "cv2"))
    facts = (
        *_system_facts(),
        *base,
        onnxruntime,
        *(_package_fact(key) for key in ("torch", "onnx", "onnxscript", "safetensors", "pycocotools")),
        gpu,
        *(_package_fact(key) for key in ("cuda_python", "nvrtc")),
        _tensorrt_fact(),
        _plugin_fact(),
        *(_tool_fact(key) for key in ("nvcc", "gxx", "cmake")),
        *(_package_fact(key) for key in ("openvino", "av")),
        _tool_fact("ffmpeg"),
    )
    sound = all(fact.state == "ok" for fact in base)
    backends = ("onnxruntime",) if providers and sound else ()
    can, cannot = _abilities({fact.key for fact in facts if fact.state == "ok"} | {*backends}, backends)
    usable = bool(backends) and all(fact.state != "problem" for fact in facts)
    return Report(__version__, usable, can, cannot, backends, providers, gpus, facts)


def _abilities(ok: set[str], backends: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what can and what cannot be done with the things that are ``ok``."""
    can, cannot = [], []
    if backends:
        can.append(f"detect on the CPU ({', '.join(_ROWS[name][0] for name in backends)})")
    else:
        broken = [_ROWS[key][0] for key in ("numpy", "opencv") if key not in ok]
        cannot.append(f"detect (no {', no '.join(broken) or 'ONNX Runtime'})")
    for what, keys in _NEEDS.items():
        lacks = [_ROWS[key][0] for key in keys if key not in ok]
        if lacks:
            cannot.append(f"{what} (no {', no '.join(lacks)})")
        else:
            can.append(what)
    reason = "no GPU" if "gpu" not in ok else "no TensorRT" if "tensorrt" not in ok else "not in this version"
    cannot.append(f"TensorRT engine ({reason})")
    return tuple(can), tuple(cannot)


def _fact(key: str, state: State, value: str = "", command: str | None = None) -> Fact:
    label, group, purpose, usual = _ROWS[key]
    return Fact(key, label, group, state, value, purpose, None if state == "ok" else command or usual)


def _system_facts() -> tuple[Fact, ...]:
    version = f"{__version__}, run from its source tree"
    with contextlib.suppress(metadata.PackageNotFoundError):
        version = metadata.version("cornernet-trt")
    system = f"{platform.system()} {platform.machine()}"
    with contextlib.suppress(OSError, KeyError):  # only Linux has the file
        system = f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {system}"
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # only Linux has the file, and on ARM it names no model
        names = re.findall(r"(?m)^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(errors="replace"))
        cpu = names[0] if names else cpu
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = "size unknown"
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no sysconf, or it lacks these names
        memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    return (
        Fact("cornernet_trt", "cornernet-trt", "system", "ok", version),
        Fact("python", "Python", "system", "ok", f"{platform.python_version()} ({sys.executable})"),
        Fact("system", "System", "system", "ok", system),
        Fact("cpu", "CPU", "system", "ok", f"{cpu}, {cores} cores"),
        Fact("memory", "Memory", "system", "ok", memory),
    )


def _installed(key: str) -> dict[str, str]:
    """Return the version of each installed distribution that provides this thing, by name."""
    versions = {}
    for name in _DISTRIBUTIONS.get(key, (key,)):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _describe(versions: dict[str, str]) -> str:
    """Return the version, with the distribution's name only where there are several."""
    if len(versions) > 1:
        return ", ".join(f"{name} {version}" for name, version in versions.items())
    return next(iter(versions.values()), "version unknown")


def _package_fact(key: str) -> Fact:
    versions = _installed(key)
    return _fact(key, "ok", _describe(versions)) if versions else _fact(key, "missing")


def _base_fact(key: str, module: str) -> Fact:
    """Return the fact of a package without which nothing runs, and which is therefore imported."""
    if error := _import_error(module):
        return _fact(key, "problem", error)
    return _fact(key, "ok", _describe(_installed(key)))


def _onnxruntime_fact() -> tuple[Fact, tuple[str, ...]]:
    """Return the fact of the only backend that this version has, and its execution providers."""
    key = "onnxruntime"
    versions = _installed(key)
    if not versions and importlib.util.find_spec(key) is None:
        return _fact(key, "problem", "not installed: no model can run"), ()
    error = _import_error(key)
    # Python also imports a folder that the removal of another distribution has emptied.
    providers = tuple(getattr(sys.modules.get(key), "get_available_providers", tuple)())
    if not providers:
        error = error or "its files are missing"
    if len(versions) > 1:
        error = f"{_describe(versions)} exclude each other: one overwrites the other's files"
        repair = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime"
        return _fact(key, "problem", error, repair), providers
    if error:
        return _fact(key, "problem", error, f"pip install --force-reinstall {next(iter(versions), key)}"), ()
    names = ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
    return _fact(key, "ok", f"{_describe(versions)} (providers: {names})"), providers


def _import_error(module: str) -> str:
    """Import a module; return in one line why that fails, or nothing."""
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a broken native package raises anything, and its row says what
        return _one_line(f"{type(error).__name__}: {error}")
    return ""


def _tensorrt_fact() -> Fact:
    """Return the fact of TensorRT, full or lean; system packages bring the module without metadata."""
    full, lean = (importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_lean_bindings"))
    if not full and not lean:
        return _fact("tensorrt", "missing")
    version = next(iter(_installed("tensorrt").values()), "version unknown")
    return _fact("tensorrt", "ok", version if full else f"{version}, lean: runs engines, builds none")


def _plugin_fact() -> Fact:
    path = os.environ.get(PLUGIN_VARIABLE)
    if not path:
        return _fact("plugin", "missing", f"not found: {PLUGIN_VARIABLE} does not name it")
    if Path(path).is_file():
        return _fact("plugin", "ok", path)
    return _fact("plugin", "problem", f"{PLUGIN_VARIABLE} names no file: {path}", f"unset {PLUGIN_VARIABLE}")


def _tool_fact(key: str) -> Fact:
    program, option, pattern = _TOOLS[key]
    path = shutil.which(program)
    if path is None:
        return _fact(key, "missing")
    try:
        found = re.search(pattern, _output_of(path, option))
    except _ProbeError as error:
        return _fact(key, "problem", str(error))
    return _fact(key, "ok", f"{found[1] if found else 'version unknown'} ({path})")


def _gpu_fact() -> tuple[tuple[Gpu, ...], Fact]:
    """Ask nvidia-smi, or where that is not there the driver's library."""
    path = shutil.which("nvidia-smi")
    try:
        gpus = _gpus_of_nvidia_smi(path) if path else _gpus_of_libcuda()
    except _ProbeError as error:
        state: State = "missing" if "No devices were found" in str(error) else "problem"
        return (), _fact("gpu", state, str(error) if state == "problem" else "")
    if not gpus:
        return (), _fact("gpu", "missing")
    lines = Counter(_describe_gpu(gpu) for gpu in gpus).items()
    return gpus, _fact("gpu", "ok", "\n".join(f"{n} x {line}" if n > 1 else line for line, n in lines))


def _describe_gpu(gpu: Gpu) -> str:
    capability = f"compute capability {gpu.compute_capability or 'unknown'}"
    memory = f"{gpu.memory_mib / 1024:.1f} GiB" if gpu.memory_mib else "memory unknown"
    return f"{gpu.name}, {capability}, driver {gpu.driver_version or 'unknown'}, {memory}"


def _gpus_of_nvidia_smi(path: str) -> tuple[Gpu, ...]:
    query = "--query-gpu=name,compute_cap,driver_version,memory.total"
    gpus = []
    for line in _output_of(path, query, "--format=csv,noheader,nounits").splitlines():
        name, *rest = line.strip().rsplit(", ", 3)
        if len(rest) != 3:
            raise _ProbeError(f"nvidia-smi printed: {_one_line(line)}")
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
        raise _ProbeError(f"the CUDA driver does not start: cuInit returned {status}")
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


def _output_of(*command: str) -> str:
    """Return the standard output of a program; raise _ProbeError if it fails or takes too long."""
    name = Path(command[0]).name
    pipe, none = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(  # noqa: S603 - found on PATH, fixed arguments
            command, stdin=none, stdout=pipe, stderr=pipe, text=True, errors="replace", start_new_session=True
        )
        output, errors = process.communicate(timeout=TOOL_TIMEOUT_SECONDS)
    except OSError as error:
        raise _ProbeError(f"{name} does not start: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        # All of its session, as a script's child would live on; and what hangs in a driver cannot be killed.
        os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        raise _ProbeError(f"{name} did not answer within {TOOL_TIMEOUT_SECONDS:g} seconds") from error
    if process.returncode:
        said = _one_line(output or errors) or "nothing"
        raise _ProbeError(f"{name} failed with status {process.returncode} and said: {said}")
    return output


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 240 else f"{line[:237]}..."
