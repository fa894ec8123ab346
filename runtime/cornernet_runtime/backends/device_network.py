"""A network on a GPU that reads and writes the device's memory: the part of the GPU pipeline that can be exchanged."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.bundle.engine_record import Shape
    from cornernet_runtime.kernels.decode import DeviceMaps

# Held while a network is opened, prepared for a shape or let go of, and while its work is captured: each of the former
# may be to wait for the whole GPU, which would end a capture that another thread has under way there.
PREPARATION = threading.RLock()


class BoundDeviceNetwork(Protocol):
    """A network that is ready to run on one shape of input; its memory belongs to the ``DeviceNetwork``."""

    @property
    def input(self) -> int:
        """Address of the input [N, 3, H, W], normalised, contiguous, float32 or float16."""

    @property
    def half(self) -> bool:
        """Whether the input is float16."""

    @property
    def maps(self) -> DeviceMaps:
        """Where the six corner maps of the batch are left."""

    def enqueue(self, stream: int) -> None:
        """Enqueue one run on a stream (``CUstream``), which may be one that is captured; wait for nothing.

        The first run of a shape, which prepares it, is never captured, and is waited for.

        Raises:
            CornerNetError: It cannot be enqueued.
        """


class DeviceNetwork(Protocol):
    """A network with memory of its own on a GPU. Two shapes never run at the same time."""

    @property
    def max_batch(self) -> int:
        """Largest batch of one run."""

    def smallest_batch(self, shape: Shape) -> int:
        """Return the smallest batch that is not below that of ``shape`` and that can be run at its size.

        Raises:
            SizeError: There is none.
        """

    def bind(self, shape: Shape) -> BoundDeviceNetwork:
        """Return the network at one shape of input, [N, 3, H, W].

        Raises:
            SizeError: It does not take the shape.
            BackendError: It cannot be prepared.
        """

    def clone(self, device: CudaDevice) -> Self:
        """Return the same network with memory of its own on another stream of the same GPU, for another thread.

        What is never written to is shared; either can be closed before the other.

        Raises:
            BackendError: There is too little memory.
        """

    def close(self) -> None:
        """Let go of all memory; what was bound cannot be used afterwards."""
