"""Detections of two networks matched one to one, and near ties told from defects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.bundle.manifest import DetectionCheck
from cornernet_runtime.detections import Detections
from cornernet_runtime.processing.decode import corners_at, pair_corners
from cornernet_runtime.processing.geometry import boxes_in_frame
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.detector import Detector
    from cornernet_runtime.processing.geometry import Placement

SCORE = 0.1  # detections below it are not compared one by one
SAME_PLACE = 0.01  # pixels; boxes whose sides are so close are the same, for the IoU of slivers says nothing


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far one form of a network may be from another.

    Attributes:
        output: Largest error of an output, relative to the largest value of the reference's.
        score: A detection's counterpart may differ in score by this.
        iou: A detection's counterpart overlaps it at least so much.
        matched: Part of the detections that must have a counterpart or be a near tie.
        tie: Largest error of an output, relative as ``output``, that makes a near tie; 0 where there is none.
    """

    output: float
    score: float
    iou: float
    matched: float
    tie: float = 0.0


# The same arithmetic in another order gives about 1e-6, which decides near ties only.
FP32 = Tolerance(output=1e-4, score=1e-3, iou=0.99, matched=1.0, tie=1e-4)
# Eleven bits, through a hundred layers: about 3e-3 is seen.
FP16 = Tolerance(output=2e-2, score=2e-2, iou=0.9, matched=0.9, tie=2e-2)
# On the shipped model the worst cell is off by 0.05 to 0.19 of the largest value, 95 % of the detections match and 3 %
# are extra. Ranges that are 0.7 times or 4 times what they should be give 0.4 to 0.5 and 0.3 to 0.4, and match 74 % and
# 88 %. Errors that large would make a near tie of anything. What INT8 costs in AP, only data with annotations tell.
INT8 = Tolerance(output=0.3, score=0.1, iou=0.75, matched=0.9)


