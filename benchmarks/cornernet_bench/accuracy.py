"""Average precision of any model on a data set in COCO format; pycocotools is the judge."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_runtime.errors import FrameError
from cornernet_runtime.pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from pycocotools.coco import COCO

    from cornernet_runtime.detector import Detector

METRICS = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)


def evaluate(
    detector: Detector,
    annotations: Path,
    images: Path,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> dict[str, float]:
    """Run the detector on every picture and return COCO's twelve numbers, in points from 0 to 100.

    Args:
        detector: Any backend. All its detections count, whatever their score.
        annotations: COCO instances file. Categories are mapped to classes by their names.
        images: Folder of its pictures.
        track: Wraps the image ids to show progress.

    Returns:
        By name of ``METRICS``; NaN where the data set has no such object.

    Raises:
        FrameError: The annotations or a picture cannot be read, or a class of the model is no category.
    """
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - an extra, and slow to import

    truth = _read(annotations)
    categories = {category["name"]: key for key, category in truth.cats.items()}
    unknown = [name for name in detector.class_names if name not in categories]
    if unknown:
        raise FrameError(f"{annotations}: no category is named {', '.join(unknown)}; it has {list(categories)}")
    ids = [categories[name] for name in detector.class_names]
    rows: list[dict[str, Any]] = []
    for image_id in track(truth.getImgIds()):
        frame = read_picture(images / truth.imgs[image_id]["file_name"])
        rows += detector(frame).to_coco(image_id, ids)
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, _results(truth, rows), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    points = np.where(judge.stats < 0, np.nan, judge.stats * 100)  # COCO says -1 where there is nothing to find
    return dict(zip(METRICS, points.tolist(), strict=True))


def _read(annotations: Path) -> COCO:
    """Read and check a data set; sets of boxes often lack ``area`` and ``iscrowd``, which pycocotools needs."""
    from pycocotools.coco import COCO  # noqa: PLC0415 - an extra, and slow to import

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(annotations))
        for part in ("images", "annotations", "categories"):
            _ = [row["id"] for row in truth.dataset[part]]
        _ = [image["file_name"] for image in truth.dataset["images"]]
        for row in truth.dataset["annotations"]:
            _left, _top, width, height = row["bbox"]
            row.setdefault("area", width * height)
            row.setdefault("iscrowd", 0)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise FrameError(f"{annotations}: not COCO annotations ({type(error).__name__}: {error})") from error
    if not truth.imgs:
        raise FrameError(f"{annotations}: lists no picture")
    return truth


def _results(truth: COCO, rows: list[dict[str, Any]]) -> COCO:
    """Return the detections as pycocotools takes them; its own ``loadRes`` fails on none."""
    if rows:
        return truth.loadRes(rows)
    empty = type(truth)()
    empty.dataset = {**truth.dataset, "annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):
        empty.createIndex()
    return empty
