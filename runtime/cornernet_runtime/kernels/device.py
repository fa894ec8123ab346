"""Launches run on a GPU, through NVIDIA's Python bindings.

What a ``Launch`` says is all that a kernel gets; whatever it points to is the caller's.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import KernelError
from cornernet_runtime.kernels.program import load_program

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cornernet_runtime.kernels.launch import Launch


class KernelDevice:
    """A GPU that runs the kernels of this folder, in its primary context, which other libraries share.

    Each source is compiled, or found in the cache, when it is first named. One device serves one thread, in which its
    context is current.

    Args:
        number: Of the GPU.
        folder: Of the kernel cache; by default that of ``load_program``.

    Attributes:
        capability: Compute capability, major and minor.
        multiprocessors: How many it has.

    Raises:
        KernelError: The bindings are not installed, or there is no such GPU.
    """

    def __init__(self, number: int = 0, folder: Path | None = None) -> None:
        self._driver, core = _bindings()
        self._object_code = core.ObjectCode
        self._folder = folder
        try:
            device = core.Device(number)
            device.set_current()
            self.capability = (device.compute_capability.major, device.compute_capability.minor)
            self.multiprocessors: int = device.properties.multiprocessor_count
        except Exception as error:  # no driver, an error of it, no such number: cuda.core has no common base
            raise KernelError(f"GPU {number} cannot be used: {error}; cornernet-doctor shows what there is") from error
        self._codes: dict[str, Any] = {}
        self._functions: dict[tuple[str, str], Any] = {}

    def prepare(self, sources: Iterable[str]) -> None:
        """Compile or find sources, by their stems, and load them, so that no launch has to.

        Raises:
            KernelError: As ``load_program``, or the driver refuses the code.
        """
        for source in sources:
            if source in self._codes:
                continue
            program = load_program(source, self.capability, self._folder)
            load = self._object_code.from_ptx if program.is_ptx else self._object_code.from_cubin
            try:
                code = load(program.code, name=source)
                for kernel, symbol in program.symbols.items():
                    handle = code.get_kernel(symbol).handle
                    self._functions[source, kernel] = self._driver.CUfunction(int(handle))
            except Exception as error:  # as above
                raise KernelError(f"the driver refuses {source} for {program.target}: {error}") from error
            self._codes[source] = code  # the functions live as long as it does

    def launch(self, launches: Iterable[Launch], stream: int) -> None:
        """Enqueue launches in order; nothing is waited for, and a stream may be one that is captured.

        Args:
            launches: Whose pointers are of this device.
            stream: Handle of a stream (``CUstream``).

        Raises:
            KernelError: As ``prepare``, or a launch is refused.
        """
        for launch in launches:
            if (launch.source, launch.kernel) not in self._functions:
                self.prepare([launch.source])
            function = self._functions[launch.source, launch.kernel]
            slots = (ctypes.c_void_p * 1)(ctypes.addressof(launch.parameters))
            (status,) = self._driver.cuLaunchKernel(
                function,
                *launch.grid,
                *(launch.block, 1, 1),
                launch.shared_bytes,
                self._driver.CUstream(stream),
                ctypes.addressof(slots),
                0,
            )
            if status:
                raise KernelError(f"{launch.kernel} was not launched: {status.name}")


def _bindings() -> tuple[Any, Any]:
    try:
        from cuda import core  # noqa: PLC0415 - an extra
        from cuda.bindings import driver  # noqa: PLC0415
    except ImportError as error:
        raise KernelError("NVIDIA's Python bindings are not installed: pip install cuda-core cuda-bindings") from error
    return driver, core
