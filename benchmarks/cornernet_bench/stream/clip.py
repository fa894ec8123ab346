"""Clips to measure streams on: drawn ones, and the first frames of a given one."""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_export.verification.verify import sample_picture
from cornernet_runtime.detections import Detections
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.frame import VideoFrame
from cornernet_runtime.video.stream import FrameResult
from cornernet_runtime.video.writer import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import Size

RATE = 25  # frames a second, of drawn clips
TICK = Fraction(1, RATE)
_NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), ())


def passing(scene: NDArray[np.uint8], count: int, size: Size) -> Iterator[NDArray[np.uint8]]:
    """Yield ``count`` frames uint8 [H, W, 3] of a size, in which a scene passes by, some pixels a frame."""
    height, width = size
    large = np.asarray(cv2.resize(scene, (2 * width, 2 * height), interpolation=cv2.INTER_AREA), np.uint8)
    for index in range(count):
        yield np.roll(large, (-2 * index, -5 * index), (0, 1))[:height, :width].copy()


def draw_clip(path: Path, count: int, size: Size) -> Path:
    """Encode a clip of shapes that pass by, as ``VideoWriter`` does, and return its path.

    Raises:
        OutputError: It cannot be written.
        VideoError: PyAV is not installed.
    """
    writer = VideoWriter(path)
    try:
        for index, image in enumerate(passing(sample_picture(), count, size)):
            frame = VideoFrame(image, index, index, TICK, "drawn")
            writer.write(FrameResult(frame, _NOTHING, 0.0, 0.0))
    except BaseException:
        writer.abort()
        raise
    writer.close()
    return path


class FirstFrames:
    """The first frames of a video file, as a source.

    Args:
        path: Of the file.
        count: Frames, or all where it has fewer.

    Raises:
        VideoError: As ``VideoFile``.
    """

    live = False

    def __init__(self, path: Path, count: int) -> None:
        self._file, self._count = VideoFile(path), count
        self.name, self.problems = self._file.name, self._file.problems

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames; raise VideoError if there is none."""
        return islice(self._file, self._count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Repeated:
    """The frames of a video file again and again, opened anew each time, as one long source.

    Args:
        path: Of the file, of a constant rate.
        count: Frames in all.
    """

    live = False

    def __init__(self, path: Path, count: int) -> None:
        self.name, self.problems = str(path), list[str]()
        self._path, self._count = path, count
        self._file: VideoFile | None = None

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames, with times that go on from one round to the next."""
        index = 0
        while index < self._count:
            self._file = VideoFile(self._path)
            for frame in islice(self._file, self._count - index):
                yield VideoFrame(frame.image, index, index, TICK, self.name)
                index += 1
            self.close()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def first_frames(path: Path, count: int) -> list[VideoFrame]:
    """Return the first frames of a file; raise VideoError if there is none, or it cannot be opened."""
    source = FirstFrames(path, count)
    try:
        return list(source)
    finally:
        source.close()
