"""Which models no other beats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cornernet_bench.measuring.intervals import Difference, Ratio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cornernet_bench.compare.entrant import Entrant


def stars(entrants: Sequence[Entrant]) -> list[bool]:
    """Say which are on the front, or within the noise of one that is; none where there is only one."""
    if len(entrants) < 2:
        return [False] * len(entrants)
    best = front([(entrant.p50_ms, round(entrant.ap, 2)) for entrant in entrants])  # less is no better
    leading = [entrant for entrant, is_best in zip(entrants, best, strict=True) if is_best]
    return [
        is_best or any(_equal(leader, entrant) for leader in leading)
        for entrant, is_best in zip(entrants, best, strict=True)
    ]


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Say which points (milliseconds, AP) no other point beats: as fast and as accurate, and better in one of them."""
    return [
        not math.isnan(ms + ap)
        and not any(
            other_ms <= ms and other_ap >= ap and (other_ms, other_ap) != (ms, ap) for other_ms, other_ap in points
        )
        for ms, ap in points
    ]


def _equal(one: Entrant, other: Entrant) -> bool:
    """Say whether the two lie within each other's noise, in speed and in AP."""
    if not (one.samples and other.samples and one.metrics and other.metrics):
        return False
    speed = Ratio.of(one.times, other.times)
    gain = Difference.of(other.ap - one.ap, other.resampled - one.resampled)
    return speed.low <= 1 <= speed.high and gain.low <= 0 <= gain.high
