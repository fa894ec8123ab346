"""Small data sets whose answers are arithmetic, and networks that say what they are told."""

from __future__ import annotations

import json

import cv2
import numpy as np

from cornernet_bench.oracle.maps import true_maps
from cornernet_runtime.bundle.spec import ModelSpec
from cornernet_runtime.detector import Detector
from cornernet_runtime.processing.geometry import place
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

SIDE, CELLS = 255, 64
CELL = SIDE / CELLS  # pixels
NAMES = ("ant", "bee")
SPEC = ModelSpec("told", NAMES, 4, 32, (SIDE, SIDE), (SIDE, SIDE))
GROUND = -12.0  # of an ideal heat map


def write_set(folder, truth, frames=None, **more):
    """Write grey pictures of SIDE pixels, each of its number's level, with objects (box in cells, label)."""
    (folder / "images").mkdir(parents=True)
    content = {"images": [], "annotations": [], "categories": [{"id": 7, "name": "ant"}, {"id": 3, "name": "bee"}]}
    for number, objects in truth.items():
        frame = np.full((SIDE, SIDE, 3), number, np.uint8) if frames is None else frames[number]
        cv2.imwrite(str(folder / "images" / f"{number}.png"), frame)
        height, width = frame.shape[:2]
        content["images"].append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for box, label in objects:
            x1, y1, x2, y2 = (side * CELL for side in box)
            row = {"image_id": number, "category_id": (7, 3)[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            content["annotations"].append(row | more)
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder / "annotations.json", folder / "images"


class ToldBackend:
    """Gives the maps that belong to a picture, which it tells by its grey level."""

    name = "told"
    max_batch = 1

    def __init__(self, maps):
        self.maps, self.calls = maps, 0

    def __call__(self, images):
        self.calls += 1
        normalisation = SPEC.normalisation
        level = images[0, 0, SIDE // 2, SIDE // 2] * normalisation.std[0] + normalisation.mean[0]
        maps = self.maps[round(255 * float(level))]
        return CornerMaps(*(np.ascontiguousarray(getattr(maps, name)[None], np.float32) for name in OUTPUT_NAMES))

    def close(self):
        self.maps = {}


def told(maps):
    return Detector(ToldBackend(maps), SPEC)


def ideal(objects):
    """Return the true maps of a picture without a NaN, as a perfect network would say them."""
    boxes = np.array([box for box, _ in objects], np.float64).reshape(-1, 4) * CELL
    labels = np.array([label for _, label in objects], np.int64)
    view = place((SIDE, SIDE), SPEC)[0]
    maps = true_maps(boxes, labels, view, classes=len(NAMES), stride=SPEC.stride).maps
    return CornerMaps(*(np.nan_to_num(getattr(maps, name)) for name in OUTPUT_NAMES))


def ignorance():
    """Return the maps of a network that knows nothing."""
    heat, one, two = (np.zeros((channels, CELLS, CELLS), np.float32) for channels in (len(NAMES), 1, 2))
    return CornerMaps(heat + GROUND, heat + GROUND, one, one, two, two)
