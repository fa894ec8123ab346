"""Timing contestants against each other in one run, and saying on what."""

from __future__ import annotations

import platform
import time
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from rich import box
from rich.table import Table

from cornernet_runtime.machine import core_count, cpu_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

PERCENTILES = (50, 90, 99)

Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class Summary:
    """What many times of one thing come to, milliseconds.

    Attributes:
        count: How many were taken.
        p50_ms: Median; percentiles lie on the line between the two nearest times.
        p90_ms: Ninetieth percentile.
        p95_ms: Ninety-fifth percentile.
        p99_ms: Ninety-ninth percentile; of fewer than a hundred times nearly the worst.
        mean_ms: Mean.
        std_ms: Standard deviation of the times themselves.
        spread_percent: From the tenth to the ninetieth percentile, in percent of the median.
    """

    count: int
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    std_ms: float
    spread_percent: float


def summarise(times: ArrayLike) -> Summary:
    """Return the summary of times [N] in milliseconds, N at least 1."""
    values = np.asarray(times, np.float64)
    p10, p50, p90, p95, p99 = np.percentile(values, (10, 50, 90, 95, 99)).tolist()
    spread = 100 * (p90 - p10) / p50 if p50 > 0 else 0.0
    return Summary(len(values), p50, p90, p95, p99, float(values.mean()), float(values.std()), spread)


class StageClock:
    """Adds up how long the stages of a run take: ``with clock("decode"): ...``; stages do not nest.

    Args:
        finish: Waits for what a stage has only enqueued; called at its beginning and end.
        now: Seconds.

    Attributes:
        now: As given.
        times: Milliseconds by stage since ``take``, in the order in which the stages first came.
    """

    def __init__(
        self, finish: Callable[[], object] = lambda: None, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._finish, self.now = finish, now
        self.times: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what runs inside."""
        self._finish()
        start = self.now()
        yield
        self._finish()
        self.times[stage] = self.times.get(stage, 0.0) + (self.now() - start) * 1000

    def take(self) -> dict[str, float]:
        """Return the times of one run and begin the next."""
        times, self.times = self.times, {}
        return times


def take_turns(names: Sequence[Name], rounds: int) -> Iterator[tuple[int, Name]]:
    """Yield (round, name): each once a round, every other round backwards, so that none always follows the same one."""
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            yield number, name


def interleave(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 3,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, NDArray[np.float64]]:
    """Time each contestant once a round, so that whatever disturbs the machine disturbs all of them.

    Args:
        contestants: What to call, by name.
        rounds: Timed calls of each.
        warm_up: Calls of each before that.
        now: Seconds.

    Returns:
        Milliseconds [rounds] by name.
    """
    names = list(contestants)
    for _, name in take_turns(names, warm_up):
        contestants[name]()
    times = {name: np.empty(rounds) for name in names}
    for number, name in take_turns(names, rounds):
        start = now()
        contestants[name]()
        times[name][number] = (now() - start) * 1000
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
