"""Frames that models are measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_export.verification.verify import read_some, sample_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cornernet_bench.models.runs import Frame
    from cornernet_runtime.bundle.spec import Size

DRAWN_FRAMES = 8


def load_frames(images: Path | None, frame_size: Size) -> list[Frame]:
    """Return the frames to measure on.

    Args:
        images: Folder of pictures; None takes parts of a drawn one.
        frame_size: Height and width of these parts.

    Raises:
        FrameError: The folder has no picture, or one cannot be read.
    """
    if images is not None:
        return read_some([str(images)])
    rng, picture = np.random.default_rng(0), sample_picture()
    height, width = picture.shape[:2]
    frames = []
    for _ in range(DRAWN_FRAMES):
        share = rng.uniform(0.6, 1)
        rows, columns = int(height * share), int(width * share)
        top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
        part = picture[top : top + rows, left : left + columns]
        frames.append(np.asarray(cv2.resize(part, frame_size[::-1]), np.uint8))
    return frames


def frames_of(number: int, batch: int, frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames of call ``number``: the next ones, from the beginning again after the last."""
    return [frames[(number * batch + index) % len(frames)] for index in range(batch)]
