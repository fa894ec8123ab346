"""The search for the fastest mix of INT8 and float32 that keeps AP: which groups of layers to leave in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

FASTER = 1.02  # times as fast that one of two has to be to count as faster: less is noise


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast one of two is that ran in turn.

    Attributes:
        median: Of the ratios of the rounds.
        low: Lower end of the interval that holds the true median in 95 of 100 cases, whatever the distribution.
        high: Upper end.
        spread_percent: From the tenth to the ninetieth percentile of the ratios, in percent of their median.
    """

    median: float
    low: float
    high: float
    spread_percent: float

    @property
    def is_gain(self) -> bool:
        """Whether it is faster by more than noise."""
        return self.median > FASTER and self.low > 1

    def __str__(self) -> str:
        """Return the median with its interval."""
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio_of(reference: NDArray[np.float64], times: NDArray[np.float64]) -> Ratio:
    """Return how many times as fast ``times`` [rounds] are as ``reference`` [rounds], of the same rounds."""
    ratios = np.sort(reference / times)
    p10, median, p90 = np.percentile(ratios, (10, 50, 90)).tolist()
    # As many of n lie below the median as heads fall in n throws: n/2 with a deviation of sqrt(n)/2.
    rank = max(0, math.floor((len(ratios) - 1.96 * math.sqrt(len(ratios))) / 2))
    return Ratio(median, float(ratios[rank]), float(ratios[-1 - rank]), 100 * (p90 - p10) / median)


UNITY = Ratio(1.0, 1.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Mix:
    """A mix of INT8 and float32 that was measured.

    Attributes:
        float_groups: Groups in float32, sorted; the others are in INT8.
        times_fp32: How many times as fast as the float32 network, both run in turn.
        times_int8: How many times as fast as the network with all groups in INT8, both run in turn.
        ap: Points of 100; None where only its time was of interest.
    """

    float_groups: tuple[str, ...]
    times_fp32: Ratio
    times_int8: Ratio
    ap: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the search found.

    Attributes:
        best: The mix that is left when AP suffices, or the one of the highest AP if none suffices and is faster than
            float32. Its AP is known.
        met: Whether it is within the budget and faster than float32.
        reasons: For each group that ``best`` has in float32, why.
        measured: All mixes.
    """

    best: Mix
    met: bool
    reasons: dict[str, str]
    measured: tuple[Mix, ...]


def search(groups: Sequence[str], measure: Callable[[tuple[str, ...], bool], Mix], least_ap: float) -> Outcome:
    """Find the fastest mix whose AP is no less than ``least_ap``.

    Every group is timed in float32 alone; those that INT8 makes slower by more than noise, in two timings, stay there.
    If AP does not suffice then, the AP that each group gains alone is measured, and groups are left in float32 until AP
    suffices, those first that give most AP for their time. At the end each of them is tried in INT8 once more, since
    their losses do not add up.

    Args:
        groups: Names.
        measure: Measures the mix that has these groups in float32, its AP too if that is asked for.
        least_ap: Points of 100.
    """
    bench = _Bench(measure)
    bench.mix(())
    # Of many groups noise alone makes some look slow: each must in a second timing too.
    seem_slow = [group for group in groups if bench.mix({group}).times_int8.is_gain]
    again = {group: bench.timed_again({group}).times_int8 for group in seem_slow}
    slow = {group: ratio for group, ratio in again.items() if ratio.is_gain}
    if not bench.mix(slow).times_int8.is_gain:  # what each seemed to save was noise
        slow = {}
    kept = set(slow)
    if bench.ap(kept) < least_ap:
        for group in sorted(set(groups) - kept, key=bench.worth, reverse=True):
            kept.add(group)
            if bench.ap(kept) >= least_ap:
                break
        for group in sorted(kept - set(slow), key=lambda group: bench.mix({group}).times_int8.median):
            if bench.ap(kept) >= least_ap and bench.ap(kept - {group}) >= least_ap:
                kept.discard(group)

    def faster(mix: Mix) -> bool:
        # With all groups in float32 it is the float32 network itself, whatever noise says of its time.
        return mix.times_fp32.is_gain and len(mix.float_groups) < len(groups)

    good = bench.ap(kept) >= least_ap and faster(bench.mix(kept))
    known = [(mix.ap, mix.times_fp32.median, mix) for mix in bench.mixes.values() if mix.ap is not None and faster(mix)]
    best = bench.mix(kept) if good or not known else max(known, key=lambda item: item[:2])[2]
    reasons = {group: _reason(group, slow, bench) for group in best.float_groups}
    return Outcome(best, good, reasons, tuple(bench.mixes.values()))


class _Bench:
    """Remembers what was measured."""

    def __init__(self, measure: Callable[[tuple[str, ...], bool], Mix]) -> None:
        self._measure = measure
        self.mixes: dict[tuple[str, ...], Mix] = {}

    def mix(self, float_groups: Collection[str], *, with_ap: bool = False) -> Mix:
        key = tuple(sorted(float_groups))
        known = self.mixes.get(key)
        if known is None or (with_ap and known.ap is None):
            self.mixes[key] = self._measure(key, with_ap)
        return self.mixes[key]

    def timed_again(self, float_groups: Collection[str]) -> Mix:
        """Return a second timing, which takes the place of the first."""
        key = tuple(sorted(float_groups))
        self.mixes[key] = replace(self._measure(key, False), ap=self.mixes[key].ap)
        return self.mixes[key]

    def ap(self, float_groups: Collection[str]) -> float:
        ap = self.mix(float_groups, with_ap=True).ap
        if ap is None:
            raise AssertionError("AP was asked for and not measured")
        return ap

    def gain(self, group: str) -> float:
        """Return the AP that a group in float32 gives alone."""
        return self.ap({group}) - self.ap(())

    def worth(self, group: str) -> float:
        """Return the AP that a group in float32 gives for the time that it costs, a share of that of INT8."""
        return self.gain(group) / max(1 / self.mix({group}).times_int8.median - 1, 1e-3)


def _reason(group: str, slow: Mapping[str, Ratio], bench: _Bench) -> str:
    if group in slow:  # the timing that decided: later ones, beside an AP, may differ
        return f"int8 saves no time: with it in float the network is {slow[group]} times as fast"
    gain = bench.gain(group)
    return f"its int8 alone costs {gain:.2f} AP" if gain > 0 else "with others in int8 as well it costs AP"
