"""What may have gone wrong between two models, each as an exchange of maps that would set it right."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from cornernet_bench.oracle.maps import CORNERS, KINDS
from cornernet_runtime.processing.maps import OUTPUT_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cornernet_bench.measuring.intervals import Difference
    from cornernet_export.targets import Targets
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.processing.maps import CornerMaps

LEAST_LOSS = 0.1  # points of AP that are worth a cause
LEAST_WIRING = 1.0  # points that an exchange within the model must bring: a fault of that kind costs far more
NEARLY = 0.9  # of the best repair's gain; a simpler one that brings as much is the cause
MOST = 0.8  # of the loss, which a cause must account for; a fault before the heads is half undone by many an exchange


class Repair(NamedTuple):
    """One exchange.

    Attributes:
        name: For reports.
        title: For people: what is exchanged.
        part: Whether it rewires the model's own maps or takes the reference's, and how many of them.
        fault: For people: what is wrong if this helps.
    """

    name: str
    title: str
    part: Literal["wiring", "head", "kind", "corner"]
    fault: str


INPUT_CHANNELS, CLASSES = "input_channels", "classes"


def _repairs() -> tuple[Repair, ...]:
    """Return the repairs, simpler ones first: they are the cause where others bring no more."""
    wiring = [
        (
            INPUT_CHANNELS,
            "input, red <-> blue",
            "the input has its channels in the wrong order (BGR for RGB or the reverse)",
        ),
        (CLASSES, "classes of heat", "the heat channels are in another order than the class names"),
        ("corners", "all, tl <-> br", "the outputs of the two corners are exchanged"),
        *((f"corners_{kind}", f"{kind}, tl <-> br", f"tl_{kind} and br_{kind} are exchanged") for kind in KINDS),
        ("offset_xy", "offset, x <-> y", "the channels x and y of the offsets are exchanged"),
    ]
    return (
        *(Repair(name, title, "wiring", fault) for name, title, fault in wiring),
        *(Repair(name, name, "head", f"the fault is in {name}") for name in OUTPUT_NAMES),
        *(Repair(kind, f"both {kind}", "kind", f"the fault is in tl_{kind} and br_{kind}") for kind in KINDS),
        *(Repair(one, f"all {one}", "corner", f"the fault is in what the {one}_ outputs share") for one in CORNERS),
    )


REPAIRS = _repairs()


def rewired(maps: CornerMaps) -> dict[str, CornerMaps]:
    """Return the maps of one picture with their outputs exchanged among themselves, by the name of the repair."""

    def exchanged(kinds: Sequence[str]) -> CornerMaps:
        pairs = [(f"tl_{kind}", f"br_{kind}") for kind in kinds]
        return replace(maps, **{new: getattr(maps, old) for pair in pairs for new, old in (pair, pair[::-1])})

    return {
        "corners": exchanged(KINDS),
        **{f"corners_{kind}": exchanged([kind]) for kind in KINDS},
        "offset_xy": replace(maps, tl_offset=maps.tl_offset[::-1], br_offset=maps.br_offset[::-1]),
    }


def from_reference(maps: CornerMaps, reference: CornerMaps) -> dict[str, CornerMaps]:
    """Return the maps of one picture with some of the reference's in place, by the name of the repair."""
    taken = {
        **{name: [name] for name in OUTPUT_NAMES},
        **{kind: [f"{corner}_{kind}" for corner in CORNERS] for kind in KINDS},
        **{corner: [f"{corner}_{kind}" for kind in KINDS] for corner in CORNERS},
    }
    return {
        repair: replace(maps, **{name: getattr(reference, name) for name in names}) for repair, names in taken.items()
    }


class ClassVotes:
    """Which heat channels are hot where a class's corners truly are.

    Args:
        classes: Heat channels.
    """

    def __init__(self, classes: int) -> None:
        self._heat = np.zeros((classes, classes))  # sum of logits, by true class and channel
        self._corners = np.zeros(classes)

    def add(self, maps: CornerMaps, targets: Targets) -> None:
        """Count one picture."""
        for heat, cells in ((maps.tl_heat, targets.tl_cells), (maps.br_heat, targets.br_cells)):
            levels = np.nan_to_num(heat.reshape(len(heat), -1)[:, cells].T.astype(np.float64))
            np.add.at(self._heat, targets.labels, levels)
            np.add.at(self._corners, targets.labels, 1)

    def relabelling(self) -> NDArray[np.int64] | None:
        """Return the class [C] that each channel seems to show, or None where it is its own.

        The hottest pair of class and channel is taken first, then the hottest of what is left. Classes without objects
        keep their channels where these are free.
        """
        labels = np.full(len(self._heat), -1)
        seen = np.flatnonzero(self._corners)
        means = self._heat[seen] / self._corners[seen, None]
        for row, channel in zip(
            *np.unravel_index(np.argsort(-means, axis=None, kind="stable"), means.shape), strict=True
        ):
            if labels[channel] < 0 and seen[row] not in labels:
                labels[channel] = seen[row]
        for label in np.flatnonzero((labels < 0) & (self._corners == 0)):
            labels[label] = label
        labels[labels < 0] = [label for label in range(len(labels)) if label not in labels]
        return None if np.array_equal(labels, np.arange(len(labels))) else labels


def relabelled(detections: Sequence[Detections], labels: NDArray[np.int64]) -> list[Detections]:
    """Return what decoding permuted heat channels would have given, since no step mixes classes."""
    return [replace(one, labels=labels[one.labels]) for one in detections]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a repair brought."""

    repair: Repair
    ap: float
    gain: Difference


@dataclass(frozen=True, slots=True)
class Finding:
    """What the loss is laid at: the name of a repair, or None, and a sentence for people."""

    cause: str | None
    text: str


def find_cause(loss: Difference, effects: Sequence[Effect]) -> Finding:
    """Lay the loss at the simplest repair that brings nearly as much as the best one.

    Args:
        loss: AP of the reference less that of the model.
        effects: In the order of ``REPAIRS``.
    """
    if math.isnan(loss.points):
        return Finding(None, "there is no object to find on these pictures")
    lost = loss.exceeds(LEAST_LOSS)
    helpful = [
        effect
        for effect in effects
        if effect.gain.exceeds(LEAST_WIRING if effect.repair.part == "wiring" else LEAST_LOSS)
        and (lost or effect.repair.part == "wiring")
    ]
    if not helpful:
        if lost:
            return Finding(None, f"{_amount(loss)} are lost, and no exchange brings any back: {ELSEWHERE}")
        return Finding(None, f"nothing to lay at anything: {_amount(loss)} lost, too few or within the noise")
    best = max(effect.gain.points for effect in helpful)
    cause = next(effect for effect in helpful if effect.gain.points >= NEARLY * best)
    if lost and cause.gain.points < MOST * loss.points:
        text = f"{_amount(loss)} are lost; the most that one exchange brings back is {_amount(cause.gain)}"
        return Finding(None, f"{text} ({cause.repair.title}): {ELSEWHERE}")
    of = f" of {_amount(loss)} lost" if lost else ""
    return Finding(cause.repair.name, f"{cause.repair.fault}: the exchange brings back {_amount(cause.gain)}{of}")


ELSEWHERE = "the fault lies before the heads, or in several of them"


def _amount(difference: Difference) -> str:
    return f"{difference.points:.2f} points ({difference.low:.2f} to {difference.high:.2f})"
