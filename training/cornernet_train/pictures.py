"""Labelled pictures by index: endless scenes of shapes, and folders in COCO format."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cornernet_runtime.errors import FrameError
from cornernet_runtime.pictures import read_picture
from cornernet_train.shapes import CLASS_NAMES, Scene, make_scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pycocotools.coco import COCO

SHOWN = 3  # names in a message


class Pictures(Protocol):
    """Labelled pictures by index, the names of their classes, and what people should know about them."""

    class_names: tuple[str, ...]
    warnings: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Scene: ...

    def name(self, index: int) -> str:
        """Return what people call the picture."""
        ...


class ShapeScenes:
    """Freshly made scenes of shapes, never the same twice.

    Args:
        seed: Of the data set.
        count: Scenes in it.
    """

    class_names: tuple[str, ...] = CLASS_NAMES
    warnings: Sequence[str] = ()

    def __init__(self, seed: int, count: int) -> None:
        self._seed, self._count = seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Scene:
        return make_scene(self._seed, index)

    def name(self, index: int) -> str:
        """Return seed and number of the scene."""
        return f"scene {index} of seed {self._seed}"


class CocoPictures:
    """A folder in COCO format: ``annotations.json`` and ``images/``.

    Crowds are left out. So are boxes without area or wholly outside their picture, and pictures whose file is missing:
    ``warnings`` says which.

    Args:
        folder: The data set.

    Attributes:
        class_names: Names of the categories, by their ids.
        absent: Paths of the pictures that are missing.
        warnings: One line for each kind of defect.

    Raises:
        FrameError: The annotations are missing or broken, hold no picture, or name their categories badly.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "annotations.json"
        if not path.exists():
            raise FrameError(f"{path}: no such file; give a folder with annotations.json and images/, or 'shapes'")
        try:
            truth = _read(path)
            categories = sorted(truth.dataset["categories"], key=lambda category: category["id"])
            self.class_names = tuple(str(category["name"]) for category in categories)
            names = {image["id"]: folder / "images" / image["file_name"] for image in truth.dataset["images"]}
            objects, dropped = _objects(truth, {item["id"]: index for index, item in enumerate(categories)})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise FrameError(f"{path}: not COCO annotations ({type(error).__name__}: {error})") from error
        if not names:
            raise FrameError(f"{path}: lists no picture")
        if not self.class_names or not all(self.class_names) or len(set(self.class_names)) != len(categories):
            raise FrameError(f"{path}: expected categories with distinct names, got {list(self.class_names)}")
        self.absent = [str(name) for name in names.values() if not name.is_file()]
        if len(self.absent) == len(names):
            raise FrameError(f"{path}: none of its {len(names)} pictures is there, such as {self.absent[0]}")
        self._paths = [name for name in names.values() if name.is_file()]
        self._objects = [objects[key] for key, name in names.items() if name.is_file()]
        self.warnings: Sequence[str] = [
            f"{path}: {len(found)} {what}: {', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''}"
            for what, found in (("boxes left out, without area or outside", dropped), ("pictures missing", self.absent))
            if found
        ]
        if not any(self._objects):
            self.warnings = [*self.warnings, f"{path}: there is no object on any picture"]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Scene:
        boxes = np.array([box for box, _ in self._objects[index]], np.float32).reshape(-1, 4)
        labels = np.array([label for _, label in self._objects[index]], np.int64)
        return Scene(read_picture(self._paths[index]), boxes, labels)

    def name(self, index: int) -> str:
        """Return the path of the picture."""
        return str(self._paths[index])


def _read(path: Path) -> COCO:
    from pycocotools.coco import COCO  # noqa: PLC0415 - slow to import

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def _objects(truth: COCO, label: dict[int, int]) -> tuple[dict[int, list[tuple[list[float], int]]], list[str]]:
    """Return (x1 y1 x2 y2, label) of each object by picture, and which annotations hold no box within theirs.

    Raises:
        ValueError: An annotation names a picture or a category that is not there, or its box is not four numbers.
    """
    objects: dict[int, list[tuple[list[float], int]]] = {image["id"]: [] for image in truth.dataset["images"]}
    dropped = []
    for number, item in enumerate(truth.dataset["annotations"]):
        name = f"annotation {item.get('id', f'number {number}')}"
        if item["image_id"] not in objects:
            raise ValueError(f"{name} is of picture {item['image_id']}, which is not listed")
        if item["category_id"] not in label:
            raise ValueError(f"{name} is of category {item['category_id']}, which is not listed")
        if item.get("iscrowd", 0):
            continue
        try:
            left, top, width, height = map(float, item["bbox"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected a bbox of four numbers, got {item['bbox']}") from error
        if _has_pixels(left, top, width, height, truth.imgs[item["image_id"]]):
            corners = [left, top, left + width, top + height]
            objects[item["image_id"]].append((corners, label[item["category_id"]]))
        else:
            dropped.append(name)
    return objects, dropped


def _has_pixels(left: float, top: float, width: float, height: float, image: dict[str, Any]) -> bool:
    """Say whether a box has area within its picture, whose size the file may not say; NaN has none."""
    most_x, most_y = image.get("width", np.inf), image.get("height", np.inf)
    wide = min(left + width, most_x) - max(left, 0)
    high = min(top + height, most_y) - max(top, 0)
    return bool(width > 0 and height > 0 and np.isfinite([left, top, width, height]).all() and min(wide, high) > 0)
