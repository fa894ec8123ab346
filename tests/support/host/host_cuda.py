"""Build CUDA kernels for the CPU, with the shim in tests/support/host/host_cuda."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import build_cache
from places import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SHIM = ROOT / "tests" / "support" / "host" / "host_cuda"
FLAGS = [
    *("-std=c++20", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SHIM}"),
    "-fno-strict-aliasing",  # device code reads words of one type as another, and nvcc lets it
    "-Wno-unknown-pragmas",  # unroll
    "-Wno-attributes",  # what CUDA's headers make of __global__
    "-Wno-class-memaccess",  # __half has constructors
    "-Wno-clobbered",  # GCC's guess about swapcontext
]
# Unoptimised: GCC takes four times as long to optimise what it instruments, and the cases are small.
ADDRESS = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
THREAD = ["-O1", "-fsanitize=thread"]


def cuda_headers() -> Path | None:
    """Return the folder of CUDA's headers: of NVIDIA's wheels, beside nvcc, or at the toolkit's usual place."""
    places = [Path(sysconfig.get_path("platlib")) / "nvidia" / "cu13" / "include"]
    if nvcc := shutil.which("nvcc"):
        places.append(Path(nvcc).resolve().parents[1] / "include")
    places.append(Path("/usr/local/cuda/include"))
    needed = ("cuda_fp16.h", "driver_types.h", "crt/host_defines.h", "nv/target")
    return next((place for place in places if all((place / name).is_file() for name in needed)), None)


def why_not() -> str | None:
    """Return why kernels cannot be built for the CPU here, or None."""
    if shutil.which("g++") is None:
        return "g++ is needed to build kernels for the CPU"
    if cuda_headers() is None:
        return (
            "CUDA's headers are needed to build kernels for the CPU: "
            "pip install nvidia-cuda-runtime nvidia-cuda-crt nvidia-cuda-cccl, or install the CUDA toolkit"
        )
    return None


def build(
    name: str,
    units: Sequence[str | Path],
    flags: Sequence[str],
    how: str = "fibers",
    texts: Mapping[str, str] | None = None,
    objects: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """Return the program or library ``name``, compiled from ``units`` with the shim, now or in an earlier run.

    Counting compiles ``.cu`` units with the hooks of the thread sanitizer and the shim without, and needs main() among
    the files of the shim: the driver goes with them.

    Args:
        name: File name of the result.
        units: Sources; those of ``texts`` by their name.
        flags: For compiling and for linking.
        how: How threads run: ``fibers``, ``threads`` or ``count``.
        texts: Sources that are no files, by name.
        objects: Further objects to link, with the command that makes each.
    """
    engine = ["host_cuda", "host_cuda_threads" if how == "threads" else "host_cuda_fibers"]
    if how == "count":
        engine.append("host_cuda_count")
    compiler = ["g++", *FLAGS, "-isystem", str(cuda_headers()), *flags, "-x", "c++"]
    shim = []  # compiled apart: what is built with the same flags shares it
    for part in engine:
        command = [*compiler, "-c", str(SHIM / f"{part}.cpp"), "-o", f"{part}.o"]
        shim.append(build_cache.build([[command]], [f"{part}.o"]) / f"{part}.o")
    commands = {}
    for unit in map(Path, units):
        hooks = ["-fsanitize=thread"] if how == "count" and unit.suffix == ".cu" else []
        commands[f"{unit.stem}.o"] = [*compiler, *hooks, "-c", str(unit), "-o", f"{unit.stem}.o"]
    commands |= objects or {}
    link = ["g++", *flags, *commands, *shim, "-o", name]
    return build_cache.build([list(commands.values()), [link]], [name], texts) / name
