"""What makes any timing doubtful: a busy machine, and times that spread."""

from __future__ import annotations

SPREAD_PERCENT = 20.0  # from the tenth to the ninetieth percentile, of the median
BY_CPU_TIME = "on a machine that others use too, --threads 1 --cpu-time tells which is faster"
LOAD_SHARE = 0.5  # of the cores, busy before the measurement begins


def load_doubts(load_average: float, cores: int, advice: str = "") -> list[str]:
    """Return a line if the machine was busy before a measurement, else none.

    Args:
        load_average: Processes that ran or waited in the minute before.
        cores: That this process may use.
        advice: What else helps than to end them; may be empty.
    """
    if load_average <= LOAD_SHARE * cores:
        return []
    line = f"{load_average:.1f} processes ran in the minute before, on {cores} cores: end what else runs"
    return [f"{line} and measure again{advice and f'; {advice}'}"]
