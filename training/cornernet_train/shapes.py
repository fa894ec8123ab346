"""Scenes of textured shapes with exact boxes: data that anyone can make, as much of it as they like.

A scene depends on its seed and index alone, so any part of a data set can be made again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

CLASS_NAMES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")

SHORT_SIDES = (192, 224, 256, 288, 320)
ASPECTS = (1.0, 4 / 3, 3 / 2, 16 / 9)
OBJECTS = (1, 8)  # least and most a scene
SIZES = (0.09, 0.6)  # least and largest diameter, as a part of the short side
HIDDEN = 0.35  # largest part of an object that later ones may cover
CONTRAST = 60.0  # least distance in BGR between a shape and the ground behind it

Window = tuple[slice, slice]  # rows, columns
_SUBPIXEL = 4  # fractional bits in which OpenCV takes polygon corners
_CELLS = 8  # a side of a pixel, where coverage is counted


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and what is on it.

    Attributes:
        image: uint8 [H, W, 3], BGR.
        boxes: float32 [M, 4], x1 y1 x2 y2 in pixels, around the whole shape.
        labels: int64 [M], index into CLASS_NAMES.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def make_scene(seed: int, index: int) -> Scene:
    """Make scene ``index`` of the endless data set ``seed``; the same numbers give the same bytes."""
    rng = np.random.default_rng([seed, index])
    short = int(rng.choice(SHORT_SIDES))
    long = round(short * float(rng.choice(ASPECTS)))
    height, width = (short, long) if rng.random() < 0.7 else (long, short)
    canvas = _ground(rng, height, width)
    boxes: list[NDArray[np.float64]] = []
    labels: list[int] = []
    visible = _Visibility(height, width)
    for _ in range(int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))):
        for _attempt in range(12):
            label = int(rng.integers(len(CLASS_NAMES)))
            outline = _place(rng, _outline(rng, CLASS_NAMES[label]), height, width)
            if outline is None:
                continue
            window, coverage = _rasterise(outline, height, width)
            if visible.accept(window, coverage > 127):
                _paint(rng, canvas[window], coverage)
                points = np.concatenate(outline)
                boxes.append(np.concatenate([points.min(0), points.max(0)]))
                labels.append(label)
                break
    noise = rng.standard_normal(canvas.shape, np.float32) * np.float32(rng.uniform(0, 9))
    return Scene(
        image=np.clip(canvas + noise, 0, 255).astype(np.uint8),
        boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
        labels=np.asarray(labels, np.int64),
    )


class _Visibility:
    """Which pixels of which object can still be seen, so that none is hidden too far."""

    def __init__(self, height: int, width: int) -> None:
        self._owner = np.zeros((height, width), np.int32)  # 0 is the ground
        self._areas = np.array([height * width])
        self._visible = self._areas.copy()

    def accept(self, window: Window, mask: NDArray[np.bool_]) -> bool:
        """Put an object on top unless it would hide too much of one below; say whether it was put."""
        area = int(np.count_nonzero(mask))
        below = self._owner[window]
        left = self._visible - np.bincount(below[mask], minlength=len(self._areas))
        if area == 0 or (left < (1 - HIDDEN) * self._areas)[1:].any():
            return False
        below[mask] = len(self._areas)
        self._areas = np.append(self._areas, area)
        self._visible = np.append(left, area)
        return True


def _ground(rng: Generator, height: int, width: int) -> NDArray[np.float32]:
    """Return a background float32 [H, W, 3]: a gradient of two colours, with soft blotches."""
    first, second = rng.uniform(0, 255, (2, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * math.pi)
    columns, rows = np.linspace(0, math.cos(angle), width), np.linspace(0, math.sin(angle), height)
    along = (rows[:, None] + columns).astype(np.float32)
    along = (along - along.min()) / np.ptp(along)
    ground = first + (second - first) * along[..., None]
    cells = int(rng.integers(2, 12))
    blotches = rng.normal(0, rng.uniform(0, 25), (cells, cells, 3)).astype(np.float32)
    return np.asarray(ground + cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC))


def _outline(rng: Generator, name: str) -> list[NDArray[np.float64]]:
    """Return the shape's contours, [P, 2] each, x y, within a circle of radius 1, rotated at random."""
    turn = rng.uniform(0, 2 * math.pi)
    round_ = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    if name in ("circle", "ring"):
        circle = np.stack([np.cos(round_), np.sin(round_)], 1)
        contours = [circle] if name == "circle" else [circle, circle * rng.uniform(0.45, 0.7)]
    elif name in ("square", "triangle"):
        corners = 4 if name == "square" else 3
        angles = 2 * math.pi * np.arange(corners) / corners
        contours = [np.stack([np.cos(angles), np.sin(angles)], 1)]
    elif name == "star":
        angles = math.pi * np.arange(10) / 5
        radii = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.38, 0.5))
        contours = [np.stack([np.cos(angles) * radii, np.sin(angles) * radii], 1)]
    else:
        half = rng.uniform(0.22, 0.36)
        quarter = np.array([[1, -half], [1, half], [half, half]]) / math.hypot(1, half)
        contours = [np.concatenate([quarter @ _rotation(math.pi / 2 * k) for k in range(4)])]
    stretch = np.array([1.0, rng.uniform(0.75, 1.0)])
    return [contour * stretch @ _rotation(turn) for contour in contours]


