"""The search for the fastest mix of INT8 and float32 that keeps AP: which groups of layers to leave in float32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

FASTER = 1.02  # times as fast that one of two has to be to count as faster: less is noise


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
    times_fp32: float
    times_int8: float
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

    Every group is timed in float32 alone; those that INT8 makes slower, in two timings, stay there. If AP does not
    suffice then, the AP that each group gains alone is measured, and groups are left in float32 until AP suffices,
    those first that give most AP for their time. At the end each of them is tried in INT8 once more, since their losses
    do not add up.

    Args:
        groups: Names.
        measure: Measures the mix that has these groups in float32, its AP too if that is asked for.
        least_ap: Points of 100.
    """
    bench = _Bench(measure)
    bench.mix(())
    # Of many groups noise alone makes some look slow: each must in a second timing too.
    seem_slow = [group for group in groups if bench.mix({group}).times_int8 > FASTER]
    slow = {group for group in seem_slow if bench.timed_again({group}).times_int8 > FASTER}
    if bench.mix(slow).times_int8 <= FASTER:  # what each seemed to save was noise
        slow = set()
    kept = set(slow)
    if bench.ap(kept) < least_ap:
        for group in sorted(set(groups) - kept, key=bench.worth, reverse=True):
            kept.add(group)
            if bench.ap(kept) >= least_ap:
                break
        for group in sorted(kept - slow, key=lambda group: bench.mix({group}).times_int8):
            if bench.ap(kept) >= least_ap and bench.ap(kept - {group}) >= least_ap:
                kept.discard(group)

    def faster(mix: Mix) -> bool:
        # With all groups in float32 it is the float32 network itself, whatever noise says of its time.
        return mix.times_fp32 > FASTER and len(mix.float_groups) < len(groups)

    good = bench.ap(kept) >= least_ap and faster(bench.mix(kept))
    known = [(mix.ap, mix.times_fp32, mix) for mix in bench.mixes.values() if mix.ap is not None and faster(mix)]
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
        return self.gain(group) / max(1 / self.mix({group}).times_int8 - 1, 1e-3)


def _reason(group: str, slow: Collection[str], bench: _Bench) -> str:
    if group in slow:
        return f"int8 saves no time: with it in float the network is {bench.mix({group}).times_int8:.2f} times as fast"
    gain = bench.gain(group)
    return f"its int8 alone costs {gain:.2f} AP" if gain > 0 else "with others in int8 as well it costs AP"
