"""The arithmetic of timing, on clocks that tick as the tests say."""

from __future__ import annotations

import statistics
from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cornernet_bench.measuring.timing import StageClock, interleave, summarise, take_turns


def percentile(values, percent):
    """The value at ``percent`` of the way through the sorted ones, on the line between its two neighbours."""
    ordered = sorted(values)
    place = percent / 100 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


# Ten microseconds to ten seconds: the rounding of a percentile's place, times the largest, is nothing to the smallest.
@given(st.lists(st.floats(1e-2, 1e4), min_size=1, max_size=200))
def test_a_summary_is_that_of_the_definitions(times):
    summary = summarise(times)
    assert summary.count == len(times)
    for name, percent in (("p50_ms", 50), ("p90_ms", 90), ("p95_ms", 95), ("p99_ms", 99)):
        assert getattr(summary, name) == pytest.approx(percentile(times, percent))
    assert summary.mean_ms == pytest.approx(statistics.fmean(times))
    # Of a million equal times the two ways of adding leave some 1e-10.
    assert summary.std_ms == pytest.approx(statistics.pstdev(times), abs=1e-8)
    spread = 100 * (percentile(times, 90) - percentile(times, 10)) / percentile(times, 50)
    assert summary.spread_percent == pytest.approx(spread, abs=1e-8)


def test_a_hundred_and_one_times_have_their_percentiles_among_them():
    summary = summarise(np.random.default_rng(0).permutation(101) + 1)
    assert (summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms) == (51, 91, 96, 100)
    assert summary.spread_percent == pytest.approx(100 * 80 / 51)


def test_times_of_nothing_have_no_spread():
    assert summarise([0.0, 0.0]).spread_percent == 0


def test_turns_alternate_their_order():
    assert "".join(name for _, name in take_turns("abc", 3)) == "abccbaabc"
    assert [number for number, _ in take_turns("ab", 3)] == [0, 0, 1, 1, 2, 2]


def test_no_contestant_always_follows_the_same_one():
    names = [name for _, name in take_turns("ab", 100)]
    followers = [after for before, after in pairwise(names) if before == "a"]
    assert 40 < followers.count("b") < 110
    assert followers.count("a") > 40


def test_interleaving_times_each_round_and_not_the_warm_up():
    calls, ticks = [], count()
    contestants = {name: lambda name=name: calls.append(name) for name in "ab"}
    times = interleave(contestants, rounds=3, warm_up=2, now=lambda: next(ticks))
    assert "".join(calls) == "abba" + "abbaab"
    assert {name: values.tolist() for name, values in times.items()} == {"a": [1000] * 3, "b": [1000] * 3}
    assert next(ticks) == 12  # two looks at the clock for each of the six timed calls


def test_the_clock_adds_up_what_a_stage_takes_in_one_run():
    now = iter([0.0, 0.002, 0.010, 0.015, 0.020, 0.021, 1.0, 1.5])
    clock = StageClock(now=lambda: next(now))
    for stage in ("decode", "network", "decode"):
        with clock(stage):
            pass
    times = clock.take()
    assert list(times) == ["decode", "network"]
    assert times == pytest.approx({"decode": 3, "network": 5})
    with clock("network"):
        pass
    assert clock.take() == pytest.approx({"network": 500})


def test_the_clock_waits_for_the_device_before_and_after_a_stage():
    events = []
    clock = StageClock(finish=lambda: events.append("finish"), now=lambda: float(len(events)))
    with clock("network"):
        events.append("work")
    assert events == ["finish", "work", "finish"]
    assert clock.take() == {"network": 2000.0}  # from after the first wait to after the second
