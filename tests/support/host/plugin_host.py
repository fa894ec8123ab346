"""Build the TensorRT plugins, and the harness that walks them, for the CPU: kernels and all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import build_cache
from host import host_cuda
from host.host_cuda import SHIM
from places import ROOT

from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

PLUGINS = ROOT / "plugins"
HARNESS = ROOT / "tests" / "plugins"
PLUGIN_UNITS = [
    PLUGINS / f"{name}.cpp"
    for name in ("corner_pool_creator", "corner_pool_plugin", "corner_pool_tensors", "plugin_library", "plugin_log")
]
KERNEL_UNITS = [PLUGINS / "corner_pool.cu", SHIM / "host_cuda.cpp", SHIM / "host_cuda_fibers.cpp"]
HARNESS_UNITS = [
    HARNESS / f"{name}.cpp"
    for name in ("plugin_harness", "harness_interfaces", "harness_build", "harness_enqueue", "device_host")
]
STRICT = ["-Wall", "-Wextra", "-Werror"]


def tensorrt_headers() -> Path | None:
    """Return the folder of TensorRT's headers: under TensorRT_ROOT, of a system package, or fetched by CMake."""
    places = [Path("/usr/include"), Path("/usr/include/x86_64-linux-gnu"), Path("/usr/local/include")]
    places += sorted(ROOT.glob("build/*/_deps/tensorrt-*/include"))
    if named := os.environ.get("TensorRT_ROOT"):  # noqa: SIM112 - CMake's name for it
        places = [Path(named) / "include", Path(named)]
    return next((place for place in places if (place / "NvInferRuntime.h").is_file()), None)


def tensorrt_major(headers: Path) -> int:
    """Return the major version of the TensorRT that ``headers`` are of."""
    text = (headers / "NvInferVersion.h").read_text(encoding="utf-8")
    found = re.search(r"^#define (?:NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE)\s+(\d+)", text, re.MULTILINE)
    assert found, headers
    return int(found[1])


def more_headers() -> list[Path]:
    """Return further folders of headers, of the versions in CORNERNET_TENSORRT_ROOTS, separated by colons."""
    roots = os.environ.get("CORNERNET_TENSORRT_ROOTS", "")
    return [Path(root) / "include" for root in roots.split(":") if root]


def why_not() -> str | None:
    """Return why the plugins cannot be built for the CPU here, or None."""
    if tensorrt_headers() is None:
        return (
            "TensorRT's headers are needed to build the plugins: set TensorRT_ROOT to a folder that has "
            "include/NvInferRuntime.h, or run cmake --preset release, which fetches them"
        )
    return host_cuda.why_not()


def build_library(flags: Sequence[str], headers: Path | None = None) -> Path:
    """Build libcornernet_plugins.so with kernels that run on the CPU, against ``headers`` of TensorRT."""
    shared = ["-fPIC", "-fvisibility=hidden", *flags]
    jobs = [plugin_command(unit, shared, headers) for unit in [*PLUGIN_UNITS, HARNESS / "cuda_error_host.cpp"]]
    jobs += [
        ["g++", *host_cuda.FLAGS, "-isystem", str(host_cuda.cuda_headers()), *shared, "-x", "c++", "-c", str(unit)]
        for unit in KERNEL_UNITS
    ]
    script = PLUGINS / "plugin_library.map"
    # The run-time libraries of the sanitizers are in the program, not here.
    undefined = [] if any("sanitize" in flag for flag in flags) else ["-Wl,--no-undefined"]
    link = ["g++", "-shared", *flags, f"-Wl,--version-script={script}", *undefined]
    return _build("libcornernet_plugins.so", jobs, link, [script])


def build_harness(flags: Sequence[str]) -> Path:
    """Build the harness, with memory of the CPU for its device; ``flags`` link what a sanitized library needs."""
    return _build("plugin_harness", [plugin_command(unit, []) for unit in HARNESS_UNITS], ["g++", *flags])


def plugin_command(unit: Path, flags: Sequence[str], headers: Path | None = None) -> list[str]:
    """Return the compiler line for a source of the plugins, against ``headers`` of TensorRT."""
    folders = [headers or tensorrt_headers(), host_cuda.cuda_headers()]
    # The compiler looks in the system's own folders anyway, and named first they hide its own headers from it.
    system = [f"-isystem{folder}" for folder in folders if not str(folder).startswith("/usr/include")]
    return ["g++", "-std=c++17", *STRICT, *system, f'-DCORNERNET_VERSION="{__version__}"', *flags, "-c", str(unit)]


def _build(name: str, jobs: Sequence[list[str]], link: list[str], inputs: Sequence[Path] = ()) -> Path:
    objects = [f"{Path(job[-1]).stem}.o" for job in jobs]
    compiling = [[*job, "-o", made] for job, made in zip(jobs, objects, strict=True)]
    return build_cache.build([compiling, [[*link, *objects, "-ldl", "-o", name]]], [name], inputs=inputs) / name
