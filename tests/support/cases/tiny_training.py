"""A training of seconds: pictures that are easy to learn and a recipe of few steps. Also run by tests as a program."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from cornernet_train.loop import FitRequest, fit
from cornernet_train.recipe import Recipe
from cornernet_train.shapes import Scene

TINY = Recipe(
    arch="cornernet-tiny", input_size=(63, 63), steps=15, batch=2, learning_rate=2.5e-3, ema_decay=0.0, save_every=500
)


class Rectangles:
    """Pictures of the input's size with one bright rectangle each; fast to make, and easy to learn."""

    class_names = ("wide", "tall")
    identity = "rectangles"
    warnings = ()

    def __init__(self, count=2):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        # Four pixels are a cell.
        box = [8 + 4 * index, 20, 56, 40] if index % 2 == 0 else [20, 6 + 4 * index, 44, 58]
        image = np.full((63, 63, 3), 40, np.uint8)
        image[box[1] : box[3], box[0] : box[2]] = 220
        return Scene(image, np.array([box], np.float32), np.array([index % 2], np.int64))

    def name(self, index):
        return f"rectangle {index}"


class Hooked:
    """Pictures that call a function when the first picture of a step is asked for; for trainings with ``workers=0``.

    All of the step before has been done and saved then.

    Args:
        pictures: To give.
        hooks: What to call, by the number of the step in this run.
        batch: How many pictures a step has.
    """

    def __init__(self, pictures, hooks, batch=TINY.batch):
        self._pictures, self._hooks, self._batch, self._asked = pictures, hooks, batch, 0

    def __getattr__(self, name):
        return getattr(self._pictures, name)

    def __len__(self):
        return len(self._pictures)

    def __getitem__(self, index):
        step, place = divmod(self._asked, self._batch)
        self._asked += 1
        if place == 0 and step + 1 in self._hooks:
            self._hooks[step + 1]()
        return self._pictures[index]


class Stop(Exception):  # noqa: N818 - it is no error
    """Stands for whatever ends a program."""


def stop():
    raise Stop


def coco_folder(folder, pictures=3, broken=()):
    """Write a set of rectangles; those in ``broken`` are no pictures."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for index in range(pictures):
        scene = Rectangles()[index]
        content = b"no picture" if index in broken else cv2.imencode(".png", scene.image)[1].tobytes()
        (folder / "images" / f"{index}.png").write_bytes(content)
        images.append({"id": index, "file_name": f"{index}.png", "width": 63, "height": 63})
        x1, y1, x2, y2 = scene.boxes[0].tolist()
        annotations.append(
            {"id": index + 1, "image_id": index, "category_id": 5 + 4 * (index % 2), "bbox": [x1, y1, x2 - x1, y2 - y1]}
        )
    categories = [{"id": 5, "name": "wide"}, {"id": 9, "name": "tall"}]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def killable(output, *, resume):
    """Train for twelve steps, each of which is saved; fast enough to be killed and begun again often."""
    torch.set_num_threads(1)
    recipe = replace(TINY, steps=12, save_every=1, ema_decay=0.9)
    return fit(FitRequest(recipe, Path(output), resume=resume), Rectangles())


if __name__ == "__main__":
    killable(sys.argv[1], resume=(Path(sys.argv[1]) / "state.pt").exists())
