"""Frames to network input: resized, padded, normalised and turned to channels first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_runtime.errors import FrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import Normalisation
    from cornernet_runtime.processing.geometry import Placement


class Preprocessor:
    """Frames to network input, through buffers that grow to the largest frame and stay.

    Args:
        normalisation: Grey levels to input.
    """

    def __init__(self, normalisation: Normalisation) -> None:
        mean, std = (np.asarray(values) for values in (normalisation.mean, normalisation.std))
        levels = np.arange(256) / 255
        self._tables = [((levels - mean[c]) / std[c]).astype(np.float32) for c in range(3)]
        self._frame_channels = (0, 1, 2) if normalisation.channel_order == "bgr" else (2, 1, 0)
        # Not through the table: the mean pixel, which some models pad with, is no whole level.
        self._pad = ((np.asarray(normalisation.pad) / 255 - mean) / std).astype(np.float32)[:, None, None]
        self._pixels = np.empty(0, np.uint8)

    def __call__(self, frame: NDArray[np.uint8], placement: Placement, output: NDArray[np.float32]) -> None:
        """Write the frame, resized (bilinear), padded and normalised, to ``output``.

        Args:
            frame: uint8 [h, w, 3], BGR; any strides.
            placement: Where it goes; of a frame of this size.
            output: float32 [3, H, W] of the placement's input size, overwritten.
        """
        height, width = placement.size
        if len(self._pixels) < 4 * height * width:
            self._pixels = np.empty(4 * height * width, np.uint8)
        resized = self._pixels[: 3 * height * width].reshape(height, width, 3)
        plane = self._pixels[3 * height * width : 4 * height * width].reshape(height, width)
        if placement.size == placement.frame_size:
            np.copyto(resized, frame)
        else:
            cv2.resize(np.ascontiguousarray(frame), (width, height), dst=resized, interpolation=cv2.INTER_LINEAR)
        visible = plane[: placement.visible[0], : placement.visible[1]]
        top, bottom = placement.top, placement.top + placement.visible[0]
        left, right = placement.left, placement.left + placement.visible[1]
        if placement.mirrored:
            left, right = placement.input_size[1] - right, placement.input_size[1] - left
        for channel, (source, table) in enumerate(zip(self._frame_channels, self._tables, strict=True)):
            cv2.extractChannel(resized, source, dst=plane)
            if placement.mirrored:
                cv2.flip(visible, 1, dst=visible)
            cv2.LUT(visible, table, dst=output[channel, top:bottom, left:right])
        for border in (output[:, :top], output[:, bottom:], output[:, :, :left], output[:, :, right:]):
            border[:] = self._pad


def check_frame(frame: object) -> NDArray[np.uint8]:
    """Return the frame if it is uint8 [H, W, 3] with at least one pixel.

    Raises:
        FrameError: Anything else; the message says what came.
    """
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"a frame is a NumPy array uint8 [H, W, 3] in BGR order, got {type(frame).__name__}")
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise FrameError(f"a frame is uint8 [H, W, 3] in BGR order, got {frame.dtype} {list(frame.shape)}")
    return frame
