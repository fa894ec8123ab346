"""Detections drawn into a picture, and the corners that they were paired from.

Marks have to read on any background. Class colours are therefore light, 9:1 or more against the black of text
and edges, so that on plain ground of any colour a line or its edge stands out by 3:1 (contrast as in WCAG 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_runtime.errors import FrameError
from cornernet_runtime.processing.preprocess import check_frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cornernet_runtime.detections import Detections

    Picture = NDArray[np.uint8]  # [H, W, 3], BGR
    Rectangles = NDArray[np.int64]  # [..., 4], left top right bottom, pixels, the latter two exclusive
    Colour = tuple[int, int, int]  # blue, green, red

_BLACK, _WHITE, _LEGEND_GROUND = (0, 0, 0), (255, 255, 255), (28, 28, 28)
_TOP_LEFT, _BOTTOM_RIGHT = (0, 120, 255), (255, 165, 0)  # warm, cool
_HEAT_OPACITY = np.float32(0.9)
_SMALLEST_CORNER_VIEW = 640  # pixels of the longer side
# RGB: orange, azure, mint, yellow, pink, lavender; the first four stay apart in every colour blindness.
_FIRST_COLOURS = ("ffa500", "28b4ff", "78ffc3", "fff000", "ffaae6", "c3cdff")
_LUMINANCE_WEIGHTS = np.array([0.0722, 0.7152, 0.2126])  # blue, green, red


def draw_detections(frame: NDArray[np.uint8], detections: Detections) -> NDArray[np.uint8]:
    """Return a copy of a frame with the box, name and score of each detection.

    Lines straddle the edges of the boxes; they and the letters grow with the picture. The best detections lie
    on top and place their labels first. A label moves where it would leave the picture or cover another; in a
    small picture it is shortened, or at last left out.

    Args:
        frame: uint8 [H, W, 3], BGR; not changed.
        detections: Boxes in pixels of ``frame``.

    Raises:
        FrameError: ``frame`` has another shape or type.
    """
    check_frame(frame)
    picture, style = frame.copy(), _Style.of(frame)
    boxes = _pixel_edges(detections.boxes, picture, style.line)
    colours = [_class_colour(int(label)) for label in detections.labels]
    for box, colour in zip(boxes[::-1], colours[::-1], strict=True):
        _draw_box(picture, box, colour, style)
    plates = _plates(picture, detections, colours, style)
    places = [_places_at_edges(box, plate, style.edge) for box, plate in zip(boxes, plates, strict=True)]
    _paste_apart(picture, plates, places, np.empty((0, 4), np.int64))
    return picture


def draw_corners(
    frame: NDArray[np.uint8],
    tl_heat: NDArray[np.float32],
    br_heat: NDArray[np.float32],
    detections: Detections,
) -> NDArray[np.uint8]:
    """Return a picture of how the detections came about: the heat of corners, and which of them were paired.

    The frame is muted; heat of top-left corners glows warm, that of bottom-right corners cool. Each pair is a
    warm and a cool bracket, joined by a diagonal in a thin box. The legend stands below and hides nothing.

    Args:
        frame: uint8 [H, W, 3], BGR; not changed.
        tl_heat: float32 [H, W], probability (0 to 1) of a top-left corner, the largest of all classes, at the
            resolution of the frame. NaN is drawn as no heat.
        br_heat: float32 [H, W], the same of bottom-right corners.
        detections: The pairs, boxes in pixels of ``frame``.

    Returns:
        uint8 [zoom H + legend, zoom W, 3], BGR. ``zoom`` is the smallest whole number that makes the longer
        side 640 pixels or more; the size depends on that of the frame alone.

    Raises:
        FrameError: ``frame`` has another shape or type, or a heat map another height or width.
    """
    check_frame(frame)
    for name, heat in (("tl_heat", tl_heat), ("br_heat", br_heat)):
        if heat.shape != frame.shape[:2]:
            raise FrameError(f"{name}: expected size {frame.shape[:2]} of the frame, got {heat.shape}")
    zoom = math.ceil(_SMALLEST_CORNER_VIEW / max(frame.shape[:2]))
    picture = np.asarray(cv2.resize(_glow(frame, tl_heat, br_heat), None, fx=zoom, fy=zoom), np.uint8)
    style = _Style.of(picture)
    boxes = _pixel_edges(detections.boxes * zoom, picture, 1)
    colours = [_class_colour(int(label)) for label in detections.labels]
    for box, colour in zip(boxes[::-1], colours[::-1], strict=True):
        _draw_box(picture, box, colour, replace(style, line=max(1, style.line // 2), edge=1))
        _draw_pair(picture, box, colour, style)
    plates = _plates(picture, detections, colours, style)
    places = [_places_at_middle(box, plate, style.bracket) for box, plate in zip(boxes, plates, strict=True)]
    marks = boxes[:, [[0, 1, 0, 1], [2, 3, 2, 3]]].reshape(-1, 4) + np.array([-1, -1, 1, 1]) * style.bracket
    _paste_apart(picture, plates, places, marks)
    return np.concatenate([picture, _legend(picture.shape[1], style)])


@dataclass(frozen=True, slots=True)
class _Style:
    """Sizes in pixels: height of a capital, width of a line and of the edges beside it, arm of a bracket."""

    capital: int
    line: int
    edge: int
    bracket: int

    @classmethod
    def of(cls, picture: Picture) -> _Style:
        side = math.sqrt(picture.shape[0] * picture.shape[1])
        line = round(1 + side / 500)
        return cls(max(7, round(5 + 0.007 * side)), line, max(1, round(line / 3)), max(8, round(side / 50)))


def _pixel_edges(boxes: NDArray[np.float32], picture: Picture, line: int) -> Rectangles:
    """Return the outer edges of the lines around boxes [N, 4].

    A box from 10 to 20 covers the pixels 10 to 19; lines of one pixel lie on these, wider ones around them.
    Lines stay in the picture, and a box without area is as large as its line.
    """
    limit = np.array([picture.shape[1], picture.shape[0]])
    outer = np.rint(boxes).astype(np.int64).reshape(-1, 4) + np.array([-1, -1, 1, 1]) * (line // 2)
    start = np.clip(outer[:, :2], 0, np.maximum(limit - line, 0))
    return np.concatenate([start, np.clip(outer[:, 2:], np.minimum(start + line, limit), limit)], axis=1)


def _draw_box(picture: Picture, box: Rectangles, colour: Colour, style: _Style) -> None:
    left, top, right, bottom = map(int, box)
    for grow, paint in ((style.edge, _ink_on(colour)), (0, colour)):
        inset = style.line + grow
        _fill(picture, left - grow, top - grow, right + grow, top + inset, paint)
        _fill(picture, left - grow, bottom - inset, right + grow, bottom + grow, paint)
        _fill(picture, left - grow, top - grow, left + inset, bottom + grow, paint)
        _fill(picture, right - inset, top - grow, right + grow, bottom + grow, paint)


def _draw_pair(picture: Picture, box: Rectangles, colour: Colour, style: _Style) -> None:
    left, top, right, bottom = map(int, box)
    for width, paint in ((max(4, style.line + 1), _BLACK), (max(2, style.line - 1), colour)):
        cv2.line(picture, (left, top), (right - 1, bottom - 1), paint, width, cv2.LINE_AA)
    _draw_bracket(picture, (left, top), 1, _TOP_LEFT, style)
    _draw_bracket(picture, (right, bottom), -1, _BOTTOM_RIGHT, style)


def _draw_bracket(picture: Picture, corner: tuple[int, int], inward: int, colour: Colour, style: _Style) -> None:
    """Draw two arms from a corner (x, y), right and down where ``inward`` is 1, left and up where -1."""
    thick = style.line + 1
    for grow, paint in ((style.edge + 1, _BLACK), (style.edge, _WHITE), (0, colour)):
        for arms in ((style.bracket, thick), (thick, style.bracket)):
            near = [place - inward * (thick // 2 + grow) for place in corner]
            far = [place + inward * (arm + 2 * grow) for place, arm in zip(near, arms, strict=True)]
            (left, right), (top, bottom) = (sorted(ends) for ends in zip(near, far, strict=True))
            _fill(picture, left, top, right, bottom, paint)


def _fill(picture: Picture, left: int, top: int, right: int, bottom: int, colour: Colour) -> None:
    picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = colour


def _plates(picture: Picture, detections: Detections, colours: Sequence[Colour], style: _Style) -> list[Picture]:
    """Return the label of each detection, of no size where none fits into the picture."""
    edge = style.edge
    height, width = picture.shape[0] - 2 * edge, picture.shape[1] - 2 * edge
    plates = []
    for (_, score, name), colour in zip(detections, colours, strict=True):
        ink, kept = _ink_on(colour), len(name)
        text = _text(f"{name} {score:.2f}", colour, ink, style)
        while text.shape[1] > width and kept:
            kept = min(kept - 1, max(0, kept * width // text.shape[1]))
            text = _text(f"{name[:kept]}. {score:.2f}" if kept else f"{score:.2f}", colour, ink, style)
        plate = cv2.copyMakeBorder(text, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=ink)
        fits = text.shape[0] <= height and text.shape[1] <= width
        plates.append(np.asarray(plate, np.uint8) if fits else text[:0, :0])
    return plates


def _text(text: str, ground: Colour, ink: Colour, style: _Style) -> Picture:
    """Return a line of text as a picture of two capitals' height."""
    # OpenCV 5 has letters of most scripts, OpenCV 4 ASCII alone. A line feed or NUL would end the line.
    encoding = "utf-8" if hasattr(cv2, "FontFace") else "ascii"
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    drawable = printable.encode(encoding, "replace").decode(encoding)
    scale = style.capital / 21  # at scale 1 a capital of this font is 21 pixels high
    thickness = max(1, round(1.5 * scale))
    font, margin = cv2.FONT_HERSHEY_SIMPLEX, style.capital // 2
    (width, _), _ = cv2.getTextSize(drawable, font, scale, thickness)
    line = np.full((2 * style.capital, width + 2 * margin, 3), ground, np.uint8)
    cv2.putText(line, drawable, (margin, style.capital * 3 // 2), font, scale, ink, thickness, cv2.LINE_AA)
    return line


def _places_at_edges(box: Rectangles, plate: Picture, edge: int) -> NDArray[np.int64]:
    """Return where a label may begin (x, y), best first: above its box, inside, below."""
    height, width = plate.shape[:2]
    left, top, right, bottom = (int(side) for side in box + np.array([-1, -1, 1, 1]) * edge)
    above, below = top + edge - height, bottom - edge
    rows = [above] if above >= 0 else []
    rows += [top, below, bottom - height, top + height, top + 2 * height, top + 3 * height]
    return np.array([(column, row) for row in rows for column in (left, right - width)])


def _places_at_middle(box: Rectangles, plate: Picture, reach: int) -> NDArray[np.int64]:
    """Return where a label may begin (x, y), best first: on its diagonal, off its corners."""
    half = np.array([plate.shape[1], plate.shape[0]]) // 2
    start, span = box[:2] - half, box[2:] - box[:2]
    apart = span // 2 + half + reach
    on = [start + span * part // 12 for part in (6, 4, 8, 3, 9)]
    return np.array(on + [on[0] + apart * side for side in ((0, 1), (0, -1), (1, 0), (-1, 0))])


def _paste_apart(
    picture: Picture, plates: Sequence[Picture], places: Sequence[NDArray[np.int64]], taken: Rectangles
) -> None:
    """Paste each label where, of its places [M, 2], it hides least of ``taken`` and of better labels."""
    limit = np.array([picture.shape[1], picture.shape[0]])
    for plate, choices in zip(plates, places, strict=True):
        size = np.array([plate.shape[1], plate.shape[0]])
        start = np.clip(choices, 0, limit - size)
        overlap = np.minimum((start + size)[:, None], taken[:, 2:]) - np.maximum(start[:, None], taken[:, :2])
        best = start[np.argmin(np.maximum(overlap, 0).prod(axis=2).sum(axis=1))]
        taken = np.concatenate([taken, [[*best, *(best + size)]]])
    for plate, (left, top, right, bottom) in zip(plates[::-1], taken[::-1], strict=False):
        picture[top:bottom, left:right] = plate


def _glow(frame: Picture, tl_heat: NDArray[np.float32], br_heat: NDArray[np.float32]) -> Picture:
    """Return the frame, darker and nearly grey, under both heat maps."""
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    picture = np.asarray(cv2.addWeighted(frame, 0.15, grey, 0.37, 0), np.uint8)
    warm, cool = (np.clip(np.nan_to_num(heat), 0, 1) * _HEAT_OPACITY for heat in (tl_heat, br_heat))
    rest = (1 - warm) * (1 - cool)
    for channel in range(3):
        light = picture[..., channel] * rest + warm * _TOP_LEFT[channel] + cool * _BOTTOM_RIGHT[channel]
        picture[..., channel] = np.minimum(light, 255)
    return picture


def _legend(width: int, style: _Style) -> Picture:
    """Return a strip that explains the marks, in one row or, where that is too wide, in three."""
    style = replace(style, bracket=style.capital)
    height, length, gap = 2 * style.capital, 6 * style.capital, style.capital
    ground = np.full((height, length, 3), _LEGEND_GROUND, np.uint8)
    none = np.zeros((height, length), np.float32)
    ramp = none + np.linspace(0, 1, length, dtype=np.float32)
    warm, cool, pair = _glow(ground, ramp, none), _glow(ground, none, ramp), ground.copy()
    _draw_bracket(warm, (length // 2, height // 3), 1, _TOP_LEFT, style)
    _draw_bracket(cool, (length // 2, height - height // 3), -1, _BOTTOM_RIGHT, style)
    _draw_pair(pair, np.array([gap // 2, gap // 2, length - gap // 2, height - gap // 2]), _WHITE, style)
    entries = [
        np.concatenate([ground[:, :gap], swatch, _text(words, _LEGEND_GROUND, _WHITE, style)], axis=1)
        for words, swatch in (("top-left corner", warm), ("bottom-right corner", cool), ("pair", pair))
    ]
    row = np.concatenate(entries, axis=1)
    rows = [row] if row.shape[1] <= width else entries
    strip = np.full((len(rows) * (height + gap), width, 3), _LEGEND_GROUND, np.uint8)
    for index, row in enumerate(rows):
        top = index * (height + gap) + gap // 2
        strip[top : top + height, : row.shape[1]] = row[:, :width]
    return strip


def _ink_on(colour: Colour) -> Colour:
    """Return black or white, whichever stands out more: by 4.58:1 at the least, where both do alike."""
    level = np.array(colour) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return _BLACK if linear @ _LUMINANCE_WEIGHTS + 0.05 > math.sqrt(1.05 * 0.05) else _WHITE


def _class_colour(label: int) -> Colour:
    """Return the colour of a class: a listed one, then hues a golden angle apart, tinted or dimmed."""
    if label < len(_FIRST_COLOURS):
        blue, green, red = bytes.fromhex(_FIRST_COLOURS[label])[::-1]
        return blue, green, red
    hue = 6 * (0.09 + label * (math.sqrt(5) - 1) / 2)
    pure = np.clip(np.abs((hue + np.array([2, 4, 0])) % 6 - 3) - 1, 0, 1)
    luminance = float(pure @ _LUMINANCE_WEIGHTS)
    target = 0.41 + label % 4 * (0.05 + 0.13 * luminance)
    tinted = pure + (1 - pure) * (target - luminance) / (1 - luminance)
    linear = pure * target / luminance if luminance > target else tinted
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    blue, green, red = np.rint(255 * encoded).astype(int).tolist()
    return blue, green, red
