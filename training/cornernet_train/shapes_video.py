"""A video of shapes that move over a background, with the exact box of each in every frame."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import Progress

from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.detections import Detections
from cornernet_runtime.video.frame import VideoFrame
from cornernet_runtime.video.stream import FrameResult
from cornernet_runtime.video.writer import VideoWriter
from cornernet_runtime.wording import count_of
from cornernet_train.shapes import (
    CLASS_NAMES,
    Outline,
    Paint,
    Scene,
    extent_of,
    make_ground,
    make_outline,
    rasterise,
    rotation,
    to_size,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.random import Generator
    from numpy.typing import NDArray

RATE = 25  # frames a second
FRAME = (360, 640)  # rows, columns
OBJECTS = 6
SIZES = (50.0, 110.0)  # pixels, as in shapes
PERIODS = (6.0, 14.0)  # seconds from one side of the picture to the other and back
SPIN = 0.8  # radians a second, at most


@dataclass(frozen=True, slots=True)
class _Mover:
    """A shape on its way: it swings between the borders, in each axis at a pace of its own, and turns.

    Attributes:
        label: Index into CLASS_NAMES.
        contours: Around (0, 0), pixels.
        paint: Of the shape at its first angle.
        rates: [2], x y, swings a second.
        phases: [2], swings before the first frame.
        spin: Radians a second.
    """

    label: int
    contours: Outline
    paint: Paint
    rates: NDArray[np.float64]
    phases: NDArray[np.float64]
    spin: float

    def contours_at(self, seconds: float) -> Outline:
        """Return where the contours lie in a frame, wholly within it."""
        reach = 1 + max(float(np.hypot(*contour.T).max()) for contour in self.contours)
        middle = np.array(FRAME[::-1]) / 2
        place = middle + (middle - reach) * np.sin(2 * math.pi * (self.rates * seconds + self.phases))
        return [contour @ rotation(self.spin * seconds) + place for contour in self.contours]


def moving_shapes(seed: int, count: int) -> Iterator[Scene]:
    """Yield ``count`` frames of shapes that move; the same numbers give the same bytes.

    A later object hides an earlier one where they meet. Boxes are around whole objects, also where one is hidden.
    """
    rng = np.random.default_rng([seed, RATE])
    ground = np.clip(make_ground(rng, *FRAME), 0, 255)
    movers = [_make_mover(rng, index % len(CLASS_NAMES), ground) for index in range(OBJECTS)]
    for index in range(count):
        canvas, boxes = ground.copy(), []
        for mover in movers:
            contours = mover.contours_at(index / RATE)
            window, coverage = rasterise(contours, *FRAME)
            turned = replace(mover.paint, angle=mover.paint.angle + mover.spin * index / RATE)
            turned.cover(canvas[window], coverage)
            boxes.append(extent_of(contours, *FRAME))
        labels = np.array([mover.label for mover in movers], np.int64)
        yield Scene(canvas.astype(np.uint8), np.array(boxes, np.float32), labels)


def write_shapes_video(path: Path, seconds: int, seed: int) -> None:
    """Write a video of moving shapes; it needs PyAV.

    Args:
        path: Of the file, ``.mp4``.
        seconds: How long it is to last.
        seed: Of the shapes.

    Raises:
        VideoError: PyAV is not installed.
        OutputError: The name is another, or the file cannot be written.
    """
    writer = VideoWriter(path)
    nothing = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), CLASS_NAMES)
    console, count = console_for_people(), seconds * RATE
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        frames = progress.track(moving_shapes(seed, count), total=count, description="drawing frames")
        try:
            for index, scene in enumerate(frames):
                frame = VideoFrame(scene.image, index, index, Fraction(1, RATE), str(path))
                writer.write(FrameResult(frame, nothing, 0.0, 0.0))
        except BaseException:
            writer.abort()
            raise
    writer.close()
    console.print(f"{path}: {count_of(count, 'frame')} of {OBJECTS} shapes", soft_wrap=True, markup=False)


def _make_mover(rng: Generator, label: int, ground: NDArray[np.float32]) -> _Mover:
    size = math.exp(rng.uniform(*np.log(SIZES)))
    contours = to_size(make_outline(rng, CLASS_NAMES[label]), size)
    return _Mover(
        label,
        contours,
        Paint.chosen(rng, ground.mean((0, 1))),
        rates=1 / rng.uniform(*PERIODS, 2),
        phases=rng.uniform(0, 1, 2),
        spin=rng.uniform(-SPIN, SPIN),
    )
