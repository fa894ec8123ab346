"""Build CUDA kernels for the CPU, with the shim in tests/support/host/host_cuda."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from places import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

SHIM = ROOT / "tests" / "support" / "host" / "host_cuda"
FLAGS = [
    *("-std=c++20", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SHIM}"),
    "-fno-strict-aliasing",  # device code reads words of one type as another, and nvcc lets it
    "-Wno-unknown-pragmas",  # unroll
    "-Wno-attributes",  # what CUDA's headers make of __global__
    "-Wno-class-memaccess",  # __half has constructors
    "-Wno-clobbered",  # GCC's guess about swapcontext
]
ADDRESS = ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
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


def build(program: Path, units: Sequence[Path], flags: Sequence[str], how: str = "fibers") -> Path:
    """Compile ``units`` with the shim; ``how`` is fibers, threads or count.

    Counting compiles ``units`` with the hooks of the thread sanitizer and the shim without, and needs main() among the
    files of the shim: the driver goes with them.
    """
    engine = [SHIM / "host_cuda.cpp", SHIM / ("host_cuda_threads.cpp" if how == "threads" else "host_cuda_fibers.cpp")]
    compiler = ["g++", *FLAGS, "-isystem", str(cuda_headers()), *flags]
    if how != "count":
        _run([*compiler, "-x", "c++", *map(str, [*units, *engine]), "-o", str(program)])
        return program
    objects = []
    for unit in units:
        objects.append(str(program.with_name(f"{unit.stem}.o")))
        hooks = ["-fsanitize=thread"] if unit.suffix == ".cu" else []
        _run([*compiler, *hooks, "-x", "c++", "-c", str(unit), "-o", objects[-1]])
    counters = [*engine, SHIM / "host_cuda_count.cpp"]
    _run([*compiler, "-x", "c++", *map(str, counters), "-x", "none", *objects, "-o", str(program)])
    return program


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own compiler line
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"
