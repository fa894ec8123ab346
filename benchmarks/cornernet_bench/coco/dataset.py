"""Data sets in COCO format, read and checked once for training and for measuring."""

from __future__ import annotations

import contextlib
import io
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import FrameError
from cornernet_runtime.pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pycocotools.coco import COCO

SHOWN = 3  # names in a message
MOST_PIXELS = 2**31  # of a side
SAMPLED = 16  # pictures whose size is compared with the one listed


@dataclass(frozen=True, slots=True)
class CocoSet:
    """A data set that was read and checked.

    Attributes:
        truth: For pycocotools. Each annotation has a ``bbox`` of four floats, ``area`` and ``iscrowd``, and its number
            in the file, from 1, as ``id``: pycocotools takes an id of 0 for no object, and one of two equal ids away.
        paths: Where each picture lies, by its id, in the order of the file.
        absent: Those that are not there.
        notes: What looks wrong, one line for people each, without the name of the file.
    """

    truth: COCO
    paths: dict[Any, Path]
    absent: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def categories(self) -> dict[str, Any]:
        """Ids of the categories by their names, in the order of the ids."""
        return {row["name"]: row["id"] for row in sorted(self.truth.dataset["categories"], key=lambda row: row["id"])}


def read_coco(annotations: Path, images: Path) -> CocoSet:
    """Read a COCO instances file.

    Args:
        annotations: The file.
        images: Folder of its pictures; none of them need be there.

    Raises:
        FrameError: It cannot be read, lists no picture, or a row of it does not hold; the message names the row.
    """
    try:
        data = json.loads(annotations.read_text(encoding="utf-8-sig"))
    except (OSError, RecursionError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise FrameError(f"{annotations}: cannot be read as COCO annotations ({reason})") from error
    try:
        pictures, categories = _rows(data, "images", "file_name"), _rows(data, "categories", "name")
        objects = data["annotations"] = [dict(row) for row in _rows(data, "annotations")]
        for number, row in enumerate(objects, 1):
            _check_object(row, number, pictures, categories)
    except ValueError as error:
        raise FrameError(f"{annotations}: {error}") from error
    if not pictures:
        raise FrameError(f"{annotations}: lists no picture")
    paths = {key: images / row["file_name"] for key, row in pictures.items()}
    absent = tuple(path for path in paths.values() if not path.is_file())
    notes = [*_odd_boxes(objects, pictures), *_odd_sizes(paths, pictures)]
    if all(row["iscrowd"] for row in objects):
        notes.append("there is no object on any picture")
    return CocoSet(_indexed(data), paths, absent, tuple(notes))


def category_ids_of(data: CocoSet, class_names: Sequence[str], annotations: Path, images: Path) -> list[Any]:
    """Return the id of each class of the model; raise FrameError where a class or a picture is missing."""
    if data.absent:
        raise FrameError(
            f"{images}: {len(data.absent)} of the {len(data.paths)} pictures of {annotations.name} are not there: "
            f"{some([path.name for path in data.absent])}"
        )
    if unknown := [name for name in class_names if name not in data.categories]:
        raise FrameError(f"{annotations}: no category is named {', '.join(unknown)}; it has {list(data.categories)}")
    return [data.categories[name] for name in class_names]


def spread(items: Sequence[Any], most: int | None) -> Sequence[Any]:
    """Return at most so many items from all over a sequence; None returns all."""
    return items if most is None or len(items) <= most else items[:: -(-len(items) // most)]


def has_pixels(box: list[float], picture: dict[str, Any]) -> bool:
    """Say whether a box, left top width height, has area within its picture, whose size the file may not say."""
    left, top, width, height = box
    most_x, most_y = _extent(picture)
    wide = min(left + width, most_x) - max(left, 0)
    high = min(top + height, most_y) - max(top, 0)
    return width > 0 and height > 0 and wide > 0 and high > 0  # NaN is none of it


def _extent(picture: dict[str, Any]) -> tuple[float, float]:
    """Return width and height as listed; infinity where they are not."""
    return picture.get("width") or math.inf, picture.get("height") or math.inf


def some(names: list[str]) -> str:
    """Return the first names, for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _rows(data: Any, section: str, field: str | None = None) -> Any:  # noqa: ANN401 - JSON
    """Return the rows of a section; by their ids if ``field``, a text that each must have, is given."""
    rows = data.get(section) if isinstance(data, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"not COCO annotations: expected a list of objects under {section!r}")
    if field is None:
        return rows
    by_id: dict[Any, dict[str, Any]] = {}
    for number, row in enumerate(rows, 1):
        name = f"number {number} of {section}"
        if not isinstance(row.get("id"), int | str) or not isinstance(row.get(field), str) or not row[field]:
            raise ValueError(f"{name}: expected an id and a {field}, got {row.get('id')!r} and {row.get(field)!r}")
        if row["id"] in by_id:
            raise ValueError(f"{name}: id {row['id']!r} is that of {by_id[row['id']][field]} already")
        by_id[row["id"]] = row
        for side in ("width", "height") if section == "images" else ():
            if not isinstance(size := row.get(side) or 0, int | float) or not 0 <= size < MOST_PIXELS:
                raise ValueError(f"{name}: expected a {side} in pixels, got {size!r}")
    if len({isinstance(key, str) for key in by_id}) > 1:
        raise ValueError(f"{section}: expected ids of one kind, got numbers and texts")
    names = [row["name"] for row in rows] if section == "categories" else []
    if len(set(names)) < len(names):
        raise ValueError(f"expected categories with distinct names, got {names}")
    return by_id


def _check_object(row: dict[str, Any], number: int, pictures: dict[Any, Any], categories: dict[Any, Any]) -> None:
    """Bring an annotation into the form that ``CocoSet`` promises."""
    row["name"] = name = f"annotation {row.get('id', f'number {number}')}"
    row["id"] = number
    for field, known in (("image_id", pictures), ("category_id", categories)):
        try:
            listed = row.get(field) in known
        except TypeError:  # not hashable
            listed = False
        if not listed:
            kind = "picture" if field == "image_id" else "category"
            raise ValueError(f"{name} is of {kind} {row.get(field)!r}, which is not listed")
    if "bbox" not in row:
        raise ValueError(f"{name} has no bbox: boxes are needed, outlines are not used")
    try:
        given = row["bbox"] if isinstance(row["bbox"], list) else []
        _left, _top, width, height = row["bbox"] = [float(value) for value in given]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: expected a bbox of four numbers, got {row['bbox']!r}") from error
    if not isinstance(row.get("area"), int | float):
        row["area"] = width * height
    row["iscrowd"] = int(bool(row.get("iscrowd")))


def _odd_boxes(objects: list[dict[str, Any]], pictures: dict[Any, dict[str, Any]]) -> list[str]:
    """Return notes on boxes that are probably not meant so."""

    def tiny(row: dict[str, Any]) -> bool:
        return bool(0 < row["bbox"][2] < 1 and 0 < row["bbox"][3] < 1)

    def beyond(row: dict[str, Any]) -> bool:
        most_x, most_y = _extent(pictures[row["image_id"]])
        left, top, width, height = row["bbox"]
        return bool(max(left + width - most_x, top + height - most_y, -left, -top) > 1)

    seen: set[tuple[Any, ...]] = set()

    def repeated(row: dict[str, Any]) -> bool:
        key = row["image_id"], row["category_id"], *row["bbox"]
        known = key in seen
        seen.add(key)
        return known

    kinds: dict[str, Callable[[dict[str, Any]], bool]] = {
        "boxes without area or outside their picture, which nobody can find": lambda row: (
            not has_pixels(row["bbox"], pictures[row["image_id"]])
        ),
        "boxes smaller than a pixel (a bbox is in pixels)": tiny,
        "boxes that reach beyond their picture (a bbox is left, top, width, height)": beyond,
        "annotations that repeat another": repeated,
    }
    counted = [row for row in objects if not row["iscrowd"]]
    found = {what: [row["name"] for row in counted if odd(row)] for what, odd in kinds.items()}
    return [f"{len(names)} {what}: {some(names)}" for what, names in found.items() if names]


def _odd_sizes(paths: dict[Any, Path], pictures: dict[Any, dict[str, Any]]) -> list[str]:
    """Return a note where some of a sample of pictures are not as large as they are listed."""
    keys = [key for key, row in pictures.items() if row.get("width") and row.get("height") and paths[key].is_file()]
    odd = []
    for key in keys[:: max(1, len(keys) // SAMPLED)][:SAMPLED]:
        try:
            height, width = read_picture(paths[key]).shape[:2]
        except FrameError:
            continue  # named where it is used
        listed = pictures[key]["width"], pictures[key]["height"]
        if (width, height) != listed:
            odd.append(f"{paths[key].name} is {width}x{height}, not {listed[0]}x{listed[1]}")
    if not odd:
        return []
    return [f"pictures are not of the size listed (as they are shown, turned by what EXIF says): {some(odd)}"]


def _indexed(data: dict[str, Any]) -> COCO:
    from pycocotools.coco import COCO  # noqa: PLC0415 - an extra, and slow to import

    truth = COCO()
    truth.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth
