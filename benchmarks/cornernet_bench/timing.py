"""Timing contestants against each other in one run, and saying on what."""

from __future__ import annotations

import platform
import time
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.table import Table

from cornernet_runtime.machine import core_count, cpu_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

PERCENTILES = (50, 90, 99)


def interleave(
    contestants: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 3
) -> dict[str, NDArray[np.float64]]:
    """Time each contestant once a round, so that whatever disturbs the machine disturbs all of them.

    Args:
        contestants: What to call, by name.
        rounds: Timed calls of each.
        warm_up: Calls of each before that.

    Returns:
        Milliseconds [rounds] by name.
    """
    for _ in range(warm_up):
        for run in contestants.values():
            run()
    times = {name: np.empty(rounds) for name in contestants}
    for index in range(rounds):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            times[name][index] = (time.perf_counter() - start) * 1000
    return times


def timing_table(title: str, times: Mapping[str, NDArray[np.float64]], reference: str) -> Table:
    """Return a table of percentiles, with each median's ratio to the reference's (above 1 is faster)."""
    table = Table("", box=box.SIMPLE_HEAD, title=title, title_justify="left")
    for percentile in PERCENTILES:
        table.add_column(f"p{percentile} ms", justify="right")
    table.add_column(f"times {reference}", justify="right")
    for name, values in times.items():
        ratio = np.median(times[reference]) / np.median(values)
        cells = (f"{value:.2f}" for value in np.percentile(values, PERCENTILES))
        table.add_row(name, *cells, f"{ratio:.1f}")
    return table


def environment(*distributions: str) -> str:
    """Return one line on processor, cores and versions, for the head of a report."""
    versions = (f"{name} {metadata.version(name)}" for name in ("numpy", *distributions))
    return f"{cpu_name()}, {core_count()} cores; Python {platform.python_version()}, {', '.join(versions)}"
