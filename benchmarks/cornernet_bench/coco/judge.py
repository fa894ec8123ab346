"""Detections judged by pycocotools, kept picture by picture so that the noise of a difference can be told."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pycocotools.coco import COCO

    from cornernet_runtime.detections import Detections

AREAS = ("small", "medium", "large")
CUT = 100  # detections a picture that count

RECALLS = np.linspace(0, 1, 101)  # at which COCO reads the precision


class Ranking(NamedTuple):
    """The detections of one class on all pictures, best first.

    Attributes:
        picture: int64 [D], position of each one's picture in the sorted ids.
        right: bool [10, D], found an object, at IoU 0.5 to 0.95.
        wrong: bool [10, D], found none; those on crowds are neither.
        objects: int64 [P], to be found on each picture.
    """

    picture: NDArray[np.int64]
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    objects: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What detections are worth.

    Attributes:
        metrics: ``ap``, ``ap50``, ``ap75``, and if asked for ``ap_small`` and so on; points of 100, NaN where there is
            nothing to find.
        rankings: One a class that is on the pictures.
    """

    metrics: dict[str, float]
    rankings: tuple[Ranking, ...]

    @property
    def ap(self) -> float:
        """Average precision, points of 100."""
        return self.metrics["ap"]

    def resampled(self, weights: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return AP [B] of sets in which the pictures, sorted by their ids, come as often as ``weights`` [B, P] says.

        All ones gives ``ap``. NaN where a set has nothing to find.
        """
        return np.array([_weighted_ap(self.rankings, row) for row in weights])


def judge(
    truth: COCO,
    image_ids: Sequence[Any],
    detections: Sequence[Detections],
    category_ids: Sequence[Any],
    *,
    by_area: bool = False,
) -> Verdict:
    """Let pycocotools match the detections with the objects of some pictures.

    Args:
        truth: The data set.
        image_ids: Pictures that count.
        detections: Of each of them.
        category_ids: Id of each class of the model.
        by_area: Also tell small, medium and large objects apart, which takes four times as long.
    """
    from pycocotools.cocoeval import COCOeval  # noqa: PLC0415 - an extra, and slow to import

    rows = [
        row for image_id, own in zip(image_ids, detections, strict=True) for row in own.to_coco(image_id, category_ids)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        matcher = COCOeval(truth, as_results(truth, rows), "bbox")
        matcher.params.imgIds = list(image_ids)
        matcher.params.maxDets = [CUT]
        if not by_area:
            matcher.params.areaRng, matcher.params.areaRngLbl = matcher.params.areaRng[:1], ["all"]
        matcher.evaluate()
        matcher.accumulate()
    precision = matcher.eval["precision"][..., 0]  # [10 overlaps, 101 recalls, classes, areas]
    parts = {"ap": precision[..., 0], "ap50": precision[:1, ..., 0], "ap75": precision[5:6, ..., 0]}
    if by_area:
        parts |= {f"ap_{area}": precision[..., 1 + index] for index, area in enumerate(AREAS)}
    metrics = {name: _points(part) for name, part in parts.items()}
    return Verdict(metrics, tuple(_rankings(matcher)))


def _points(precision: NDArray[np.float64]) -> float:
    known = precision[precision > -1]  # which COCO says where there is nothing to find
    return float(100 * known.mean()) if known.size else float("nan")


def _rankings(matcher: Any) -> list[Ranking]:  # noqa: ANN401 - pycocotools has no types
    """Return the ranking of each class from what the matcher found, over all areas."""
    pictures, areas = len(matcher.params.imgIds), len(matcher.params.areaRng)
    rankings = []
    for start in range(0, len(matcher.evalImgs), pictures * areas):  # one class after the other, its areas within
        rows = [(index, row) for index, row in enumerate(matcher.evalImgs[start : start + pictures]) if row]
        objects = np.zeros(pictures, np.int64)
        for index, row in rows:
            objects[index] = np.count_nonzero(np.asarray(row["gtIgnore"]) == 0)
        if not objects.any():
            continue
        scores = np.concatenate([np.asarray(row["dtScores"], np.float64) for _, row in rows])
        order = np.argsort(-scores, kind="stable")
        matched, ignored = (
            np.concatenate([np.asarray(row[key], np.bool_) for _, row in rows], axis=1)[:, order]
            for key in ("dtMatches", "dtIgnore")
        )
        picture = np.repeat([index for index, _ in rows], [len(row["dtScores"]) for _, row in rows])[order]
        rankings.append(Ranking(picture, matched & ~ignored, ~matched & ~ignored, objects))
    return rankings


def _weighted_ap(rankings: Sequence[Ranking], weights: NDArray[np.integer]) -> float:
    """Return COCO's AP with each picture counted as often as its weight, as ``COCOeval.accumulate`` does for ones."""
    precisions = []
    for ranking in rankings:
        objects = int(ranking.objects @ weights)
        if objects == 0:
            continue
        often = weights[ranking.picture]
        right, wrong = (np.cumsum(flags * often, axis=1) for flags in (ranking.right, ranking.wrong))
        precision = right / np.maximum(right + wrong, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precision = np.concatenate([precision, np.zeros((len(precision), 1))], axis=1)  # at recalls never reached
        places = [np.searchsorted(recall, RECALLS, side="left") for recall in right / objects]
        precisions.append(np.take_along_axis(precision, np.array(places), axis=1).mean())
    return float(100 * np.mean(precisions)) if precisions else float("nan")


def as_results(truth: COCO, rows: list[dict[str, Any]]) -> COCO:
    """Return the detections as pycocotools takes them; its own ``loadRes`` fails on none."""
    if rows:
        return truth.loadRes(rows)
    empty = type(truth)()
    empty.dataset = {**truth.dataset, "annotations": []}
    with contextlib.redirect_stdout(io.StringIO()):
        empty.createIndex()
    return empty
