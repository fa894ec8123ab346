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

    Attributes:
        size: Bytes.
    """

    def __init__(self, device: CudaDevice, purpose: str) -> None:
        self._device, self._purpose = device, purpose
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

    def part(self, start: int, size: int) -> Any:  # noqa: ANN401 - cuda.core is an extra
        """Return bytes of the block as a ``cuda.core.Buffer`` that owns nothing."""
        return self._device.part(self._buffer, size, start)

    def close(self) -> None:
        """Let go of the memory, which nothing may be using."""
        if self._buffer is not None:
            self._buffer.close(self._device.stream)
        self._buffer, self.size = None, 0

    def _allocate(self, size: int) -> Any:  # noqa: ANN401
        return self._device.allocate(size, self._purpose)


class PinnedBlock(DeviceBlock):
    """Memory of the host that the device reads and writes by itself."""

    @property
    def bytes(self) -> NDArray[np.uint8]:
        """The whole block, uint8 [size]; valid until it grows."""
        return host_bytes(self._buffer, self.size)

    def _allocate(self, size: int) -> Any:  # noqa: ANN401
        return self._device.allocate_pinned(size, self._purpose)


class Mirror:
    """A block of the device and one of the host of the same size, between which bytes are copied.

    Args:
        device: Whose.
        purpose: For errors.

    Attributes:
        device: That of the device.
        host: That of the host, pinned.
    """

    def __init__(self, device: CudaDevice, purpose: str) -> None:
        self._stream = device.stream
        self.device, self.host = DeviceBlock(device, purpose), PinnedBlock(device, f"the host's side of {purpose}")

    @property
    def size(self) -> int:
        """Bytes that both have."""
        return min(self.device.size, self.host.size)

    def reserve(self, size: int) -> None:
        """As for ``DeviceBlock``."""
        self.device.reserve(size)
        self.host.reserve(size)

    def upload(self, start: int, size: int) -> None:
        """Enqueue the copy of bytes of the host to the device."""
        self.device.part(start, size).copy_from(self.host.part(start, size), stream=self._stream)

    def download(self, start: int, size: int) -> None:
        """Enqueue the copy of bytes of the device to the host."""
        self.host.part(start, size).copy_from(self.device.part(start, size), stream=self._stream)

    def close(self) -> None:
        """Let go of both."""
        self.device.close()
        self.host.close()
