"""Where AP is lost: true maps, or those of a better model, in place of a model's own (CornerNet, error analysis).

The network runs once a picture; each exchange of maps is then decoded and judged like its own detections.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from cornernet_bench.coco.dataset import category_ids_of, read_coco, spread
from cornernet_bench.coco.judge import Verdict, judge
from cornernet_bench.measuring.intervals import RESAMPLES, Difference
from cornernet_bench.oracle.maps import KINDS, Truth, true_maps, with_truth
from cornernet_bench.oracle.repairs import (
    CLASSES,
    INPUT_CHANNELS,
    REPAIRS,
    ClassVotes,
    Effect,
    Finding,
    find_cause,
    from_reference,
    relabelled,
    rewired,
)
from cornernet_runtime.errors import ModelError
from cornernet_runtime.pictures import read_picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cornernet_bench.coco.dataset import CocoSet
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.processing.geometry import Placement
    from cornernet_runtime.processing.maps import CornerMaps

Exchange = tuple[str, ...]  # kinds of which the true maps are taken

EXCHANGES: tuple[Exchange, ...] = tuple(
    kinds for count in range(len(KINDS) + 1) for kinds in combinations(KINDS, count)
)


class Reference(Protocol):
    """Whose maps are taken: a ``Detector``, or what stands for one."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of its classes."""

    def corner_maps(self, frame: NDArray[np.uint8], /) -> tuple[CornerMaps, Placement]:
        """Return the maps of a frame, and how it was seen."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A model beside a better one.

    Attributes:
        reference: Metrics of the reference's maps, decoded as the model's are.
        loss: AP of the reference less that of the model.
        effects: What each repair brought, in the order of ``REPAIRS``.
        finding: What the loss is laid at.
    """

    reference: dict[str, float]
    loss: Difference
    effects: tuple[Effect, ...]
    finding: Finding


