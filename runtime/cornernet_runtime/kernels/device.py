"""Launches run on a GPU, through NVIDIA's Python bindings.

What a ``Launch`` says is all that a kernel gets; whatever it points to is the caller's.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import KernelError
from cornernet_runtime.kernels.program import load_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.kernels.launch import Launch


class LoadedKernels:
    """The kernels of this folder on a GPU.

    Each source is compiled, or found in the cache, when it is first named. They serve the thread in which the device's
    context is current.

    Args:
        device: Runs them.
        folder: Of the kernel cache; by default that of ``load_program``.
    """

    def __init__(self, device: CudaDevice, folder: Path | None = None) -> None:
        self._device = device
        self._driver = device.driver
        self._folder = folder
        self._codes: dict[str, Any] = {}
        self._functions: dict[tuple[str, str], Any] = {}

    def prepare(self, sources: Iterable[str]) -> None:
        """Compile or find sources, by their stems, and load them, so that no launch has to.

        The driver puts off the loading of a kernel until its first launch unless it is told, and a captured launch may
        not load anything.

        Raises:
            KernelError: As ``load_program``, or the driver refuses the code.
        """
        for source in sources:
            if source in self._codes:
                continue
            program = load_program(source, self._device.capability, self._folder)
            object_code = self._device.core.ObjectCode
            load = object_code.from_ptx if program.is_ptx else object_code.from_cubin
            functions = {}
            try:
                code = load(program.code, name=source)
                for kernel, symbol in program.symbols.items():
                    handle = self._driver.CUkernel(int(code.get_kernel(symbol).handle))
                    function = self._asked(self._driver.cuKernelGetFunction, handle)
                    self._asked(self._driver.cuFuncLoad, function)
                    functions[source, kernel] = function
            except Exception as error:  # cuda.core has no common base
                raise KernelError(f"the driver refuses {source} for {program.target}: {error}") from error
            self._codes[source] = code  # the functions live as long as it does
            self._functions |= functions

    def _asked(self, function: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - a binding of the driver
        """Return what a function of the driver gives, after its status."""
        status, *found = function(*arguments)
        if status:
            raise KernelError(f"{function.__name__}: {status.name}")
        return found[0] if found else None

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
