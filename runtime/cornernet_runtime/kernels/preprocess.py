"""Frames on the device to network input in one launch, with the levels of ``cornernet_runtime.processing.preprocess``.

A captured graph freezes the parameters of its kernels, so the kernel reads where frames lie and where they go from an
array of ``View`` in the device's memory, which is written anew for each batch.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from cornernet_runtime.errors import FrameError
from cornernet_runtime.kernels.launch import Launch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import Normalisation, Size
    from cornernet_runtime.processing.geometry import Placement

ChannelOrder = Literal["bgr", "rgb"]

BLOCK = 128
LEVELS = 257  # 0 to 255, and the border
LARGEST_SIDE = 2**31 - 1  # of a frame: sides are int in the kernel
LARGEST_GRID = 2**16 - 1  # rows of an input and views of a batch are blocks along y and z


class View(ctypes.Structure):
    """One view of a frame, as the kernel reads it; made by ``describe``."""

    _fields_ = (
        ("frame", ctypes.c_void_p),
        ("pitch", ctypes.c_longlong),
        ("frame_size", ctypes.c_int * 2),
        ("size", ctypes.c_int * 2),
        ("visible", ctypes.c_int * 2),
        ("top", ctypes.c_int),
        ("left", ctypes.c_int),
        ("mirrored", ctypes.c_int),
        ("reversed", ctypes.c_int),
    )


class Preprocessing(ctypes.Structure):
    """The parameters of both kernels."""

    _fields_ = (
        ("views", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("input", ctypes.c_void_p),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class DeviceFrame:
    """A frame in the device's memory: uint8 [h, w, 3], its rows at any distance.

    Attributes:
        address: Of the first channel of the top left pixel; need not be aligned.
        size: Height and width, pixels.
        pitch: Bytes from one row to the next; negative where rows lie from the bottom up.
        channel_order: Of the three bytes of a pixel.

    Raises:
        FrameError: It has no pixel, no address, rows that overlap or an unknown order.
    """

    address: int
    size: Size
    pitch: int
    channel_order: ChannelOrder = "bgr"

    def __post_init__(self) -> None:
        height, width = self.size
        if not 0 < self.address < 2**64:
            raise FrameError(f"address of a frame: expected one in the device's memory, got {self.address}")
        if not (1 <= height <= LARGEST_SIDE and 1 <= width <= LARGEST_SIDE):
            raise FrameError(f"size of a frame: expected sides of 1 to {LARGEST_SIDE} pixels, got {height}x{width}")
        if height > 1 and not 3 * width <= abs(self.pitch) < 2**63 // height:
            raise FrameError(
                f"pitch of a frame: expected at least 3 bytes for each of {width} pixels, got {self.pitch}"
            )
        if self.channel_order not in get_args(ChannelOrder):
            raise FrameError(f"channel_order of a frame: expected bgr or rgb, got {self.channel_order!r}")


def preprocess(views: int, table: int, output: int, shape: tuple[int, int, int, int], *, half: bool) -> list[Launch]:
    """Return the launch that fills a batch of the network's input.

    Args:
        views: Address of ``View`` [N], 8-byte aligned. Read when the kernel runs; each of this input size.
        table: Address of float32 [3, 257], of ``level_table``.
        output: Address of float32 or float16 [N, 3, H, W], overwritten.
        shape: Of that.
        half: Whether it is float16.

    Raises:
        FrameError: The shape has no pixel, other than 3 channels or more than 65535 views or rows.
    """
    batch, channels, height, width = shape
    if channels != 3 or not all(1 <= side <= LARGEST_GRID for side in (batch, height, width)):
        raise FrameError(f"shape of the input: expected [N, 3, H, W] of 1 to {LARGEST_GRID}, got {list(shape)}")
    grid = (-(-width // BLOCK), height, batch)
    kernel = "preprocessHalf" if half else "preprocessFloat"
    return [Launch("preprocess", kernel, grid, BLOCK, 0, Preprocessing(views, table, output, height, width))]


def describe(frame: DeviceFrame, placement: Placement, normalisation: Normalisation) -> View:
    """Return what the kernel has to know of one view.

    Raises:
        FrameError: The placement is of a frame of another size.
    """
    if tuple(placement.frame_size) != tuple(frame.size):
        (height, width), (came_height, came_width) = placement.frame_size, frame.size
        raise FrameError(f"this view is of a frame of {height}x{width}, got one of {came_height}x{came_width}")
    return View(
        frame.address,
        frame.pitch,
        placement.frame_size,
        placement.size,
        placement.visible,
        placement.top,
        placement.left,
        placement.mirrored,
        frame.channel_order != normalisation.channel_order,
    )


def level_table(normalisation: Normalisation) -> NDArray[np.float32]:
    """Return float32 [3, 257]: what each grey level, and the border, becomes in each channel of the input."""
    mean, std, pad = (np.array([values]).T for values in (normalisation.mean, normalisation.std, normalisation.pad))
    levels = np.concatenate([np.broadcast_to(np.arange(256.0), (3, 256)), pad], axis=1)
    return np.asarray((levels / 255 - mean) / std, np.float32)
