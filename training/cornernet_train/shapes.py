"""Scenes of textured shapes with exact boxes: data that anyone can make, as much of it as they like.

A scene depends on its seed and index alone, so any part of a data set can be made again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

CLASS_NAMES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross", "ring")

SHORT_SIDES = (208, 224, 256, 288, 320)
ASPECTS = (1.0, 6 / 5, 4 / 3, 3 / 2)
OBJECTS = (1, 12)  # least and most a scene
LEAST_SIZE = 10.0  # pixels; the size of an object is the root of the area of its whole box
LARGEST_SIZE = 0.8  # of the short side
HIDDEN = 0.5  # largest part of an object that others or the border may take from view
CUT = 0.08  # objects that are put across the border
APART = 0.5  # of the places over an object of the same class, so many are given up for another
CONTRAST = 60.0  # least distance in BGR between a shape and the ground behind it

Outline = list["NDArray[np.float64]"]  # contours, [P, 2] each, x y
Window = tuple[slice, slice]  # rows, columns
_ATTEMPTS = 16  # to find a place for an object before it is left out
_SUBPIXEL = 4  # fractional bits in which OpenCV takes polygon corners
_CELLS = 8  # a side of a pixel, where coverage is counted
_LARGE = 64  # pixels; windows beyond this side are counted in half as many cells


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and what is on it.

    Attributes:
        image: uint8 [H, W, 3], BGR.
        boxes: float32 [M, 4], x1 y1 x2 y2 in pixels, around the whole shape, as far as it lies in the picture.
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
    drawing = _Drawing(make_ground(rng, height, width))
    for size in _sizes(rng, int(rng.integers(OBJECTS[0], OBJECTS[1] + 1)), short):
        _add_object(rng, drawing, size)
    noise = rng.standard_normal(drawing.canvas.shape, np.float32) * np.float32(rng.uniform(0, 9))
    return Scene(
        image=np.clip(drawing.canvas + noise, 0, 255).astype(np.uint8),
        boxes=np.asarray(drawing.boxes, np.float32).reshape(-1, 4),
        labels=np.asarray(drawing.labels, np.int64),
    )


class _Drawing:
    """The canvas, what is on it, and which pixels of which object can still be seen."""

    def __init__(self, ground: NDArray[np.float32]) -> None:
        self.canvas = ground  # [H, W, 3], grey levels, not yet clipped
        self.boxes: list[NDArray[np.float64]] = []
        self.labels: list[int] = []
        self._owner = np.zeros(ground.shape[:2], np.int32)  # 0 is the ground
        self._areas = np.array([self._owner.size])
        self._visible = self._areas.copy()

    def overlaps(self, box: NDArray[np.float64], label: int) -> bool:
        """Say whether a box shares any area with that of an object of this class."""
        return any(
            other == label and (np.minimum(box[2:], there[2:]) > np.maximum(box[:2], there[:2])).all()
            for there, other in zip(self.boxes, self.labels, strict=True)
        )

    def accept(self, window: Window, mask: NDArray[np.bool_], area: float) -> bool:
        """Put an object on top unless too much of it or of one below would not be seen; say whether it was put.

        Args:
            window: Where in the picture ``mask`` lies.
            mask: [h, w], the object's pixels.
            area: Of the whole object, pixels, also of what lies beyond the border.
        """
        shown = int(np.count_nonzero(mask))
        whole = max(shown, round(area))
        below = self._owner[window]
        left = self._visible - np.bincount(below[mask], minlength=len(self._areas))
        if shown == 0 or shown < (1 - HIDDEN) * whole or (left < (1 - HIDDEN) * self._areas)[1:].any():
            return False
        below[mask] = len(self._areas)
        self._areas = np.append(self._areas, whole)
        self._visible = np.append(left, shown)
        return True


def _sizes(rng: Generator, count: int, short: int) -> NDArray[np.float64]:
    """Draw sizes in pixels, even in the logarithm, and return them roughly from large to small.

    Were they drawn in any order, the large would hide the small and find no place; were they strictly sorted, nothing
    would ever lie behind something larger.
    """
    sizes = np.exp(rng.uniform(math.log(LEAST_SIZE), math.log(LARGEST_SIZE * short), count))
    return sizes[np.argsort(-np.log(sizes) + rng.normal(0, 0.4, count))]


def _add_object(rng: Generator, drawing: _Drawing, size: float) -> None:
    """Put one object of a size somewhere, across the border or within the picture, unless there is no room for it."""
    height, width = drawing.canvas.shape[:2]
    place = _across_border if rng.random() < CUT else _within
    for _ in range(_ATTEMPTS):
        label = int(rng.integers(len(CLASS_NAMES)))
        outline = place(rng, to_size(make_outline(rng, CLASS_NAMES[label]), size), height, width)
        if not outline:
            continue
        box = extent_of(outline, height, width)
        if rng.random() < APART and drawing.overlaps(box, label):
            continue
        window, coverage = rasterise(outline, height, width)
        if drawing.accept(window, coverage > 127, _area(outline)):
            _paint(rng, drawing.canvas[window], coverage)
            drawing.boxes.append(box)
            drawing.labels.append(label)
            return


def make_ground(rng: Generator, height: int, width: int) -> NDArray[np.float32]:
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


def make_outline(rng: Generator, name: str) -> list[NDArray[np.float64]]:
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
        contours = [np.concatenate([quarter @ rotation(math.pi / 2 * k) for k in range(4)])]
    stretch = np.array([1.0, rng.uniform(0.75, 1.0)])
    return [contour * stretch @ rotation(turn) for contour in contours]


def rotation(angle: float) -> NDArray[np.float64]:
    """Return the matrix that turns row vectors by ``angle``."""
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def to_size(contours: Outline, size: float) -> Outline:
    """Scale contours so that their box has the area of a square of side ``size``, pixels."""
    extent = np.ptp(np.concatenate(contours), axis=0)
    return [contour * (size / math.sqrt(extent.prod())) for contour in contours]


def _within(rng: Generator, contours: Outline, height: int, width: int) -> Outline:
    """Move contours to a place wholly within the picture; empty if they do not fit."""
    points = np.concatenate(contours)
    low, high = points.min(0), points.max(0)
    room = np.array([width, height]) - (high - low) - 2
    if room.min() <= 0:
        return []
    place = 1 + rng.uniform(0, 1, 2) * room - low
    return [contour + place for contour in contours]


def _across_border(rng: Generator, contours: Outline, height: int, width: int) -> Outline:
    """Move contours so that one border of the picture cuts them; empty if they do not fit along the border."""
    points = np.concatenate(contours)
    low, high = points.min(0), points.max(0)
    limits = np.array([width, height], float)
    axis, far, outside = int(rng.integers(2)), bool(rng.integers(2)), rng.uniform(0.1, 0.5)
    if (limits - (high - low) <= 2)[1 - axis] or (high - low)[axis] * (1 - outside) > limits[axis] - 1:
        return []
    place = rng.uniform(1 - low, np.maximum(limits - 1 - high, 1 - low))
    beyond = outside * (high - low)[axis]
    place[axis] = limits[axis] - high[axis] + beyond if far else -low[axis] - beyond
    return [contour + place for contour in contours]


def extent_of(contours: Outline, height: int, width: int) -> NDArray[np.float64]:
    """Return the box x1 y1 x2 y2 around the part of the contours in the picture, which one border may cut."""
    limits = np.array([width, height], float)
    kept = []
    for contour in contours:
        kept.append(contour[((contour >= 0) & (contour <= limits)).all(1)])
        before = np.roll(contour, 1, axis=0)
        for axis, border in product((0, 1), (0.0, 1.0)):
            start, end = before[:, axis] - border * limits[axis], contour[:, axis] - border * limits[axis]
            cut = start * end < 0
            part = (start[cut] / (start[cut] - end[cut]))[:, None]
            kept.append(before[cut] + (contour[cut] - before[cut]) * part)
    points = np.clip(np.concatenate(kept), 0, limits)  # clips rounding only
    return np.concatenate([points.min(0), points.max(0)])


def _area(contours: Outline) -> float:
    """Return the area within contours, of which the second, if any, is a hole."""
    areas = []
    for contour in contours:
        x, y = contour.T
        areas.append(abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2)
    return areas[0] - sum(areas[1:])


def rasterise(contours: list[NDArray[np.float64]], height: int, width: int) -> tuple[Window, NDArray[np.uint8]]:
    """Return the window of the picture that holds the contours, and their coverage of it, 0 to 255.

    Contours are measured from the left and top edge; holes follow the even-odd rule.
    """
    points = np.concatenate(contours)
    left, top = np.maximum(np.floor(points.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(points.max(0)).astype(int) + 1, [width, height])
    count = _CELLS if max(right - left, bottom - top) <= _LARGE else _CELLS // 2
    # OpenCV's own anti-aliasing widens a polygon by half a pixel and more on every side, so each pixel is cut into
    # cells and those within are counted. OpenCV puts integers at the centres of cells, half of one from their edges.
    cells = [(contour - [left, top]) * count - 0.5 for contour in contours]
    fixed = [np.round(contour * 2**_SUBPIXEL).astype(np.int32) for contour in cells]
    fine = np.zeros(((bottom - top) * count, (right - left) * count), np.uint8)
    cv2.fillPoly(fine, fixed, 255, shift=_SUBPIXEL)
    coverage = cv2.resize(fine, (int(right - left), int(bottom - top)), interpolation=cv2.INTER_AREA)
    return np.s_[top:bottom, left:right], np.asarray(coverage, np.uint8)


@dataclass(frozen=True, slots=True)
class Paint:
    """What a shape is filled with.

    Attributes:
        colour: float64 [3], BGR, 0 to 255.
        texture: "plain", "shaded" (a gradient) or "striped".
        angle: Along which a texture changes, radians.
        strength: Grey levels by which it does.
        frequency: Radians along a striped shape.
    """

    colour: NDArray[np.float64]
    texture: str
    angle: float
    strength: float
    frequency: float

    @staticmethod
    def chosen(rng: Generator, behind: NDArray[np.floating]) -> Paint:
        """Choose a paint that stands out from the colour ``behind``, [3]."""
        colour = rng.uniform(0, 255, 3)
        while np.linalg.norm(colour - behind) < CONTRAST:
            colour = rng.uniform(0, 255, 3)
        texture = str(rng.choice(("plain", "shaded", "striped")))
        angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(30, 70)
        return Paint(colour, texture, angle, strength, rng.uniform(12, 40) if texture == "striped" else 0.0)

    def cover(self, canvas: NDArray[np.float32], coverage: NDArray[np.uint8]) -> None:
        """Blend it over a window of the canvas, in place."""
        height, width = coverage.shape
        columns, rows = np.arange(width) * math.cos(self.angle), np.arange(height) * math.sin(self.angle)
        along = ((rows[:, None] + columns) / max(height, width)).astype(np.float32)
        if self.texture == "plain":
            along[:] = 0
        elif self.texture == "shaded":
            along -= along.mean()
        else:
            along = np.sin(along * np.float32(self.frequency)) / 2
        paint = np.clip(self.colour.astype(np.float32) + along[..., None] * np.float32(self.strength), 0, 255)
        canvas += (paint - canvas) * (coverage[..., None] / np.float32(255))


def _paint(rng: Generator, canvas: NDArray[np.float32], coverage: NDArray[np.uint8]) -> None:
    """Cover a window of the canvas with a paint that stands out there, in place."""
    Paint.chosen(rng, canvas[coverage > 127].mean(0)).cover(canvas, coverage)
