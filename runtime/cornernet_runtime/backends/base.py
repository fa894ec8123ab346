"""What runs a network: five members, one file a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.backends.device_network import DeviceNetwork
    from cornernet_runtime.processing.maps import CornerMaps


class Backend(Protocol):
    """A network that is ready to run.

    Attributes:
        name: For people and for ``--backend``.
        max_batch: Largest batch of one call.
    """

    name: str
    max_batch: int

    def __call__(self, images: NDArray[np.float32]) -> CornerMaps:
        """Run the network.

        Args:
            images: float32 [N, 3, H, W], normalised, N at most ``max_batch``.

        Returns:
            The six maps of the batch; valid until the next call.
        """

    def clone(self) -> Self:
        """Return another backend of the same network, for another thread; either can be closed before the other.

        Raises:
            CornerNetError: There is no memory for another.
        """

    def close(self) -> None:
        """Let go of what the backend holds; it cannot be called afterwards."""


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """A backend on a GPU, around whose network a pipeline can do everything else there too.

    Attributes:
        device: Runs it.
        network: The network by itself, on the same device and stream.
    """

    device: CudaDevice
    network: DeviceNetwork