@dataclass(frozen=True, slots=True)
class OracleReport:
    """Where AP is lost.

    Attributes:
        exchanges: Metrics by the kinds of which the true maps were taken, () being the model as it is; COCO's AP in
            points of 100, NaN where there is nothing to find.
        comparison: With another model, if one was named.
        pictures: How many were seen.
        listed: How many there are; more than were seen after an interrupt.
        objects: To be found on the pictures seen.
        shared: Those of them that share the cell of a corner with another (``Truth.shared``).
        notes: What looks wrong with the data set, for people.
    """

    exchanges: dict[Exchange, dict[str, float]]
    comparison: Comparison | None
    pictures: int
    listed: int
    objects: int
    shared: int
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every picture was seen."""
        return self.pictures == self.listed

    @staticmethod
    def title(kinds: Exchange) -> str:
        """Return what is true, for people."""
        return "all three" if len(kinds) == len(KINDS) else " + ".join(kinds) or "nothing"


def analyse(
    detector: Detector,
    annotations: Path,
    images: Path,
    reference: Reference | None = None,
    most: int | None = None,
    track: Callable[[Sequence[Any], str], Iterable[Any]] = lambda items, _: items,
) -> OracleReport:
    """Exchange maps of a model for true ones, and for those of a reference, and say what that brings.

    An interrupt ends the looking at pictures; what was seen until then is judged. One during the judging is raised.

    Args:
        detector: One view a picture is taken, whatever its flip and scales.
        annotations: COCO instances file.
        images: Folder of its pictures.
        reference: A model with the same classes that sees pictures alike, such as the one in FP32.
        most: Pictures to look at, from all over the set; None looks at all.
        track: Wraps what takes long, with a word for it, to show progress.

    Raises:
        FrameError: The annotations or a picture cannot be read, a picture is missing, or a class of the model is no
            category.
        ModelError: The reference has other classes, or sees a picture at another size.
        KeyboardInterrupt: Before the first picture was seen, or during the judging.
    """
    if reference is not None and reference.class_names != detector.class_names:
        raise ModelError(
            f"--against: expected a model of the same classes {list(detector.class_names)}, "
            f"got {list(reference.class_names)}"
        )
    data = read_coco(annotations, images)
    category_ids = category_ids_of(data, detector.class_names, annotations, images)
    look = _Look(detector, reference, data, category_ids)
    listed = spread(data.truth.getImgIds(), most)
    try:
        for image_id in track(listed, "looking"):
            look.add(image_id)
    except KeyboardInterrupt:
        if not look.pictures:
            raise
    image_ids = [seen.image_id for seen in look.pictures]
    verdicts = {
        trial: judge(data.truth, image_ids, found, category_ids, by_area=isinstance(trial, tuple))
        for trial, found in track(list(look.trials().items()), "judging")
    }
    return OracleReport(
        exchanges={kinds: verdicts[kinds].metrics for kinds in EXCHANGES},
        comparison=None if reference is None else _compare(verdicts, len(image_ids)),
        pictures=len(image_ids),
        listed=len(listed),
        objects=sum(not row["iscrowd"] for image_id in image_ids for row in data.truth.imgToAnns[image_id]),
        shared=sum(seen.shared for seen in look.pictures),
        notes=data.notes,
    )


REFERENCE = "reference"  # the trial in which all six maps are its own


class _Seen(NamedTuple):
    """One picture: its id, the detections of each trial, and how many of its objects share a cell."""

    image_id: Any
    found: dict[Exchange | str, Detections]
    shared: int


class _Look:
    """Detections of each trial, picture by picture."""

    def __init__(
        self, detector: Detector, reference: Reference | None, data: CocoSet, category_ids: Sequence[Any]
    ) -> None:
        self._detector, self._reference, self._data = detector, reference, data
        self._label_of = {category: label for label, category in enumerate(category_ids)}
        self._votes = ClassVotes(len(category_ids))
        self.pictures: list[_Seen] = []

    def add(self, image_id: Any) -> None:  # noqa: ANN401 - COCO's ids are numbers or texts
        """Run the networks on a picture and decode every exchange."""
        detector = self._detector
        frame = read_picture(self._data.paths[image_id])
        maps, placement = detector.corner_maps(frame)
        truth = self._truth(image_id, placement)
        trials: dict[Exchange | str, CornerMaps] = {kinds: with_truth(maps, truth.maps, kinds) for kinds in EXCHANGES}
        if self._reference is not None:
            trials.update(rewired(maps))
            trials.update(_from_reference(self._reference, frame, maps, placement))
        found = {trial: detector.finish(changed, placement) for trial, changed in trials.items()}
        if self._reference is not None:
            self._votes.add(maps, truth.targets)
            # Last, for a backend may write its next maps over these.
            found[INPUT_CHANNELS] = detector.finish(*detector.corner_maps(frame[:, :, ::-1]))
        self.pictures.append(_Seen(image_id, found, truth.shared))  # all at once: an interrupt leaves whole pictures

    def trials(self) -> dict[Exchange | str, list[Detections]]:
        """Return the detections on each picture seen, by trial."""
        trials = {trial: [seen.found[trial] for seen in self.pictures] for trial in self.pictures[0].found}
        if self._reference is not None and (labels := self._votes.relabelling()) is not None:
            trials[CLASSES] = relabelled(trials[()], labels)
        return trials

    def _truth(self, image_id: Any, placement: Placement) -> Truth:  # noqa: ANN401
        """Return the true maps; objects of unknown classes and crowds are not on them."""
        rows = [
            row
            for row in self._data.truth.imgToAnns[image_id]
            if not row["iscrowd"] and row["category_id"] in self._label_of
        ]
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([self._label_of[row["category_id"]] for row in rows], np.int64)
        spec = self._detector.spec
        return true_maps(boxes, labels, placement, classes=len(spec.class_names), stride=spec.stride)


def _from_reference(
    reference: Reference, frame: NDArray[np.uint8], maps: CornerMaps, placement: Placement
) -> dict[str, CornerMaps]:
    """Return the trials with maps of the reference; raise ModelError where it sees the frame otherwise."""
    others, its_placement = reference.corner_maps(frame)
    if its_placement != placement or others.tl_heat.shape != maps.tl_heat.shape:
        wanted, got = (
            f"{view.input_size[0]}x{view.input_size[1]}, maps {own.tl_heat.shape[1]}x{own.tl_heat.shape[2]}"
            for view, own in ((placement, maps), (its_placement, others))
        )
        raise ModelError(
            f"--against: expected a model that sees pictures as this one does ({wanted}), got {got}; "
            "export both with the same --size or --dynamic"
        )
    return {**from_reference(maps, others), REFERENCE: others}


def _compare(verdicts: dict[Exchange | str, Verdict], pictures: int) -> Comparison:
    """Weigh what each repair brought against the noise of the pictures, the same draws for all."""
    weights = np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), RESAMPLES)
    base = verdicts[()]
    base_resampled = base.resampled(weights)

    def difference(trial: str) -> Difference:
        verdict = verdicts[trial]
        return Difference.of(verdict.ap - base.ap, verdict.resampled(weights) - base_resampled)

    effects = tuple(
        Effect(repair, verdicts[repair.name].ap, difference(repair.name))
        for repair in REPAIRS
        if repair.name in verdicts
    )
    loss = difference(REFERENCE)
    return Comparison(verdicts[REFERENCE].metrics, loss, effects, find_cause(loss, effects))
