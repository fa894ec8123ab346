"""Labelled pictures by index: endless scenes of shapes, and folders in COCO format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cornernet_bench.coco.dataset import has_pixels, read_coco, some
from cornernet_runtime.errors import FrameError
from cornernet_runtime.files import sha256
from cornernet_runtime.pictures import read_picture
from cornernet_runtime.wording import count_of
from cornernet_train.shapes import CLASS_NAMES, Scene, make_scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cornernet_bench.coco.dataset import CocoSet


class Pictures(Protocol):
    """Labelled pictures by index, the names of their classes, and what people should know about them."""

    class_names: tuple[str, ...]
    warnings: Sequence[str]

    @property
    def identity(self) -> str:
        """What tells these pictures and labels from all others."""
        ...

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

    @property
    def identity(self) -> str:
        """Seed and number of the scenes."""
        return f"{self._count} scenes of seed {self._seed}"

    def name(self, index: int) -> str:
        """Return seed and number of the scene."""
        return f"scene {index} of seed {self._seed}"


class CocoPictures:
    """A data set in COCO format.

    Crowds are left out. So are boxes without area or wholly outside their picture, and pictures whose file is missing:
    ``warnings`` says which.

    Args:
        annotations: A folder with ``annotations.json`` and ``images/``, or an instances file.
        images: Folder of the file's pictures; None takes ``images`` beside it.

    Attributes:
        class_names: Names of the categories, by their ids.
        absent: Paths of the pictures that are missing.
        objects: How many are left.
        identity: SHA-256 of the annotations.
        warnings: One line for each kind of defect.

    Raises:
        FrameError: The annotations are missing or broken, hold no picture, or name their categories badly.
    """

    def __init__(self, annotations: Path, images: Path | None = None) -> None:
        path, images = coco_paths(annotations, images)
        data = read_coco(path, images)
        self.class_names = tuple(data.categories)
        if not self.class_names:
            raise FrameError(f"{path}: expected categories with names, got none")
        self.absent = [str(name) for name in data.absent]
        if len(self.absent) == len(data.paths):
            raise FrameError(
                f"{path}: none of its {len(self.absent)} pictures is there, such as {self.absent[0]}; "
                "--images names their folder"
            )
        missing = set(data.absent)
        found = {key: name for key, name in data.paths.items() if name not in missing}
        objects = _objects(data)
        self._paths = list(found.values())
        self._objects = [objects[key] for key in found]
        self.identity = sha256(path)
        self.objects = sum(map(len, self._objects))
        notes = [*data.notes]
        if missing:
            notes.append(f"{count_of(len(missing), 'picture')} missing: {some(self.absent)}")
        self.warnings: Sequence[str] = [f"{path}: {note}" for note in notes]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Scene:
        boxes = np.array([box for box, _ in self._objects[index]], np.float32).reshape(-1, 4)
        labels = np.array([label for _, label in self._objects[index]], np.int64)
        return Scene(read_picture(self._paths[index]), boxes, labels)

    def name(self, index: int) -> str:
        """Return the path of the picture."""
        return str(self._paths[index])


def coco_paths(annotations: Path, images: Path | None = None) -> tuple[Path, Path]:
    """Return the annotations file and the folder of pictures that a user means."""
    if annotations.is_dir() or not annotations.suffix:
        annotations, folder = annotations / "annotations.json", annotations
    else:
        folder = annotations.parent
    if not annotations.exists():
        raise FrameError(
            f"{annotations}: no such file; give a folder with annotations.json and images/, a COCO instances file "
            "with --images, or 'shapes'"
        )
    return annotations, images or folder / "images"


def _objects(data: CocoSet) -> dict[Any, list[tuple[list[float], int]]]:
    """Return (x1 y1 x2 y2, label) of each object by picture."""
    label = {key: index for index, key in enumerate(data.categories.values())}
    objects: dict[Any, list[tuple[list[float], int]]] = {key: [] for key in data.paths}
    for item in data.truth.dataset["annotations"]:
        if not item["iscrowd"] and has_pixels(item["bbox"], data.truth.imgs[item["image_id"]]):
            left, top, width, height = item["bbox"]
            corners = [left, top, left + width, top + height]
            objects[item["image_id"]].append((corners, label[item["category_id"]]))
    return objects
