"""Pictures for cornernet-detect, and what it wrote and said."""

from __future__ import annotations

import json

import cv2
import numpy as np


def noise(height=126, width=190, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    done, content = cv2.imencode(path.suffix or ".png", picture)
    assert done
    path.write_bytes(content.tobytes())
    return path


def rows_of(text):
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def errors_in(text):
    return [line for line in text.splitlines() if line.startswith("error: ")]
