"""The L2 cache of a GPU emptied between timed runs, by reading more than it holds.

Reading leaves lines that can be dropped. Those that a run or a memset has written must go to memory first, and would do
so while the next run is timed.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import KernelError
from cornernet_runtime.kernels.program import compile_source, target_of

if TYPE_CHECKING:
    from collections.abc import Callable

SOURCE = Path(__file__).resolve().parent / "read_through.cu"
KERNEL = "readThrough"
THREADS = 256
BLOCKS = 8  # a multiprocessor


class _ReadThrough(ctypes.Structure):
    """The parameters of readThrough."""

    _fields_ = (("start", ctypes.c_void_p), ("vectors", ctypes.c_longlong), ("never", ctypes.c_void_p))


class CacheFlush:
    """Empties the cache.

    Args:
        ask: Calls the driver and returns what it returns after its status.
        capability: Of the GPU, whose context is current.
        multiprocessors: Of it.
        nbytes: To read, a multiple of 16 and several times what the cache holds.

    Raises:
        KernelError: The kernel does not compile, or the driver refuses something.
    """

    def __init__(self, ask: Callable[..., Any], capability: tuple[int, int], multiprocessors: int, nbytes: int) -> None:
        from cuda import core  # noqa: PLC0415 - an extra
        from cuda.bindings import driver  # noqa: PLC0415

        self._ask, self._driver = ask, driver
        program = compile_source(SOURCE, target_of(capability))
        load = core.ObjectCode.from_ptx if program.is_ptx else core.ObjectCode.from_cubin
        try:
            self._code = load(program.code, name=SOURCE.stem)  # the function lives as long as it does
            handle = self._code.get_kernel(program.symbols[KERNEL]).handle
        except Exception as error:  # the driver's: cuda.core has no common base
            raise KernelError(f"the driver refuses {SOURCE.name} for {program.target}: {error}") from error
        self._function = driver.CUfunction(int(handle))
        self._memory = int(ask(driver.cuMemAlloc, nbytes + 16))
        ask(driver.cuMemsetD8, self._memory, 0, nbytes + 16)
        self._parameters = _ReadThrough(self._memory, nbytes // 16, self._memory + nbytes)
        self._blocks = min(BLOCKS * multiprocessors, -(-nbytes // (16 * THREADS)))

    def enqueue(self, stream: object) -> None:
        """Empty the cache in a stream of the driver's."""
        slots = (ctypes.c_void_p * 1)(ctypes.addressof(self._parameters))
        grid, block = (self._blocks, 1, 1), (THREADS, 1, 1)
        self._ask(self._driver.cuLaunchKernel, self._function, *grid, *block, 0, stream, ctypes.addressof(slots), 0)

    def close(self) -> None:
        """Let go of the memory."""
        self._ask(self._driver.cuMemFree, self._memory)
