"""A GPU through cuda.core: its primary context, which other libraries share, a stream, and memory.

Importing this probes nothing; ``CudaDevice`` does.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_runtime.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

INSTALL = 'pip install "cuda-core[cu13]"'
MIB = 2**20


class CudaDevice:
    """A GPU, made current in this thread, and one stream of its own on it.

    Another thread makes it current by ``make_current`` before it uses it, for CUDA keeps that by thread.

    Args:
        number: Of the GPU.

    Attributes:
        number: Of the GPU.
        core: The module ``cuda.core``.
        driver: The module ``cuda.bindings.driver``.
        name: Of the GPU.
        capability: Compute capability, major and minor.
        stream: A ``cuda.core.Stream`` that waits for no other.

    Raises:
        BackendError: cuda.core is not installed, there is no such GPU, or its driver is too old.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.core, self.driver = _bindings()
        try:
            self._device = self.core.Device(number)
            self._device.set_current()
            capability = self._device.compute_capability
            self.name = str(self._device.name)
            self.stream: Any = self.new_stream()
            self._context = self._current()
        except Exception as error:  # no driver, one too old, no such GPU: cuda.core has no common base
            raise BackendError(_why_unusable(number, error)) from error
        self.capability = (int(capability.major), int(capability.minor))

    @property
    def compute_capability(self) -> str:
        """Such as ``9.0``."""
        return ".".join(map(str, self.capability))

    @property
    def multiprocessors(self) -> int:
        """How many it has."""
        return int(self._device.properties.multiprocessor_count)

    @property
    def handle(self) -> int:
        """Address of the stream (``CUstream``)."""
        return int(self.stream.handle)

    def make_current(self) -> None:
        """Make the GPU current in this thread, if it is not: another thread comes, or another library chose a GPU."""
        if self._current() != self._context:
            self._device.set_current()

    def new_stream(self) -> Any:  # noqa: ANN401 - cuda.core is an extra
        """Return a ``cuda.core.Stream`` that waits for no other; the GPU must be current."""
        return self._device.create_stream()

    def new_event(self, *, timed: bool = False) -> Any:  # noqa: ANN401
        """Return a ``cuda.core.Event``; differences of two ``timed`` ones are milliseconds. The GPU must be current."""
        return self._device.create_event({"timing_enabled": timed})

    def wait(self, work: Any) -> None:  # noqa: ANN401
        """Wait for a stream or an event, from any thread.

        Raises:
            BackendError: What was waited for failed.
        """
        self.make_current()
        try:
            work.sync()
        except Exception as error:  # cuda.core has no common base
            raise BackendError(
                f"{self.name} failed: {error}; start the program again, and see what cornernet-doctor says"
            ) from error

    def free_memory(self) -> int:
        """Return how many bytes of the GPU's memory are free.

        Raises:
            BackendError: The driver does not tell.
        """
        status, free, _total = self.driver.cuMemGetInfo()
        if int(status) != 0:
            raise BackendError(f"the free memory of {self.name} cannot be read: {status.name}")
        return int(free)

    def allocate(self, size: int, purpose: str, stream: Any = None) -> Any:  # noqa: ANN401
        """Return a ``cuda.core.Buffer`` of so many bytes on the GPU, there for work of a stream, by default its own.

        Raises:
            BackendError: There is not so much memory.
        """
        try:
            return self._device.allocate(size, stream=stream or self.stream)
        except Exception as error:
            raise BackendError(self._why_no_memory(size, purpose, error)) from error

    def allocate_pinned(self, size: int, purpose: str) -> Any:  # noqa: ANN401
        """Return a ``cuda.core.Buffer`` of so many bytes of host memory that the GPU reads and writes by itself.

        Raises:
            BackendError: There is not so much memory.
        """
        try:
            return self.core.LegacyPinnedMemoryResource().allocate(size)
        except Exception as error:
            raise BackendError(self._why_no_memory(size, purpose, error)) from error

    def view(self, array: object) -> Any:  # noqa: ANN401
        """Return a ``cuda.core.utils.StridedMemoryView`` of another library's array.

        It keeps the memory. The stream waits for what that library has enqueued to fill it, as far as it tells.
        """
        from cuda.core.utils import StridedMemoryView  # noqa: PLC0415 - an extra

        return StridedMemoryView.from_any_interface(array, stream_ptr=self.handle)

    def part(self, buffer: Any, size: int, start: int = 0) -> Any:  # noqa: ANN401
        """Return ``size`` bytes of a buffer as a buffer; it owns nothing, so ``buffer`` must outlive it."""
        return self.core.Buffer.from_handle(int(buffer.handle) + start, size)

    def _current(self) -> int:
        """Return the address of the context that is current in this thread, 0 if there is none."""
        status, context = self.driver.cuCtxGetCurrent()
        return 0 if int(status) else int(context)

    def _why_no_memory(self, size: int, purpose: str, error: Exception) -> str:
        if "OUT_OF_MEMORY" not in str(error):
            return f"{purpose}: memory of {self.name} cannot be had: {error}"
        return (
            f"{purpose}: {size / MIB:.0f} MiB were asked for and {self.free_memory() / MIB:.0f} MiB of {self.name} are "
            "free; close what else uses the GPU, or build the engine with a smaller --batch or --size"
        )


def host_floats(buffer: Any, count: int) -> NDArray[np.float32]:  # noqa: ANN401
    """Return the first ``count`` floats of a pinned buffer as a float32 array [count]; ``buffer`` must outlive it."""
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(int(buffer.handle)))


def host_bytes(buffer: Any, count: int) -> NDArray[np.uint8]:  # noqa: ANN401
    """As ``host_floats``, uint8 [count]."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(int(buffer.handle)))


def _bindings() -> tuple[Any, Any]:
    try:
        from cuda import core  # noqa: PLC0415 - an extra
        from cuda.bindings import driver  # noqa: PLC0415
    except ImportError as error:
        raise BackendError(f"NVIDIA's Python bindings are not installed; {INSTALL}") from error
    return core, driver


def _why_unusable(number: int, error: Exception) -> str:
    text = " ".join(str(error).split())
    # The last is what the bindings say of a function that came with a later driver.
    too_old = ("INSUFFICIENT_DRIVER", "SYSTEM_DRIVER_MISMATCH", 'Function "cu')
    if any(mark in text for mark in too_old):
        return f"the NVIDIA driver is too old for the installed CUDA packages ({text}); update the driver"
    return f"GPU {number} cannot be used: {text or type(error).__name__}; cornernet-doctor shows what there is"
