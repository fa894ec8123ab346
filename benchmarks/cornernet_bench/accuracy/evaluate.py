"""Average precision of any model on a data set in COCO format; pycocotools is the judge."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_bench.coco.dataset import category_ids_of, read_coco, some
from cornernet_bench.coco.judge import as_results
from cornernet_runtime.pictures import read_picture
from cornernet_runtime.processing.geometry import is_too_large

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cornernet_bench.coco.dataset import CocoSet
    from cornernet_runtime.detections import Detections
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


@dataclass(frozen=True, slots=True)
class Accuracy:
    """What a detector is worth on a data set, judged by pycocotools.

    Attributes:
        metrics: COCO's twelve numbers by name of ``METRICS``, points of 100; NaN where there is no such object.
        per_class: AP of each class by name, points of 100; NaN where the data set has none of it.
        curves: Precision [101] at each of ``RECALLS``, 0 to 1, mean over the classes, by the overlap that counts as
            found.
        notes: What looks wrong with the data set, for people.
        pictures: How many were looked at.
        listed: How many there are; more than were looked at after an interrupt.
        objects: How many there are to find on the pictures that were looked at.
        detect_ms: Mean time that a picture took from frame to boxes, milliseconds; to compare roughly, not a benchmark.
        scaled_down: Pictures that exceed the largest size of a model that takes them at their own resolution.
    """

    metrics: dict[str, float]
    per_class: dict[str, float]
    curves: dict[str, NDArray[np.float64]]
    notes: tuple[str, ...]
    pictures: int
    listed: int
    objects: int
    detect_ms: float
    scaled_down: int

    @property
    def complete(self) -> bool:
        """Whether every picture was looked at."""
        return self.pictures == self.listed


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model found on pictures of a data set, to be judged.

    Attributes:
        images: Ids of the pictures that were looked at.
        detections: Of each.
        seconds: From frames to boxes, of all.
        scaled_down: As for ``Accuracy``.
    """

    images: list[Any]
    detections: list[Detections]
    seconds: float
    scaled_down: int


def evaluate(
    detector: Detector,
    annotations: Path,
    images: Path,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
    *,
    keep_partial: bool = False,
) -> Accuracy:
    """Run the detector on every picture and let pycocotools judge.

    Args:
        detector: Any backend. All its detections count, whatever their score.
        annotations: COCO instances file. Categories are mapped to classes by their names; those that the model does not
            know count as never found.
        images: Folder of its pictures.
        track: Wraps the image ids to show progress.
        keep_partial: Whether an interrupt ends the looking at pictures, and those seen are judged; else it is raised.

    Raises:
        FrameError: The annotations or a picture cannot be read, a picture is missing, or a class of the model is no
            category.
        KeyboardInterrupt: It came, and ``keep_partial`` is off or no picture was seen; or during the judging.
    """
    data = read_coco(annotations, images)
    ids = category_ids_of(data, detector.class_names, annotations, images)
    found: list[Detections] = []
    seen: list[Any] = []
    seconds, scaled_down = 0.0, 0
    try:
        for image_id in track(data.truth.getImgIds()):
            frame = read_picture(data.paths[image_id])
            begin = time.perf_counter()
            detections = detector(frame)
            seconds += time.perf_counter() - begin
            scaled_down += is_too_large(frame.shape[:2], detector.spec, detector.scales)
            found.append(detections)
            seen.append(image_id)
    except KeyboardInterrupt:
        if not (keep_partial and seen):
            raise
    return judge_detections(data, ids, detector.class_names, Seen(seen, found, seconds, scaled_down))


def judge_detections(data: CocoSet, ids: Sequence[Any], class_names: Sequence[str], found: Seen) -> Accuracy:
    """Let pycocotools judge what was found.

    Args:
        data: The data set.
        ids: Of the category of each class, as ``category_ids_of`` returns them.
        class_names: Of the model.
        found: On one picture at least.
    """
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - an extra, and slow to import

    truth, categories = data.truth, data.categories
    notes = list(data.notes)
    objects = [row for row in truth.dataset["annotations"] if not row["iscrowd"]]
    if foreign := [row["category_id"] for row in objects if row["category_id"] not in ids]:
        kinds = some([name for name, key in categories.items() if key in foreign])
        notes.append(f"{len(foreign)} objects of {kinds}, which the model does not know, count as not found")
    seen = found.images
    rows: list[dict[str, Any]] = []
    for image_id, detections in zip(seen, found.detections, strict=True):
        rows += detections.to_coco(image_id, ids)
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(truth, as_results(truth, rows), "bbox")
        judge.params.imgIds = seen
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    # COCO says -1 where there is nothing to find.
    points = np.where(judge.stats < 0, np.nan, judge.stats * 100)
    precision = judge.eval["precision"][:, :, :, 0, -1]  # [10 overlaps, 101 recalls, classes], all areas, 100 a picture
    precision = np.where(precision < 0, np.nan, precision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, as it should be
        per_class = 100 * np.nanmean(precision, axis=(0, 1))
        curves = {
            "0.50": np.nanmean(precision[0], axis=1),
            "0.75": np.nanmean(precision[5], axis=1),
            "0.50 to 0.95": np.nanmean(precision, axis=(0, 2)),
        }
    own = per_class[np.searchsorted(judge.params.catIds, ids)]
    return Accuracy(
        metrics=dict(zip(METRICS, points.tolist(), strict=True)),
        per_class=dict(zip(class_names, own.tolist(), strict=True)),
        curves=curves,
        notes=tuple(notes),
        pictures=len(seen),
        listed=len(truth.getImgIds()),
        objects=sum(not row["iscrowd"] for image_id in seen for row in truth.imgToAnns[image_id]),
        detect_ms=1000 * found.seconds / len(seen),
        scaled_down=found.scaled_down,
    )
