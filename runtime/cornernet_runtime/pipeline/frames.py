"""Frames as they come: on the host, or on the GPU already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_runtime.errors import FrameError
from cornernet_runtime.kernels.preprocess import DeviceFrame
from cornernet_runtime.processing.preprocess import check_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.bundle.spec import Size

DLPACK_CPU = 1  # kDLCPU
INTERFACES = ("__dlpack__", "__cuda_array_interface__")


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that can be run.

    Attributes:
        size: Height and width, pixels.
        pixels: uint8 [H, W, 3] on the host; None where it lies on the device.
        lying: Where it lies on the device; None where it lies on the host.
        owner: What keeps it there.
    """

    size: Size
    pixels: NDArray[np.uint8] | None = None
    lying: DeviceFrame | None = None
    owner: Any = None


def take_frame(frame: object, device: CudaDevice) -> Frame:
    """Return a frame that a caller hands in; one on the device is not copied.

    Args:
        frame: uint8 [H, W, 3], BGR: a NumPy array of any strides, or an object of another library on this device, with
            ``__dlpack__`` or ``__cuda_array_interface__``, whose pixels stand side by side in rows at any distance.
        device: Whose stream waits for what the object's library has enqueued to fill it, as far as it tells.

    Raises:
        FrameError: Anything else; the message says what came.
    """
    if isinstance(frame, np.ndarray) or not (
        hasattr(frame, "__dlpack__") or hasattr(frame, "__cuda_array_interface__")
    ):
        pixels = check_frame(frame)
        return Frame((pixels.shape[0], pixels.shape[1]), pixels)
    kind = f"{type(frame).__module__}.{type(frame).__qualname__}"
    try:
        on_host = getattr(frame, "__dlpack_device__", lambda: (0, 0))()[0] == DLPACK_CPU
        view = None if on_host else device.view(frame)
    except Exception as error:  # of the object's library, or of cuda.core, which has no common base
        raise FrameError(
            f"a frame of {kind} cannot be read: {error}; pass it on the GPU, or as a NumPy array"
        ) from error
    if view is None or view.device_id != device.number or not view.is_device_accessible:
        where = "the host" if view is None or view.device_id < 0 else f"GPU {view.device_id}"
        raise FrameError(f"a frame of {kind}: expected one on GPU {device.number}, got one on {where}; move it there")
    shape, element = tuple(view.shape), _element(view)
    if element != "uint8" or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise FrameError(f"a frame is uint8 [H, W, 3] in BGR order, got {element} {list(shape)}")
    height, width = shape[:2]
    row, pixel, channel = view.strides or (3 * width, 3, 1)
    if channel != 1 or (width > 1 and pixel != 3):
        raise FrameError(
            f"a frame on the GPU: expected pixels of 3 bytes side by side, got strides of {[row, pixel, channel]}; "
            "make it contiguous"
        )
    lying = DeviceFrame(int(view.ptr), (height, width), int(row) if height > 1 else 3 * width)
    return Frame((height, width), lying=lying, owner=view)


def _element(view: Any) -> str:  # noqa: ANN401 - cuda.core's
    """Return the type of a view's elements; NumPy has not all that DLPack has."""
    try:
        return str(view.dtype)
    except (TypeError, NotImplementedError) as error:
        return f"another type ({error})"
