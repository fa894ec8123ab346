"""How a model differs from another on the same pictures, and where: settings, a head, what lies before or behind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_bench.compare_maps import MapDifferences
from cornernet_bench.compare_report import Against, Agreement, Ratio
from cornernet_bench.latency_subjects import runs_on_gpu
from cornernet_bench.oracle import analyse
from cornernet_bench.oracle_repairs import LEAST_LOSS, REPAIRS, Difference, relabelled
from cornernet_export.verify import FP16, FP32, INT8, Tolerance, compare_detections
from cornernet_runtime.geometry import place
from cornernet_runtime.records import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cornernet_bench.compare_entrant import Entrant
    from cornernet_bench.compare_report import CompareRequest
    from cornernet_bench.latency_subjects import Frame

# Same class, a box and a score that a user would call the same; detections below 0.1 are not compared.
AGREE = Tolerance(output=0, score=0.1, iou=0.75, matched=1)
ALIKE = 98.0  # percent of agreement below which equal maps must have been decoded in another way
BFLOAT16_OUTPUT = 5e-2  # eight bits a value, over all layers
ORACLE_PICTURES = 200  # that a loss is looked for on
WIRINGS = frozenset(repair.name for repair in REPAIRS if repair.part == "wiring")
AFTER_NETWORK = "after_network"  # a cause: decode, or soft-NMS
COMPARED = ("stride", "geometry", "normalisation", "decode", "nms")  # settings of a model that change what it finds


def beside(first: Entrant, other: Entrant) -> Against:
    """Return how the other differs by what was measured of both; where is not known yet."""
    speed = Ratio.of(first.times, other.times) if first.samples and other.samples else None
    loss = Difference.of(other.ap - first.ap, other.resampled - first.resampled) if first.metrics else None
    agreement = _agreement(first, other) if first.found else None
    return Against(speed, loss, agreement, None, None, tuple(_settings(first, other)))


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
        CornerNetError: A network fails.
    """
    found = other.against or beside(first, other)
    if not _see_alike(first, other, frames):
        return found
    differences = MapDifferences(_tolerance(first, other))
    for frame in track(frames, "maps"):
        differences.add(frame, first.detector.corner_maps(frame)[0], other.detector)
    cause, text = differences.cause()
    found = replace(found, maps=differences.check(), cause=cause, findings=(*found.findings, *([text] if text else ())))
    lost = found.ap is not None and _lost(found.ap)
    # Within the tolerance of eight bits a head can be wrong enough to lose AP.
    if text is None and (_equal(found) or not lost):
        return _after_network(first, other, found)
    if not lost:
        return found
    report = analyse(
        other.detector, request.annotations, request.images, first.detector, most=ORACLE_PICTURES, track=track
    )
    if report.comparison is None or not report.complete:
        raise KeyboardInterrupt
    finding = report.comparison.finding
    said = f"the oracle, one view of {report.pictures} pictures: {finding.text}"
    # Where maps differ clearly, a head that AP is lost in need not be where the fault is.
    if cause is None and (text is None or finding.cause in WIRINGS):
        cause = finding.cause
    return replace(found, cause=cause, findings=(*found.findings, said))


def _equal(found: Against) -> bool:
    return found.maps is not None and max(found.maps.errors.values()) <= FP32.output


def _lost(difference: Difference) -> bool:
    return difference.points <= -LEAST_LOSS and difference.high < 0


def _after_network(first: Entrant, other: Entrant, found: Against) -> Against:
    """Return what equal maps leave: if detections differ all the same, it is by what follows.

    Maps that are equal but for float16 or eight bits may well give other detections.
    """
    same_views = (first.detector.flip, first.detector.scales) == (other.detector.flip, other.detector.scales)
    if not same_views or not _equal(found) or found.agreement is None or found.agreement.percent >= ALIKE:
        return found
    text = "the six maps agree and the detections do not: the difference is in decode or soft-NMS"
    return replace(found, cause=AFTER_NETWORK, findings=(*found.findings, text))


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
    if one.class_names != two.class_names or one.spec.stride != two.spec.stride:
        return False
    return all(
        place(frame.shape[:2], one.spec, [max(one.scales)]) == place(frame.shape[:2], two.spec, [max(two.scales)])
        for frame in frames
    )


def _tolerance(first: Entrant, other: Entrant) -> float:
    """Return the error of an output that the precisions of the two allow."""
    precisions = {first.opened.precision, other.opened.precision}
    if "int8" in precisions:
        return INT8.output
    if "bf16" in precisions:
        return BFLOAT16_OUTPUT
    # A GPU rounds float32 to TF32, whose mantissa is that of float16.
    half = "fp16" in precisions or runs_on_gpu(first.detector) or runs_on_gpu(other.detector)
    return FP16.output if half else FP32.output
