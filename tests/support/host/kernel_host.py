"""Run the launches of the runtime's CUDA kernels on the CPU, with the shim in tests/support/host/host_cuda."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from host.host_cuda import build
from places import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cornernet_runtime.kernels.launch import Launch

KERNELS = ROOT / "runtime" / "cornernet_runtime" / "kernels"
DRIVER = ROOT / "tests" / "support" / "host" / "host_launch.cpp"
SIGNATURE = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(const (\w+) \w+\)")


class Moved(NamedTuple):
    """Bytes of one array that kernels read and wrote; 0 unless the program counts."""

    read: int
    written: int


def build_kernels(sources: Sequence[str], flags: Sequence[str], how: str = "fibers") -> Path:
    """Compile ``.cu`` files of the runtime, by their stems, into a program for ``run``; the rest as for ``build``."""
    return build("kernels", ["kernels.cu", DRIVER], flags, how, {"kernels.cu": kernel_unit(sources)})


def kernel_unit(sources: Sequence[str]) -> str:
    """Return a source that includes ``.cu`` files, by their stems, and defines ``hostKernels``."""
    files = [KERNELS / f"{source}.cu" for source in sources]
    kernels = [found for file in files for found in SIGNATURE.findall(file.read_text())]
    rows = "".join(f'      hostKernel<{structure}, {name}>("{name}"),\n' for name, structure in kernels)
    includes = "".join(f'#include "{file}"\n' for file in [*files, DRIVER.with_suffix(".h")])
    table = f"std::vector<HostKernel> hostKernels() {{\n  return {{\n{rows}  }};\n}}\n"
    return f"{includes}using namespace cornernet;\n{table}"


def run(
    program: Path,
    launches: Sequence[Launch],
    arrays: Sequence[np.ndarray],
    seed: int = 1,
    multiprocessors: int = 132,
    pointers: Sequence[tuple[np.ndarray, int]] = (),
) -> list[Moved]:
    """Run launches in order; what they write comes back into ``arrays``.

    Args:
        program: Of ``build_kernels``.
        launches: Whose pointers are null or point into ``arrays``.
        arrays: C-contiguous memory that kernels may touch.
        seed: Decides the order of blocks and warps.
        multiprocessors: Of the device that is played.
        pointers: Where further pointers into ``arrays`` stand: in which of these, bytes from its start.
    """
    message = [struct.pack("5q", seed, multiprocessors, len(arrays), len(pointers), len(launches))]
    message.append(struct.pack(f"{len(arrays)}q", *(array.nbytes for array in arrays)))
    message.extend(array.tobytes() for array in arrays)
    for holder, place in pointers:
        (address,) = struct.unpack_from("Q", holder.tobytes(), place)
        index, start = _find(holder.ctypes.data, arrays)
        message.append(struct.pack("4q", index, start + place, *_find(address, arrays)))
    message.extend(_packed(launch, arrays) for launch in launches)
    done = subprocess.run([program], input=b"".join(message), capture_output=True, check=False)  # noqa: S603 - built here
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    statuses = struct.unpack_from(f"{len(launches)}q", done.stdout)
    assert not any(statuses), f"launches returned {statuses}"
    counts = struct.iter_unpack("2q", done.stdout[8 * len(launches) :][: 16 * len(arrays)])
    moved = [Moved(*count) for count in counts]
    position = 8 * len(launches) + 16 * len(arrays)
    for array in arrays:
        array[...] = np.frombuffer(done.stdout, array.dtype, array.size, position).reshape(array.shape)
        position += array.nbytes
    return moved


def _packed(launch: Launch, arrays: Sequence[np.ndarray]) -> bytes:
    parameters = bytes(launch.parameters)
    pointers = []
    for place in _pointers(type(launch.parameters)):
        (address,) = struct.unpack_from("Q", parameters, place)
        if address:
            pointers.append(struct.pack("3q", place, *_find(address, arrays)))
    numbers = (*launch.grid, launch.block, launch.shared_bytes, len(parameters), len(pointers))
    return struct.pack("64s7q", launch.kernel.encode(), *numbers) + parameters + b"".join(pointers)


def _pointers(kind: type, start: int = 0) -> Iterator[int]:
    """Yield where pointers stand in a structure, bytes from its start."""
    if kind is ctypes.c_void_p:
        yield start
    elif issubclass(kind, ctypes.Array):
        for index in range(kind._length_):
            yield from _pointers(kind._type_, start + index * ctypes.sizeof(kind._type_))
    elif issubclass(kind, ctypes.Structure):
        for name, field, *_ in kind._fields_:
            yield from _pointers(field, start + getattr(kind, name).offset)


def _find(address: int, arrays: Sequence[np.ndarray]) -> tuple[int, int]:
    for index, array in enumerate(arrays):
        if 0 <= address - array.ctypes.data < max(array.nbytes, 1):
            return index, address - array.ctypes.data
    raise AssertionError(f"a pointer leads to none of the {len(arrays)} arrays")
