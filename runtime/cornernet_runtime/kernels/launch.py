"""Launches of CUDA kernels as plain data, so that a GPU and the tests on the CPU run the very same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        source: Stem of the ``.cu`` file of this folder that holds the kernel.
        kernel: Its name there.
        grid: Blocks along x, y and z.
        block: Threads of a block, along x.
        shared_bytes: Dynamic shared memory of a block; at most 48 KiB.
        parameters: The kernel's only argument, passed by value. Its pointers are ``c_void_p`` fields, at any depth of
            structures and arrays.
    """

    source: str
    kernel: str
    grid: tuple[int, int, int]
    block: int
    shared_bytes: int
    parameters: ctypes.Structure