def _rotation(angle: float) -> NDArray[np.float64]:
    """Return the matrix that turns row vectors by ``angle``."""
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def _place(
    rng: Generator, contours: list[NDArray[np.float64]], height: int, width: int
) -> list[NDArray[np.float64]] | None:
    """Scale and move the contours to a place wholly within the picture, or return None if they do not fit."""
    short = min(height, width)
    radius = 0.5 * short * math.exp(rng.uniform(math.log(SIZES[0]), math.log(SIZES[1])))
    points = np.concatenate(contours) * radius
    low, high = points.min(0), points.max(0)
    room = np.array([width, height]) - (high - low) - 2
    if room.min() <= 0:
        return None
    origin = 1 + rng.uniform(0, 1, 2) * room - low
    return [contour * radius + origin for contour in contours]


def _rasterise(contours: list[NDArray[np.float64]], height: int, width: int) -> tuple[Window, NDArray[np.uint8]]:
    """Return the window of the picture that holds the contours, and their coverage of it, 0 to 255.

    Contours are measured from the left and top edge; holes follow the even-odd rule.
    """
    points = np.concatenate(contours)
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 1, [width, height])
    # OpenCV's own anti-aliasing widens a polygon by half a pixel and more on every side, so each pixel is cut into
    # cells and those within are counted. OpenCV puts integers at the centres of cells, half of one from their edges.
    cells = [(contour - [left, top]) * _CELLS - 0.5 for contour in contours]
    fixed = [np.round(contour * 2**_SUBPIXEL).astype(np.int32) for contour in cells]
    fine = np.zeros(((bottom - top) * _CELLS, (right - left) * _CELLS), np.uint8)
    cv2.fillPoly(fine, fixed, 255, shift=_SUBPIXEL)
    coverage = cv2.resize(fine, (int(right - left), int(bottom - top)), interpolation=cv2.INTER_AREA)
    return np.s_[top:bottom, left:right], np.asarray(coverage, np.uint8)


def _paint(rng: Generator, canvas: NDArray[np.float32], coverage: NDArray[np.uint8]) -> None:
    """Blend a plain, shaded or striped texture over a window of the canvas, in place."""
    behind = canvas[coverage > 127].mean(0)
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - behind) < CONTRAST:
        colour = rng.uniform(0, 255, 3)
    height, width = coverage.shape
    texture = rng.choice(("plain", "shaded", "striped"))
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(30, 70)
    columns, rows = np.arange(width) * math.cos(angle), np.arange(height) * math.sin(angle)
    along = ((rows[:, None] + columns) / max(height, width)).astype(np.float32)
    if texture == "plain":
        along[:] = 0
    elif texture == "shaded":
        along -= along.mean()
    else:
        along = np.sin(along * np.float32(rng.uniform(12, 40))) / 2
    paint = np.clip(colour.astype(np.float32) + along[..., None] * np.float32(strength), 0, 255)
    canvas += (paint - canvas) * (coverage[..., None] / np.float32(255))
