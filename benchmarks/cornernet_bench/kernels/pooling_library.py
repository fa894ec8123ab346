"""Corner pooling's own launcher, called from Python: a small library of plugins/corner_pool.cu, built by nvcc.

The launcher is C++ and chooses variant and grid; writing that down in Python as well would measure a copy of it.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cornernet_runtime.errors import CornerNetError

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
TOP_LEFT, BOTTOM_RIGHT = range(2)
FORMATS = ("float", "half", "half, channels last")  # in the order of MapFormat

ENTRY = """
#include "corner_pool.cuh"

extern "C" int cornernetCornerPool(int corner, int format, const void* vertical, const void* horizontal, void* output,
                                   const int64_t* sides, void* workspace, size_t workspaceBytes, cudaStream_t stream) {
  const cornernet::MapShape shape{sides[0], sides[1], sides[2], sides[3]};
  return cornernet::launchCornerPool(static_cast<cornernet::Corner>(corner), static_cast<cornernet::MapFormat>(format),
                                     vertical, horizontal, output, shape, workspace, workspaceBytes, stream);
}

extern "C" size_t cornernetCornerPoolWorkspaceBytes(int format, const int64_t* sides) {
  const cornernet::MapShape shape{sides[0], sides[1], sides[2], sides[3]};
  return cornernet::cornerPoolWorkspaceBytes(static_cast<cornernet::MapFormat>(format), shape);
}
"""


@dataclass(frozen=True, slots=True)
class PoolingCall:
    """Arguments of the launcher but for the workspace. Maps are on the device, of shape [N, C, H, W]."""

    corner: int
    map_format: int
    vertical: int
    horizontal: int
    output: int
    shape: tuple[int, int, int, int]


class PoolingLibrary:
    """The launcher in a library.

    Args:
        path: As ``build_library`` returns it.
    """

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        self._enter, self._workspace_bytes = library.cornernetCornerPool, library.cornernetCornerPoolWorkspaceBytes
        self._enter.restype, self._workspace_bytes.restype = ctypes.c_int, ctypes.c_size_t
        pointers = [ctypes.c_void_p] * 3
        sides = ctypes.POINTER(ctypes.c_int64)
        last = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)  # workspace, its bytes, stream
        self._enter.argtypes = [ctypes.c_int, ctypes.c_int, *pointers, sides, *last]
        self._workspace_bytes.argtypes = [ctypes.c_int, sides]

    def workspace_bytes(self, call: PoolingCall) -> int:
        """Return how many bytes of the device ``launch`` works in; 0 for all but very wide maps."""
        return int(self._workspace_bytes(call.map_format, (ctypes.c_int64 * 4)(*call.shape)))

    def launch(self, call: PoolingCall, workspace: int, workspace_size: int, stream: int) -> None:
        """Enqueue the kernel.

        Args:
            call: What to compute.
            workspace: Address on the device, 16-byte aligned; 0 where none is needed.
            workspace_size: Bytes there.
            stream: By its handle.

        Raises:
            CornerNetError: The launcher refuses.
        """
        sides = (ctypes.c_int64 * 4)(*call.shape)
        maps = (call.vertical, call.horizontal, call.output)
        status = self._enter(call.corner, call.map_format, *maps, sides, workspace, workspace_size, stream)
        if status:
            raise CornerNetError(f"launchCornerPool returned {status} for {call}")


def why_not() -> str | None:
    """Return why the library cannot be built here, or None."""
    if not (PLUGINS / "corner_pool.cu").is_file():
        return "plugins/corner_pool.cu is not here: run it from a checkout"
    if shutil.which("nvcc") is None:
        return "nvcc, which builds its launcher, is not on PATH: install the CUDA toolkit"
    return None


def build_library(folder: Path, capability: tuple[int, int]) -> Path:
    """Build the library for one GPU and return its path.

    Raises:
        CornerNetError: nvcc fails; the message holds the end of what it said.
    """
    entry, library = folder / "entry.cu", folder / "libcornernet_corner_pool.so"
    entry.write_text(ENTRY, encoding="utf-8")
    architecture = f"-arch=sm_{capability[0]}{capability[1]}"
    command = ["nvcc", "-std=c++17", "-O3", architecture, "-lineinfo", "-shared", "-Xcompiler", "-fPIC"]
    command += [f"-I{PLUGINS}", str(entry), str(PLUGINS / "corner_pool.cu"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own compiler line
    if done.returncode:
        raise CornerNetError(f"nvcc cannot build corner pooling: {done.stderr[-2000:]}")
    return library