@dataclass(frozen=True, slots=True)
class View:
    """The maps of two networks for one view of a frame, and with them the reason why detections differ.

    Decode and suppression take decisions: which cell is a peak, which corners are among the best, whether two
    embeddings are close enough, which of two overlapping boxes goes first. Where values lie closer together than the
    networks' outputs do, either decision is right: a near tie. The reference's own decode on the candidate's maps shows
    which way each one fell there.

    Attributes:
        reference: The network whose decode is trusted.
        expected: Its maps, [C, h, w], [1, h, w] and [2, h, w].
        found: The candidate's maps, no further from ``expected`` than a near tie allows (``within``).
        placement: Of the view in the frame.
    """

    reference: Detector
    expected: CornerMaps
    found: CornerMaps
    placement: Placement

    @classmethod
    def of_frame(cls, reference: Detector, candidate: Detector, frame: NDArray[np.uint8], error: float) -> View:
        """Run both networks on the largest view of a frame, uint8 [H, W, 3], BGR; ``error`` as for ``within``."""
        expected, placement = reference.corner_maps(frame)
        return cls.within(reference, expected, candidate.corner_maps(frame)[0], placement, error)

    @classmethod
    def within(
        cls, reference: Detector, expected: CornerMaps, found: CornerMaps, placement: Placement, error: float
    ) -> View:
        """Return the view of two networks, with values that are further off than ``error`` (relative) moved nearer.

        Values that are not finite explain nothing: the expected ones take their place.
        """
        near = []
        for name in OUTPUT_NAMES:
            want, have = getattr(expected, name), getattr(found, name)
            finite = np.isfinite(want) & np.isfinite(have)
            allowed = np.float32(error) * np.abs(want).max(where=finite, initial=0)
            with np.errstate(invalid="ignore"):
                near.append(np.where(finite, np.clip(have, want - allowed, want + allowed), want))
        return cls(reference, expected, CornerMaps(*near), placement)

    def detections(self) -> Detections:
        """Return what the reference finds in the candidate's maps."""
        return self.reference.finish(self.found, self.placement)

    def only_decided(self, detections: Detections, maps: CornerMaps, tolerance: Tolerance) -> NDArray[np.bool_]:
        """Return whether each detection's pair of corners has the same score and place in both networks' maps.

        Then a decision made the difference; else the values themselves differ by too much.

        Args:
            detections: Found by the reference's decode.
            maps: In which: ``expected`` or ``found``.
            tolerance: How far scores before suppression, and boxes, may be apart.
        """
        others = self.found if maps is self.expected else self.expected
        candidates, cells = pair_corners(maps, self.reference.spec.decode)
        boxes, inside = boxes_in_frame(candidates.boxes, self.placement, self.reference.spec.stride)
        same = (detections.boxes[:, None] == boxes).all(-1) & (detections.labels[:, None] == candidates.labels) & inside
        known, pairs = same.any(1), cells[same.argmax(1)] if len(cells) else np.zeros((len(detections), 2), np.int64)
        own_boxes, own_scores = self._values(maps, pairs)
        other_boxes, other_scores = self._values(others, pairs)
        near = np.diagonal(_closeness(own_boxes, other_boxes)) >= tolerance.iou
        return np.asarray(known & near & (np.abs(own_scores - other_scores) <= tolerance.score))

    def _values(self, maps: CornerMaps, pairs: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return boxes [N, 4] in pixels of the frame, and scores [N], that maps give to pairs of cells [N, 2]."""
        tl = corners_at(maps.tl_heat, maps.tl_embed, maps.tl_offset, pairs[:, 0])
        br = corners_at(maps.br_heat, maps.br_embed, maps.br_offset, pairs[:, 1])
        cells = np.stack([tl.x, tl.y, br.x, br.y], axis=1)
        boxes, _ = boxes_in_frame(cells, self.placement, self.reference.spec.stride)
        return boxes, (tl.scores + br.scores) / np.float32(2)


def compare_detections(
    expected: Detections,
    found: Detections,
    stage: str,
    source: str,
    tolerance: Tolerance = FP32,
    view: View | None = None,
) -> DetectionCheck:
    """Match detections one to one, best first: same class, nearly the same box and score.

    Args:
        expected: The reference's.
        found: The candidate's.
        stage: Names the two, for the report.
        source: Names the frame, for the report.
        tolerance: What counts as nearly the same.
        view: The maps that both come from; without it no near tie is told from a defect.
    """
    wanted = expected.above(SCORE)
    # A counterpart may lie just below the score that the other lies above.
    offered = found.above(SCORE - tolerance.score)
    counterparts = _counterparts(wanted, offered, tolerance)
    missing = counterparts < 0
    extra = offered.scores >= SCORE + tolerance.score
    extra[counterparts[~missing]] = False
    ties = extra_ties = np.zeros(0, np.bool_)
    if view is not None and (missing.any() or extra.any()):
        there = view.detections().above(SCORE - tolerance.score)
        gone = missing & (_counterparts(wanted, there, tolerance) < 0)
        ties = view.only_decided(_chosen(wanted, gone), view.expected, tolerance)
        come = _counterparts(_chosen(offered, extra), there, tolerance)
        extra_ties = view.only_decided(_chosen(there, come[come >= 0]), view.found, tolerance)
    return DetectionCheck(
        stage,
        source,
        reference=len(wanted),
        matched=int(np.count_nonzero(~missing)),
        extra=int(np.count_nonzero(extra) - np.count_nonzero(extra_ties)),
        required=tolerance.matched,
        near_ties=int(np.count_nonzero(ties)),
        extra_near_ties=int(np.count_nonzero(extra_ties)),
    )


def _counterparts(wanted: Detections, offered: Detections, tolerance: Tolerance) -> NDArray[np.int64]:
    """Return for each wanted detection the index of the one offered that is its counterpart, or -1."""
    iou, apart = _closeness(wanted.boxes, offered.boxes), np.abs(wanted.scores[:, None] - offered.scores)
    alike = (iou >= tolerance.iou) & (wanted.labels[:, None] == offered.labels) & (apart <= tolerance.score)
    closeness = np.where(alike, iou - apart, -np.inf)  # not the first: of boxes in one place, each has its own
    found = np.full(len(wanted), -1, np.int64)
    for index in range(len(wanted) if len(offered) else 0):
        closest = closeness[index].argmax()
        if np.isfinite(closeness[index, closest]):
            found[index] = closest
            closeness[:, closest] = -np.inf
    return found


def _closeness(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the IoU [N, M] of boxes, and 1 for those in the same place."""
    same = (np.abs(first[:, None] - second) <= SAME_PLACE).all(-1)
    return np.where(same, 1.0, box_iou(first, second))


def _chosen(detections: Detections, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> Detections:
    return Detections(
        detections.boxes[chosen], detections.scores[chosen], detections.labels[chosen], detections.class_names
    )


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the intersection over union [N, M] of boxes [N, 4] and [M, 4]; equal empty boxes count as 1."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    same = (a == b).all(-1)
    return np.asarray(np.where(same, 1.0, shared / np.where(union > 0, union, 1.0)))
