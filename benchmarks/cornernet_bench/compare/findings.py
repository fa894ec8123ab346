"""How a model differs from another on the same pictures, and where: settings, a head, what lies before or behind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_bench.compare.expected import PIPELINE, PRECISIONS, expected, network, views
from cornernet_bench.compare.maps import MapDifferences
from cornernet_bench.compare.report import Against, Agreement, speeds
from cornernet_bench.measuring.intervals import Difference
from cornernet_bench.measuring.measurement import END_TO_END
from cornernet_bench.oracle.analyse import analyse
from cornernet_bench.oracle.repairs import REPAIRS, relabelled
from cornernet_export.verification.matching import FP32, Tolerance, View, compare_detections
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.errors import CornerNetError, ModelError
from cornernet_runtime.processing.geometry import place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cornernet_bench.compare.entrant import Entrant
    from cornernet_bench.compare.expected import Expected
    from cornernet_bench.compare.request import CompareRequest
    from cornernet_bench.models.runs import Frame
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.processing.geometry import Placement
    from cornernet_runtime.processing.maps import CornerMaps

# Same class, a box and a score that a user would call the same; detections below 0.1 are not compared.
AGREE = Tolerance(output=0, score=0.1, iou=0.75, matched=1)
ALIKE = 98.0  # percent of agreement below which equal maps must have been decoded in another way
FLOAT32 = PRECISIONS["fp32"]
ORACLE_PICTURES = 200  # that a loss is looked for on
WIRINGS = frozenset(repair.name for repair in REPAIRS if repair.part == "wiring")
AFTER_NETWORK = "after_network"  # a cause: decode, or soft-NMS
COMPARED = ("stride", "geometry", "normalisation", "decode", "nms")  # settings of a model that change what it finds


def beside(first: Entrant, other: Entrant) -> Against:
    """Return how the other differs by what was measured of both; where is not known yet."""
    stages = speeds(first.samples, other.samples)
    judged = first.metrics and other.metrics
    loss = Difference.of(other.ap - first.ap, other.resampled - first.resampled) if judged else None
    agreement = _agreement(first, other) if first.found else None
    findings = tuple(_settings(first, other))
    ways = views(first, other)
    if ways and agreement is not None and agreement.percent < ALIKE:
        findings += (f"looks in another way than the first ({', '.join(ways)}): fewer detections agree for it",)
    return Against(stages.pop(END_TO_END, None), stages, loss, agreement, None, None, findings)


def explain(
    first: Entrant,
    other: Entrant,
    request: CompareRequest,
    frames: Sequence[Frame],
    track: Callable[[Sequence[Any], str], Iterable[Any]],
) -> Against:
    """Look for where the other differs: in its maps, then, if AP was lost, by the oracle's exchanges.

    Args:
        first: What the other is held against.
        other: As ``beside`` left it.
        request: Names the data set.
        frames: Pictures to compare maps on.
        track: Wraps what takes long, with a word for it.

    Raises:
        CornerNetError: The other's network fails.
        FirstFailedError: The first one's fails.
    """
    found = other.against or beside(first, other)
    reference = _Reference(first.detector)
    if not _see_alike(first, other, frames):
        return found
    allowed = expected(first, other)
    differences = MapDifferences(allowed.output)
    for frame in track(frames, "maps"):
        differences.add(frame, reference.corner_maps(frame)[0], other.detector)
    cause, text = differences.cause()
    found = replace(found, maps=differences.check())
    if text is not None and (another := network(first, other)):
        return _with(found, None, f"another network: {', '.join(another)}")
    found = _with(found, cause, text) if text is not None else _within(first, other, found, allowed, frames)
    # Equal maps are no loss of the network's; maps within a precision's error may cost what it is expected to.
    if _equal_maps(found) or not (FLOAT32 if text is not None else allowed).exceeded(found.ap):
        return found
    try:
        report = analyse(
            other.detector, request.annotations, request.images, reference, most=ORACLE_PICTURES, track=track
        )
    except ModelError:  # a picture beyond those timed that one of the two scales down
        return _with(found, cause, "the oracle is left out: not every picture has the same size for both")
    if report.comparison is None or not report.complete:
        raise KeyboardInterrupt
    finding = report.comparison.finding
    said = f"the oracle, one view of {report.pictures} pictures: {finding.text}"
    # Where maps differ clearly, a head that AP is lost in need not be where the fault is.
    if cause is None and (text is None or finding.cause in WIRINGS):
        cause = finding.cause
    return _with(found, cause, said)


class FirstFailedError(Exception):
    """The first model failed while another one was held against it.

    Args:
        error: Its error.
    """

    def __init__(self, error: CornerNetError) -> None:
        super().__init__(str(error))
        self.error = error


class _Reference:
    """The first model, whose errors are told from those of the model that is held against it."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._detector.class_names

    def corner_maps(self, frame: Frame) -> tuple[CornerMaps, Placement]:
        try:
            return self._detector.corner_maps(frame)
        except CornerNetError as error:
            raise FirstFailedError(error) from error


