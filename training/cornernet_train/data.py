"""Pictures with boxes to batches of network input and targets, placed in the input as the runtime places them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cornernet_export.targets import Targets, encode_boxes
from cornernet_runtime.errors import FrameError
from cornernet_runtime.processing.geometry import fit
from cornernet_runtime.processing.preprocess import Preprocessor, check_frame
from cornernet_train.augment import augment
from cornernet_train.losses import TargetBatch
from cornernet_train.recipe import Augmentation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import ModelSpec
    from cornernet_train.pictures import Pictures
    from cornernet_train.recipe import Recipe
    from cornernet_train.shapes import Scene

AS_THEY_ARE = Augmentation()


class Example(NamedTuple):
    """One training example: float32 [3, H, W], what the maps should hold, and the name of the picture."""

    image: NDArray[np.float32]
    targets: Targets
    name: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a picture that could not be read, or for a batch of such; ``unreadable`` says why of each."""

    unreadable: tuple[str, ...]


class Batch(NamedTuple):
    """A batch, and what people should know about it.

    Attributes:
        images: float32 [N, 3, H, W].
        targets: What the maps should hold.
        names: Of the N pictures.
        unreadable: Why each picture is missing that should have been here.
    """

    images: torch.Tensor
    targets: TargetBatch
    names: tuple[str, ...]
    unreadable: tuple[str, ...]


class Examples(Dataset["Example | Unreadable"]):
    """The endless row of examples that training sees; each is a function of its position, the seed and the pictures.

    All pictures come once, in an order that the seed gives, then all again in another order. Nothing has to be
    remembered to go on from any position, and workers need to agree on nothing.

    Args:
        pictures: Where they come from.
        spec: Of the model that is trained.
        seed: Of order and augmentation.
        augmentation: How pictures are varied.
    """

    def __init__(
        self, pictures: Pictures, spec: ModelSpec, seed: int = 0, augmentation: Augmentation = AS_THEY_ARE
    ) -> None:
        self._pictures, self._spec, self._seed, self._augmentation = pictures, spec, seed, augmentation
        self._preprocess = Preprocessor(spec.normalisation)
        pad, order = spec.normalisation.pad, spec.normalisation.channel_order
        self._pad = pad if order == "bgr" else pad[::-1]  # scenes are BGR
        self._round = -1
        self._order = np.arange(0)

    def __getitem__(self, position: int) -> Example | Unreadable:
        index = self.index(position)
        try:
            scene = self._pictures[index]
        except FrameError as error:
            return Unreadable((str(error),))
        rng = np.random.default_rng([self._seed, position])
        scene = augment(scene, self._augmentation, rng, self._spec.input_size, self._pad)
        return self.example(scene, self._pictures.name(index))

    def index(self, position: int) -> int:
        """Return which picture stands at a position."""
        number, place = divmod(position, len(self._pictures))
        if number != self._round:
            self._order = np.random.default_rng([self._seed, number]).permutation(len(self._pictures))
            self._round = number
        return int(self._order[place])

    def example(self, scene: Scene, name: str = "") -> Example:
        """Return a scene as network input and targets; what lies beyond the picture is cut off."""
        spec = self._spec
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
        return Example(image, targets, name)


def batches(
    recipe: Recipe, pictures: Pictures, spec: ModelSpec, done: int = 0, workers: int = 1
) -> DataLoader[Batch | Unreadable]:
    """Return the batches of the steps that are left after ``done``, made by ``workers`` other processes."""
    # With one thread OpenCV ends the pool that it may have begun. A worker, being a fork, would wait for it forever,
    # and more threads would only take the cores that training computes on.
    cv2.setNumThreads(1)
    examples = Examples(pictures, spec, recipe.seed, recipe.augmentation)
    # A loader is typed by what its data set holds; what it yields is what ``collate`` makes of it.
    return DataLoader(
        cast("Any", examples),
        recipe.batch,
        sampler=range(done * recipe.batch, recipe.steps * recipe.batch),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        collate_fn=cast("Any", collate),
        generator=torch.Generator().manual_seed(recipe.seed),  # else it draws from the global one
    )


def collate(items: Sequence[Example | Unreadable]) -> Batch | Unreadable:
    """Stack the examples; objects are padded to the most that one has. Without any example there is no batch."""
    examples = [item for item in items if isinstance(item, Example)]
    unreadable = tuple(reason for item in items if isinstance(item, Unreadable) for reason in item.unreadable)
    if not examples:
        return Unreadable(unreadable)
    targets = [example.targets for example in examples]
    most = max(1, *(len(item.labels) for item in targets))

    def padded(name: str) -> torch.Tensor:
        rows = [getattr(item, name) for item in targets]
        batch = np.zeros((len(rows), most, *rows[0].shape[1:]), rows[0].dtype)
        for slot, row in zip(batch, rows, strict=True):
            slot[: len(row)] = row
        return torch.from_numpy(batch)

    counts = np.array([len(item.labels) for item in targets])
    batch = TargetBatch(
        tl_heat=torch.from_numpy(np.stack([item.tl_heat for item in targets])),
        br_heat=torch.from_numpy(np.stack([item.br_heat for item in targets])),
        tl_cells=padded("tl_cells"),
        br_cells=padded("br_cells"),
        tl_offsets=padded("tl_offsets"),
        br_offsets=padded("br_offsets"),
        labels=padded("labels"),
        present=torch.from_numpy(np.arange(most) < counts[:, None]),
    )
    images = torch.from_numpy(np.stack([example.image for example in examples]))
    return Batch(images, batch, tuple(example.name for example in examples), unreadable)
