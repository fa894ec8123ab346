"""Memory of the GPU pipeline: blocks that grow to the largest that was asked for, and stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cornernet_runtime.backends.cuda_device import host_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.backends.cuda_device import CudaDevice


class DeviceBlock:
    """Memory of the device.

    Args:
        device: Whose.
        purpose: For errors.
        stream: Takes and gives it back, so that it is there for work of this stream, and of others once they have
            waited for it; by default the device's.

    Attributes:
        size: Bytes.
    """

    def __init__(self, device: CudaDevice, purpose: str, stream: Any = None) -> None:  # noqa: ANN401 - cuda.core's
        self._device, self._purpose, self._stream = device, purpose, stream or device.stream
        self._buffer: Any = None
        self.size = 0

    @property
    def address(self) -> int:
        """Of the first byte, 256-byte aligned."""
        return int(self._buffer.handle)

    def reserve(self, size: int) -> None:
        """Hold at least so many bytes; if there are fewer, the content is lost and the address is another.

        Raises:
            BackendError: There is not so much memory; the block is empty then.
        """
        if size <= self.size:
            return
        self.close()
        self._buffer = self._allocate(size)
        self.size = size

    def copy(self, source: DeviceBlock, start: int, size: int, stream: Any) -> None:  # noqa: ANN401 - cuda.core's
        """Enqueue the copy of ``size`` bytes from ``start`` of another block to the same place here."""
        target = self._device.part(self._buffer, size, start)
        target.copy_from(self._device.part(source._buffer, size, start), stream=stream)

    def close(self) -> None:
        """Let go of the memory, which nothing may be using."""
        if self._buffer is not None:
            self._buffer.close(self._stream)
        self._buffer, self.size = None, 0

    def _allocate(self, size: int) -> Any:  # noqa: ANN401
        return self._device.allocate(size, self._purpose, self._stream)


class PinnedBlock(DeviceBlock):
    """Memory of the host that the device reads and writes by itself."""

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """The whole block, uint8 [size]; valid until it grows."""
        return host_bytes(self._buffer, self.size)

    def _allocate(self, size: int) -> Any:  # noqa: ANN401
        return self._device.allocate_pinned(size, self._purpose)
