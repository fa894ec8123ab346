"""Where a frame lies in the network's input, and how boxes go there and back.

Coordinates run from the left and top edge of the picture, so that a picture of width w spans 0 to w and scaling is a
plain multiplication. ``cv2.resize`` samples pixel centres, which is the same map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_runtime.errors import FrameError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.spec import ModelSpec, Normalisation

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True)
class Placement:
    """The rectangle of the input that a frame fills.

    Attributes:
        frame_size: Height and width of the frame, pixels.
        size: Height and width that it is resized to, pixels, at least 1.
        top: Rows of border above it.
        left: Columns of border left of it.
    """

    frame_size: Size
    size: Size
    top: int
    left: int

    def to_input(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map boxes [N, 4] (x1 y1 x2 y2) from frame pixels to input pixels."""
        return np.asarray(boxes * self._scale() + self._shift(), np.float64)

    def to_frame(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map boxes [N, 4] (x1 y1 x2 y2) from input pixels to frame pixels; they may reach beyond the frame."""
        return np.asarray((boxes - self._shift()) / self._scale(), np.float64)

    def _scale(self) -> NDArray[np.float64]:
        scale_y, scale_x = (new / old for new, old in zip(self.size, self.frame_size, strict=True))
        return np.array([scale_x, scale_y, scale_x, scale_y])

    def _shift(self) -> NDArray[np.float64]:
        return np.array([self.left, self.top, self.left, self.top], np.float64)


def fit(frame_size: Size, input_size: Size) -> Placement:
    """Place a frame in the input: scaled until it touches two sides, its aspect kept, centred.

    The sides are whole pixels, so the two scales may differ by the rounding; ``Placement`` keeps each exactly.
    """
    scale = min(new / old for new, old in zip(input_size, frame_size, strict=True))
    size = tuple(min(limit, max(1, round(old * scale))) for old, limit in zip(frame_size, input_size, strict=True))
    top, left = ((limit - new) // 2 for new, limit in zip(size, input_size, strict=True))
    return Placement(frame_size, (size[0], size[1]), top, left)


def cells_to_input(boxes: NDArray[np.floating], spec: ModelSpec) -> NDArray[np.float64]:
    """Map boxes [N, 4] from cells of the corner maps to input pixels.

    The ratio is input side over map side, as in the original's training and test code: 511 pixels are 128 cells, so a
    cell is a little less than the stride.
    """
    (input_height, input_width), (map_height, map_width) = spec.input_size, spec.map_size
    ratio = np.array([input_width / map_width, input_height / map_height] * 2)
    return np.asarray(boxes * ratio, np.float64)


def clip_to_frame(boxes: NDArray[np.float64], frame_size: Size) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Clip boxes [N, 4] to the frame.

    Returns:
        The clipped boxes, float32 [N, 4], and bool [N]: whether the box touched the frame at all. Those that lay in
        the border only are no objects of the frame.
    """
    height, width = frame_size
    inside = (boxes[:, 2] >= 0) & (boxes[:, 3] >= 0) & (boxes[:, 0] <= width) & (boxes[:, 1] <= height)
    limits = np.array([width, height, width, height], np.float64)
    return np.clip(boxes, 0, limits).astype(np.float32), inside


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


class Preprocessor:
    """Frames to network input, into buffers that are made once.

    Args:
        input_size: Height and width of the network input.
        normalisation: Grey levels to input.
    """

    def __init__(self, input_size: Size, normalisation: Normalisation) -> None:
        self._input_size = input_size
        mean, std = (np.asarray(values) for values in (normalisation.mean, normalisation.std))
        order = (0, 1, 2) if normalisation.channel_order == "bgr" else (2, 1, 0)
        levels = np.arange(256) / 255
        self._tables = [((levels - mean[c]) / std[c]).astype(np.float32) for c in range(3)]
        self._frame_channels = order
        # Not through the table: the mean pixel, which some models pad with, is no whole level.
        self._pad = ((np.asarray(normalisation.pad) / 255 - mean) / std).astype(np.float32)[:, None, None]
        self._canvas = np.zeros((*input_size, 3), np.uint8)
        self._plane = np.zeros(input_size, np.uint8)
        self._placement: Placement | None = None

    def __call__(self, frame: NDArray[np.uint8], output: NDArray[np.float32]) -> Placement:
        """Write the frame, resized (bilinear), padded and normalised, to ``output`` [3, H, W].

        Args:
            frame: uint8 [h, w, 3], BGR; any strides.
            output: float32 [3, H, W], overwritten.

        Returns:
            Where the frame lies in the input.

        Raises:
            FrameError: The frame has another shape or type.
        """
        frame = check_frame(frame)
        placement = self._placement
        if placement is None or placement.frame_size != frame.shape[:2]:
            placement = self._placement = fit((frame.shape[0], frame.shape[1]), self._input_size)
        height, width = placement.size
        top, left, bottom, right = placement.top, placement.left, placement.top + height, placement.left + width
        window = self._canvas[top:bottom, left:right]
        if placement.size == placement.frame_size:
            window[:] = frame
        else:
            cv2.resize(np.ascontiguousarray(frame), (width, height), dst=window, interpolation=cv2.INTER_LINEAR)
        for channel, (source, table) in enumerate(zip(self._frame_channels, self._tables, strict=True)):
            cv2.extractChannel(self._canvas, source, dst=self._plane)
            cv2.LUT(self._plane, table, dst=output[channel])
        for border in (output[:, :top], output[:, bottom:], output[:, :, :left], output[:, :, right:]):
            border[:] = self._pad
        return placement
