"""Ratios and differences with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RESAMPLES = 200
FEW = 20  # pictures below which resampling says little


@dataclass(frozen=True, slots=True)
class Ratio:
    """Time of the first model through time of another, round by round: above 1 the other is faster.

    Attributes:
        median: Of all rounds.
        low: Tenth percentile.
        high: Ninetieth percentile.
    """

    median: float
    low: float
    high: float

    @staticmethod
    def of(first: Sequence[float], other: Sequence[float]) -> Ratio:
        """Return it of the times of the rounds that both have; at least one."""
        rounds = min(len(first), len(other))
        ratios = np.asarray(first[:rounds], np.float64) / np.asarray(other[:rounds], np.float64)
        low, median, high = np.percentile(ratios, (10, 50, 90)).tolist()
        return Ratio(median, low, high)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of AP in points, and its interval of 95 % over sets made of the same pictures drawn anew."""

    points: float
    low: float
    high: float

    @staticmethod
    def of(points: float, resampled: NDArray[np.float64]) -> Difference:
        """Return it with the interval that differences [B] of resampled sets show."""
        known = resampled[np.isfinite(resampled)]
        low, high = np.percentile(known, (2.5, 97.5)) if known.size else (np.nan, np.nan)
        return Difference(points, float(low), float(high))

    def exceeds(self, least: float) -> bool:
        """Say whether it is at least so many points, and more than the noise."""
        return self.points >= least and self.low > 0


def resampling_note(pictures: int) -> str:
    """Return what the intervals are."""
    few = f"; {count_of(pictures, 'picture')} are few for that" if pictures < FEW else ""
    return f"intervals hold 95 % of {RESAMPLES} sets of as many pictures, drawn anew from these{few}"
