"""Where two networks that should compute the same do not: their six maps side by side, as they are and rewired."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cornernet_bench.compare.report import MapCheck
from cornernet_bench.oracle.maps import CORNERS, KINDS
from cornernet_bench.oracle.repairs import CLASSES, ELSEWHERE, INPUT_CHANNELS, REPAIRS, rewired
from cornernet_export.verification.verify import compare_outputs
from cornernet_runtime.processing.maps import OUTPUT_NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.detector import Detector
    from cornernet_runtime.processing.maps import CornerMaps

AS_IT_IS = ""


class MapDifferences:
    """The largest errors that maps have beside those of another network, picture by picture.

    Args:
        tolerance: Largest error of an output, relative to the other's largest value, that means nothing.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._errors: dict[str, dict[str, float]] = {}
        self._order: NDArray[np.int64] | None = None
        self._pictures = 0

    def add(self, frame: NDArray[np.uint8], expected: CornerMaps, detector: Detector) -> None:
        """Look at one picture.

        Args:
            frame: uint8 [H, W, 3], BGR.
            expected: The other network's maps of it, of the same shapes.
            detector: The one that is looked into.
        """
        found = detector.corner_maps(frame)[0]
        if self._pictures == 0:
            self._order = _class_order(expected, found)
        trials = {AS_IT_IS: found, **rewired(found)}
        if self._order is not None:
            trials[CLASSES] = replace(found, tl_heat=found.tl_heat[self._order], br_heat=found.br_heat[self._order])
        for trial, maps in trials.items():
            self._take(trial, expected, maps)
        # Last, for a backend may write its next maps over these.
        self._take(INPUT_CHANNELS, expected, detector.corner_maps(frame[:, :, ::-1])[0])
        self._pictures += 1

    def check(self) -> MapCheck | None:
        """Return the errors as they are, or None if no picture was looked at."""
        return MapCheck(self._pictures, self._errors[AS_IT_IS], self._tolerance) if self._pictures else None

    def cause(self) -> tuple[str | None, str | None]:
        """Return the name of the repair that says where the maps differ, and it in words.

        An exchange counts if with it all six maps agree. Both are None where they agree as they are; only the name is
        where they differ before the heads, or in several of them.
        """
        check = self.check()
        if check is None or not check.differing:
            return None, None
        for repair in REPAIRS:
            errors = self._errors.get(repair.name)
            if errors and all(error <= self._tolerance for error in errors.values()):
                return repair.name, f"{repair.fault}: exchanged, all six maps agree"
        worst = max(check.errors.values())
        said = f"up to {worst:.2g} of the largest value off, where {self._tolerance:.2g} means nothing"
        for repair in REPAIRS:
            if set(_outputs_of(repair.name)) == set(check.differing):
                return repair.name, f"{repair.fault}: {said}"
        if len(check.differing) == len(OUTPUT_NAMES):
            return None, f"all six maps are {said}: other weights, or {ELSEWHERE}"
        return None, f"{', '.join(check.differing)} are {said}: {ELSEWHERE}"

    def _take(self, trial: str, expected: CornerMaps, maps: CornerMaps) -> None:
        errors = self._errors.setdefault(trial, dict.fromkeys(OUTPUT_NAMES, 0.0))
        for check in compare_outputs(expected, maps, "", "", self._tolerance):
            errors[check.output] = max(errors[check.output], check.error)


def _outputs_of(repair: str) -> tuple[str, ...]:
    """Return the outputs that a repair takes from the other network; none for one that rewires."""
    if repair in OUTPUT_NAMES:
        return (repair,)
    if repair in KINDS:
        return tuple(f"{corner}_{repair}" for corner in CORNERS)
    return tuple(f"{repair}_{kind}" for kind in KINDS) if repair in CORNERS else ()


def _class_order(expected: CornerMaps, found: CornerMaps) -> NDArray[np.int64] | None:
    """Return which channel [C] of the found heat is nearest to each expected one; None where each is its own.

    None too where the two corners do not agree about it, or a channel would be taken twice.
    """
    order, other = _nearest(expected.tl_heat, found.tl_heat), _nearest(expected.br_heat, found.br_heat)
    usual = np.arange(len(order))
    if not np.array_equal(order, other) or np.array_equal(order, usual) or not np.array_equal(np.sort(order), usual):
        return None
    return order


def _nearest(expected: NDArray[np.float32], found: NDArray[np.float32]) -> NDArray[np.int64]:
    wanted, have = (maps.reshape(len(maps), -1).astype(np.float64) for maps in (expected, found))
    # The square of the difference, but for what is the same in a row.
    return np.asarray(((have**2).sum(axis=1)[None] - 2 * wanted @ have.T).argmin(axis=1), np.int64)
