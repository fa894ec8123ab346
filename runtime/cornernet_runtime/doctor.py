"""What an installation has, what it lacks, and what it can do: the facts behind ``cornernet-doctor``.

Versions come from package metadata: torch, onnx and TensorRT are never imported. Importing probes nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from cornernet_runtime.errors import PluginError
from cornernet_runtime.machine import (
    Gpu,
    ProbeError,
    core_count,
    cpu_name,
    find_gpus,
    has_bfloat16,
    one_line,
    output_of,
)
from cornernet_runtime.plugin import PLUGIN_VARIABLE, find_plugin, plugin_info
from cornernet_runtime.version import __version__

State = Literal["ok", "missing", "problem"]
Group = Literal["system", "run", "export", "gpu", "other"]


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


# From a checkout: the distribution is in no package index.
_EXPORT = 'pip install ".[export]"'
_BENCH = 'pip install ".[bench]"'
_ROWS: dict[str, tuple[str, Group, str, str | None]] = {  # label, group, purpose and command of a Fact
    "numpy": ("NumPy", "run", "everything", "pip install --force-reinstall numpy"),
    "opencv": ("OpenCV", "run", "pictures", "pip install --force-reinstall opencv-python-headless"),
    "onnxruntime": ("ONNX Runtime", "run", "models on the CPU", "pip install onnxruntime"),
    "openvino": ("OpenVINO", "run", "models on the CPU, also in bfloat16", "pip install openvino"),
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
    "nvcc": ("nvcc", "gpu", "building the plugin; NVIDIA's repository has it", "apt-get install cuda-toolkit-13"),
    "gxx": ("g++", "gpu", "building the plugin, testing kernels", "apt-get install g++"),
    "cmake": ("CMake", "gpu", "building the plugin", "apt-get install cmake"),
    "av": ("PyAV", "other", "videos, with exact times", 'pip install ".[video]"'),
    "ray": ("Ray", "other", "many machines, a service over HTTP", 'pip install ".[cluster]"'),
    "ffmpeg": ("ffmpeg", "other", "converting videos", "apt-get install ffmpeg"),
}
_DISTRIBUTIONS = {  # where the name is not the key, or not the only one
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python"),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "cuda_python": ("cuda-core",),
    "nvrtc": ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12"),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-lean", "tensorrt-lean-cu13-bindings"),
}
_H264_ENCODERS = ("libx264", "libopenh264")  # as in video.writer, which needs OpenCV to be imported
_TOOLS = {  # program, its option, and where the version stands in what it prints
    "nvcc": ("nvcc", "--version", r"release ([^\s,]+)"),
    "gxx": ("g++", "--version", r"(?m)(\d+\.\d[\d.]*)\s*$"),
    "cmake": ("cmake", "--version", r"version (\S+)"),
    "ffmpeg": ("ffmpeg", "-version", r"version (\S+)"),
}
_NEEDS = {
    "export": ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors"),
    "measure accuracy": ("pycocotools",),
    "train": ("torch", "safetensors"),
}
_ENGINE_NEEDS = {"gpu": "GPU", "tensorrt": "TensorRT", "cuda_python": "CUDA Python"}


def diagnose() -> Report:
    """Look at this machine and this Python environment.

    Starts ``nvidia-smi`` and the compilers for their versions, each with a time limit, and imports numpy, cv2,
    onnxruntime and av to see whether they load. What is missing or broken is in the report and raises nothing.
    """
    gpus, gpu = _gpu_fact()
    onnxruntime, providers = _onnxruntime_fact()
    base = (_base_fact("numpy", "numpy"), _base_fact("opencv", "cv2"))
    facts = (
        *_system_facts(),
        *base,
        onnxruntime,
        *(_package_fact(key) for key in ("openvino", "torch", "onnx", "onnxscript", "safetensors", "pycocotools")),
        gpu,
        *(_package_fact(key) for key in ("cuda_python", "nvrtc")),
        _tensorrt_fact(),
        _plugin_fact(),
        *(_tool_fact(key) for key in ("nvcc", "gxx", "cmake")),
        _av_fact(),
        _package_fact("ray"),
        _tool_fact("ffmpeg"),
    )
    sound = all(fact.state == "ok" for fact in base)
    ok = {fact.key for fact in facts if fact.state == "ok"}
    ready = {
        "tensorrt": ok >= {*_ENGINE_NEEDS},
        "onnxruntime": bool(providers),
        "openvino": "openvino" in ok,
        "openvino-bf16": "openvino" in ok and has_bfloat16(),
    }
    backends = tuple(name for name, here in ready.items() if here and sound)
    can, cannot = _abilities(ok | {*backends}, backends)
    usable = bool(backends) and all(fact.state != "problem" for fact in facts)
    return Report(__version__, usable, can, cannot, backends, providers, gpus, facts)


def _abilities(ok: set[str], backends: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what can and what cannot be done with the things that are ``ok``."""
    can, cannot = [], []
    if on_cpu := [_ROWS[key][0] for key in ("onnxruntime", "openvino") if key in backends]:
        can.append(f"detect on the CPU ({', '.join(on_cpu)})")
    else:
        broken = [_ROWS[key][0] for key in ("numpy", "opencv") if key not in ok]
        cannot.append(f"detect (no {', no '.join(broken) or 'ONNX Runtime'})")
    for what, keys in _NEEDS.items():
        lacks = [_ROWS[key][0] for key in keys if key not in ok]
        if lacks:
            cannot.append(f"{what} (no {', no '.join(lacks)})")
        else:
            can.append(what)
    lacks = [name for key, name in _ENGINE_NEEDS.items() if key not in ok]
    if lacks:
        cannot.append(f"TensorRT engine (no {lacks[0]})")
    else:
        can.append("TensorRT engine")
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
    memory = "size unknown"
    with contextlib.suppress(AttributeError, OSError, ValueError):  # no sysconf, or it lacks these names
        memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    return (
        Fact("cornernet_trt", "cornernet-trt", "system", "ok", version),
        Fact("python", "Python", "system", "ok", f"{platform.python_version()} ({sys.executable})"),
        Fact("system", "System", "system", "ok", system),
        Fact("cpu", "CPU", "system", "ok", f"{cpu_name()}, {core_count()} cores"),
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


def _av_fact() -> Fact:
    """Return the fact of PyAV, with what its FFmpeg can write."""
    fact = _package_fact("av")
    if fact.state == "missing":
        return fact
    if error := _import_error("av"):
        return _fact("av", "problem", error, 'pip install --force-reinstall "av>=18,<19"')
    has = sys.modules["av"].codecs_available
    encoder = next((name for name in _H264_ENCODERS if name in has), None)
    note = f"H.264 encoder: {encoder}" if encoder else "no H.264 encoder: annotated videos become MPEG-4 part 2"
    return _fact("av", "ok", f"{fact.value} ({note})")


def _import_error(module: str) -> str:
    """Import a module; return in one line why that fails, or nothing."""
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - a broken native package raises anything, and its row says what
        return one_line(f"{type(error).__name__}: {error}")
    return ""


def _tensorrt_fact() -> Fact:
    """Return the fact of TensorRT, full or lean; system packages bring the module without metadata."""
    full, lean = (importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_lean_bindings"))
    if not full and not lean:
        return _fact("tensorrt", "missing")
    version = next(iter(_installed("tensorrt").values()), "version unknown")
    return _fact("tensorrt", "ok", version) if full else _fact("tensorrt", "missing", f"lean only, {version}")


def _plugin_fact() -> Fact:
    try:
        path = find_plugin()
        if path is None:
            return _fact("plugin", "missing", "in no usual place; built in a checkout", "make wheel")
        info = plugin_info(path)
        return _fact("plugin", "ok", f"{info.version} for TensorRT {info.tensorrt} ({path})")
    except PluginError as error:
        return _fact("plugin", "problem", str(error), f"unset {PLUGIN_VARIABLE}")


def _tool_fact(key: str) -> Fact:
    program, option, pattern = _TOOLS[key]
    path = shutil.which(program)
    if path is None:
        return _fact(key, "missing")
    try:
        found = re.search(pattern, output_of(path, option))
    except ProbeError as error:
        return _fact(key, "problem", str(error))
    return _fact(key, "ok", f"{found[1] if found else 'version unknown'} ({path})")


def _gpu_fact() -> tuple[tuple[Gpu, ...], Fact]:
    """Return the GPUs and their row."""
    try:
        gpus = find_gpus()
    except ProbeError as error:
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
