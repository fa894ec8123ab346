"""Scenes of shapes on disk, as a data set in COCO format."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
from rich.progress import Progress

from cornernet_runtime.cli.common import console_for_people
from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import new_folder, write_atomically
from cornernet_runtime.wording import count_of
from cornernet_train.shapes import CLASS_NAMES, Scene, make_scene

if TYPE_CHECKING:
    from pathlib import Path


def write_shapes(output: Path, images: int, seed: int) -> None:
    """Write ``output/annotations.json`` and ``output/images/*.png``; the same arguments give the same bytes.

    Args:
        output: A folder that does not exist yet or is empty.
        images: How many scenes.
        seed: Of the data set.

    Raises:
        OutputError: The folder exists or cannot be written. Nothing half-written stays.
    """
    if output.is_dir() and any(output.iterdir()):
        raise OutputError(f"{output} exists: choose another folder")
    console = console_for_people()
    with (
        new_folder(output, replace=False) as folder,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        (folder / "images").mkdir()
        content: dict[str, list[dict[str, Any]]] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": index + 1, "name": name} for index, name in enumerate(CLASS_NAMES)],
        }
        for index in progress.track(range(images), description="drawing scenes"):
            scene = make_scene(seed, index)
            name = f"{index:06d}.png"
            _, encoded = cv2.imencode(".png", scene.image)
            write_atomically(folder / "images" / name, encoded.tobytes())
            height, width = scene.image.shape[:2]
            content["images"].append({"id": index + 1, "file_name": name, "height": height, "width": width})
            content["annotations"].extend(_annotations(scene, index + 1, len(content["annotations"]) + 1))
        write_atomically(folder / "annotations.json", json.dumps(content, indent=1))
    extent = f"{count_of(images, 'picture')}, {count_of(len(content['annotations']), 'object')}"
    console.print(f"{output}: {extent}", soft_wrap=True, markup=False)


def _annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Return the scene's objects as COCO annotations: bbox is x, y, width, height in pixels."""
    rows = []
    for number, (box, label) in enumerate(zip(scene.boxes.tolist(), scene.labels.tolist(), strict=True)):
        left, top, right, bottom = box
        width, height = right - left, bottom - top
        rows.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": label + 1,
                "bbox": [left, top, width, height],
                "area": width * height,
                "iscrowd": 0,
            }
        )
    return rows
