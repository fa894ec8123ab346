"""Pictures with boxes to batches of network input and targets, placed in the input as the runtime places them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from cornernet_export.targets import Targets, encode_boxes
from cornernet_runtime.errors import FrameError
from cornernet_runtime.geometry import fit
from cornernet_runtime.pictures import read_picture
from cornernet_runtime.preprocess import Preprocessor, check_frame
from cornernet_train.losses import TargetBatch
from cornernet_train.shapes import CLASS_NAMES, Scene, make_scene

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cornernet_runtime.spec import ModelSpec


class Pictures(Protocol):
    """Labelled pictures by index, and the names of their classes."""

    class_names: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Scene: ...


class ShapeScenes:
    """Freshly made scenes of shapes, never the same twice.

    Args:
        seed: Of the data set.
        count: Scenes in it.
    """

    class_names: tuple[str, ...] = CLASS_NAMES

    def __init__(self, seed: int, count: int) -> None:
        self._seed, self._count = seed, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Scene:
        return make_scene(self._seed, index)


class CocoPictures:
    """A folder in COCO format: ``annotations.json`` and ``images/``.

    Args:
        folder: The data set.

    Raises:
        FrameError: The annotations are missing, broken, hold no picture, or name their categories badly.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "annotations.json"
        if not path.exists():
            raise FrameError(f"{path}: no such file; give a folder with annotations.json and images/, or 'shapes'")
        try:
            content = json.loads(path.read_text())
            categories = sorted(content["categories"], key=lambda category: category["id"])
            self.class_names = tuple(str(category["name"]) for category in categories)
            self._images = [(image["id"], folder / "images" / image["file_name"]) for image in content["images"]]
            self._objects: dict[int, list[tuple[list[float], int]]] = {key: [] for key, _ in self._images}
            label = {category["id"]: index for index, category in enumerate(categories)}
            for item in content["annotations"]:
                if not item.get("iscrowd", 0):
                    left, top, width, height = map(float, item["bbox"])
                    corners = [left, top, left + width, top + height]
                    self._objects[item["image_id"]].append((corners, label[item["category_id"]]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FrameError(f"{path}: not COCO annotations ({type(error).__name__}: {error})") from error
        if not self._images:
            raise FrameError(f"{path}: lists no picture")
        if not self.class_names or not all(self.class_names) or len(set(self.class_names)) != len(categories):
            raise FrameError(f"{path}: expected categories with distinct names, got {list(self.class_names)}")

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Scene:
        key, path = self._images[index]
        image = read_picture(path)
        boxes = np.array([box for box, _ in self._objects[key]], np.float32).reshape(-1, 4)
        labels = np.array([label for _, label in self._objects[key]], np.int64)
        return Scene(image, boxes, labels)


class Example(NamedTuple):
    """One training example: float32 [3, H, W] and what the maps should hold."""

    image: NDArray[np.float32]
    targets: Targets


class Examples(Dataset[Example]):
    """Pictures as examples for a model.

    Args:
        pictures: Where they come from.
        spec: Of the model that is trained.
    """

    def __init__(self, pictures: Pictures, spec: ModelSpec) -> None:
        self._pictures, self._spec = pictures, spec
        self._preprocess = Preprocessor(spec.normalisation)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> Example:
        scene, spec = self._pictures[index], self._spec
        image = np.empty((3, *spec.input_size), np.float32)
        height, width = scene.image.shape[:2]
        placement = fit((height, width), spec.input_size)
        self._preprocess(check_frame(scene.image), placement, image)
        boxes = np.clip(scene.boxes, 0, [width, height, width, height])
        real = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        targets = encode_boxes(
            placement.to_input(boxes[real]),
            scene.labels[real],
            classes=len(spec.class_names),
            map_size=spec.map_size,
            input_size=spec.input_size,
        )
        return Example(image, targets)


def collate(examples: Sequence[Example]) -> tuple[torch.Tensor, TargetBatch]:
    """Stack examples; objects are padded to the most that one has."""
    targets = [example.targets for example in examples]
    most = max(1, *(len(item.labels) for item in targets))

    def padded(name: str) -> torch.Tensor:
        rows = [getattr(item, name) for item in targets]
        batch = np.zeros((len(rows), most, *rows[0].shape[1:]), rows[0].dtype)
        for slot, row in zip(batch, rows, strict=True):
            slot[: len(row)] = row
        return torch.from_numpy(batch)

    counts = np.array([len(item.labels) for item in targets])
    return torch.from_numpy(np.stack([example.image for example in examples])), TargetBatch(
        tl_heat=torch.from_numpy(np.stack([item.tl_heat for item in targets])),
        br_heat=torch.from_numpy(np.stack([item.br_heat for item in targets])),
        tl_cells=padded("tl_cells"),
        br_cells=padded("br_cells"),
        tl_offsets=padded("tl_offsets"),
        br_offsets=padded("br_offsets"),
        present=torch.from_numpy(np.arange(most) < counts[:, None]),
    )
