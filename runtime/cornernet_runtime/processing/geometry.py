"""Where a frame lies in the network's input, and how boxes go there and back.

Coordinates run from the left and top edge of the picture, so that a picture of width w spans 0 to w and scaling is a
plain multiplication. ``cv2.resize`` samples pixel centres, which is the same map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.errors import SizeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import ModelSpec, Size


@dataclass(frozen=True, slots=True)
class Placement:
    """One view of a frame: the rectangle of an input that it fills.

    Attributes:
        frame_size: Height and width of the frame, pixels.
        input_size: Height and width of the input, pixels.
        scale: Input pixels a frame pixel, down and across.
        size: Height and width that the frame is resized to, pixels, at least 1.
        visible: Height and width of what the input shows of that, from its top left.
        top: Rows of border above it.
        left: Columns of border left of it.
        mirrored: Whether the whole input, border included, is then mirrored from left to right.
    """

    frame_size: Size
    input_size: Size
    scale: tuple[float, float]
    size: Size
    visible: Size
    top: int
    left: int
    mirrored: bool = False

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width that boxes can reach in the frame, pixels; less than the frame where resizing cut a part."""
        rows, columns = (new / scale for new, scale in zip(self.size, self.scale, strict=True))
        return min(self.frame_size[0], rows), min(self.frame_size[1], columns)

    def to_input(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map boxes [N, 4] (x1 y1 x2 y2) from frame pixels to input pixels."""
        return self._mirror(np.asarray(boxes * self._scale() + self._shift(), np.float64))

    def to_frame(self, boxes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map boxes [N, 4] (x1 y1 x2 y2) from input pixels to frame pixels; they may reach beyond the frame."""
        return np.asarray((self._mirror(np.asarray(boxes, np.float64)) - self._shift()) / self._scale(), np.float64)

    def _mirror(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self.mirrored:
            return boxes
        x1, y1, x2, y2 = boxes.T
        return np.stack([self.input_size[1] - x2, y1, self.input_size[1] - x1, y2], axis=1)

    def _scale(self) -> NDArray[np.float64]:
        return np.array([self.scale[1], self.scale[0]] * 2)

    def _shift(self) -> NDArray[np.float64]:
        return np.array([self.left, self.top, self.left, self.top], np.float64)


def place(
    frame_size: Size, spec: ModelSpec, scales: Sequence[float] = (1.0,), *, flip: bool = False
) -> list[Placement]:
    """Return the views of a frame that a model is shown, equal ones once.

    Args:
        frame_size: Height and width of the frame.
        spec: Of the model; its geometry decides.
        scales: As ``usable_scales`` returns them.
        flip: Whether each is followed by its mirror image.
    """
    views = []
    for scale in scales:
        view = _native(frame_size, spec, scale) if spec.geometry == "native" else _fit_best(frame_size, spec, scale)
        views += [view, replace(view, mirrored=True)] if flip else [view]
    return list(dict.fromkeys(views))


def usable_scales(scales: Sequence[float], spec: ModelSpec) -> tuple[float, ...]:
    """Return the scales at which a model can look at a frame.

    A frame that is fitted into the input cannot grow beyond it: there the largest scale fills the input and the others
    keep their ratio to it. None above 1, and they stay as they are.

    Raises:
        SizeError: None at all, one that is no positive number, or one named twice.
    """
    try:
        wanted = tuple(float(scale) for scale in scales)
    except (TypeError, ValueError) as error:
        raise SizeError(f"scales: expected distinct positive numbers, got {scales!r}") from error
    if not wanted or not all(0 < scale < np.inf for scale in wanted) or len(set(wanted)) < len(wanted):
        raise SizeError(f"scales: expected distinct positive numbers, got {list(wanted)}")
    if spec.geometry == "native":
        return wanted
    return tuple(scale / max(1.0, *wanted) for scale in wanted)


def is_too_large(frame_size: Size, spec: ModelSpec, scales: Sequence[float] = (1.0,)) -> bool:
    """Return whether a frame in native geometry has to be scaled down to fit the model's largest size."""
    if spec.geometry != "native":
        return False
    return any(_native(frame_size, spec, scale).scale != (scale, scale) for scale in scales)


def fit(frame_size: Size, input_size: Size, shrink: float = 1.0) -> Placement:
    """Place a frame in the input: scaled until it touches two sides, its aspect kept, centred.

    The sides are whole pixels, so the two scales may differ by the rounding; ``Placement`` keeps each exactly.

    Args:
        frame_size: Height and width of the frame.
        input_size: Height and width of the input.
        shrink: How much smaller than that, above 0 and at most 1.
    """
    scale = min(new / old for new, old in zip(input_size, frame_size, strict=True)) * shrink
    height, width = (min(limit, max(1, round(old * scale))) for old, limit in zip(frame_size, input_size, strict=True))
    top, left = (input_size[0] - height) // 2, (input_size[1] - width) // 2
    scales = (height / frame_size[0], width / frame_size[1])
    return Placement(frame_size, input_size, scales, (height, width), (height, width), top, left)


def cells_to_input(boxes: NDArray[np.floating], input_size: Size, stride: int) -> NDArray[np.float64]:
    """Map boxes [N, 4] from cells of the corner maps to input pixels.

    The ratio is input side over map side, as in the original's training and test code: 511 pixels are 128 cells, so a
    cell is a little less than the stride.
    """
    height, width = input_size
    ratio = np.array([width / ((width + 1) // stride), height / ((height + 1) // stride)] * 2)
    return np.asarray(boxes * ratio, np.float64)


def boxes_in_frame(
    boxes: NDArray[np.floating], view: Placement, stride: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Map boxes [N, 4] from cells of a view's corner maps to pixels of the frame, and clip them (``clip_to_frame``)."""
    return clip_to_frame(view.to_frame(cells_to_input(boxes, view.input_size, stride)), view.extent)


def clip_to_frame(
    boxes: NDArray[np.float64], extent: tuple[float, float]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Clip boxes [N, 4] to a frame of this height and width.

    Returns:
        The clipped boxes, float32 [N, 4], and bool [N]: whether the box touched the frame at all. Those that lay in
        the border only are no objects of the frame.
    """
    height, width = extent
    inside = (boxes[:, 2] >= 0) & (boxes[:, 3] >= 0) & (boxes[:, 0] <= width) & (boxes[:, 1] <= height)
    limits = np.array([width, height, width, height], np.float64)
    return np.clip(boxes, 0, limits).astype(np.float32), inside


def _fit_best(frame_size: Size, spec: ModelSpec, shrink: float) -> Placement:
    """Fit into the smallest of the model's sizes that shows the frame as large as asked for."""

    def reach(size: Size) -> float:
        return min(new / old for new, old in zip(size, frame_size, strict=True))

    wanted = shrink * max(reach(size) for size in spec.sizes)
    enough = [size for size in spec.sizes if reach(size) >= wanted * (1 - 1e-9)]
    best = min(enough, key=lambda size: size[0] * size[1])
    return fit(frame_size, best, min(1.0, wanted / reach(best)))


def _native(frame_size: Size, spec: ModelSpec, scale: float) -> Placement:
    """Place a frame as the original's test code does: at its own resolution times the scale, centred in the next size.

    Two of its habits are kept, so that trained weights give what they gave there. A resized side is cut to whole pixels
    while boxes come back by the scale itself, which loses up to a pixel. And a side that already fits exactly (511,
    639, 767) loses its last row or column to the border, for the original pastes two halves of ``input // 2``. A frame
    that does not fit the largest size is scaled down until it does.
    """

    def next_side(side: int) -> int:
        return (side // spec.modulus + 1) * spec.modulus - 1

    def resized() -> tuple[int, int]:
        return max(1, int(frame_size[0] * scale)), max(1, int(frame_size[1] * scale))

    if any(next_side(side) > limit for side, limit in zip(resized(), spec.largest_size, strict=True)):
        scale = min((limit - 1) / side for side, limit in zip(frame_size, spec.largest_size, strict=True))
    height, width = resized()
    input_height, input_width = next_side(height), next_side(width)
    return Placement(
        frame_size,
        input_size=(input_height, input_width),
        scale=(scale, scale),
        size=(height, width),
        visible=(min(height, input_height - 1), min(width, input_width - 1)),
        top=input_height // 2 - height // 2,
        left=input_width // 2 - width // 2,
    )