def _with(found: Against, cause: str | None, text: str) -> Against:
    return replace(found, cause=cause, findings=(*found.findings, text))


def _equal_maps(found: Against) -> bool:
    return found.maps is not None and all(error <= FLOAT32.output for error in found.maps.errors.values())


def _within(first: Entrant, other: Entrant, found: Against, allowed: Expected, frames: Sequence[Frame]) -> Against:
    """Return what maps leave that differ by no more than the precisions do.

    If they are equal as float32 is and detections differ all the same, it is by what follows the network, unless each
    difference is a near tie.
    """
    same_views = (first.detector.flip, first.detector.scales) == (other.detector.flip, other.detector.scales)
    if found.maps is None or not same_views or found.agreement is None or found.agreement.percent >= ALIKE:
        return found
    if _equal_maps(found):
        if _near_ties_only(first.detector, other.detector, frames):
            return _with(
                found, None, "the six maps agree; the detections that do not are near ties, which rounding decides"
            )
        return _with(found, AFTER_NETWORK, "the six maps agree and the detections do not: decode or soft-NMS differs")
    worst = max(found.maps.errors.values())
    off = f"maps are up to {worst:.2g} of the largest value off, as expected of {allowed.name} up to {allowed.output:g}"
    if allowed.exceeded(found.ap):
        return _with(found, None, f"{off}, but AP falls by more than the {allowed.ap:g} that it may cost")
    return _with(found, None, f"{off}: this is what the precision does")


def _near_ties_only(reference: Detector, candidate: Detector, frames: Sequence[Frame]) -> bool:
    """Return whether, frame by frame, nothing but near ties differs; of several views of a frame that is not known."""
    if candidate.flip or len(candidate.scales) > 1:
        return False
    return all(
        compare_detections(
            reference(frame), candidate(frame), "", "", FP32, View.of_frame(reference, candidate, frame, FP32.tie)
        ).passed
        for frame in frames
    )


def _agreement(first: Entrant, other: Entrant) -> Agreement:
    """Match the detections of all pictures, classes by their names."""
    names = first.detector.class_names
    labels = np.array([names.index(name) if name in names else -1 for name in other.detector.class_names])
    checks = [
        compare_detections(wanted, have, "", "", AGREE)
        for wanted, have in zip(first.found, relabelled(other.found, labels), strict=True)
    ]
    return Agreement(*(sum(getattr(check, name) for check in checks) for name in ("reference", "matched", "extra")))


def _settings(first: Entrant, other: Entrant) -> Iterator[str]:
    """Say which settings differ that change what is found."""
    before, after = (dict(_flat(entrant)) for entrant in (first, other))
    for name, value in after.items():
        if value != before[name]:
            yield f"{name} is {value}, and {before[name]} of the first"


def _flat(entrant: Entrant) -> Iterator[tuple[str, Any]]:
    spec = to_json(entrant.detector.spec)
    for name in COMPARED:
        parts = spec[name].items() if isinstance(spec[name], dict) else [("", spec[name])]
        yield from ((f"{name}.{part}".rstrip("."), value) for part, value in parts)


def _see_alike(first: Entrant, other: Entrant, frames: Sequence[Frame]) -> bool:
    """Say whether the maps of the two can be compared cell by cell, and mean the same."""
    one, two = first.detector, other.detector
    if PIPELINE in views(first, other):  # whose borders lie elsewhere
        return False
    if one.class_names != two.class_names or one.spec.stride != two.spec.stride:
        return False
    return all(
        place(frame.shape[:2], one.spec, [max(one.scales)]) == place(frame.shape[:2], two.spec, [max(two.scales)])
        for frame in frames
    )
