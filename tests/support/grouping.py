"""Marks by what a test uses, and which tests share a worker of pytest-xdist."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from places import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

# Fixtures by the mark that their tests get. `compiled`: needs a C, C++ or CUDA compiler.
USES = {
    "compiled": {
        *("kernel_library", "gpu_driver", "plugin_library", "surface_descriptions"),
        *("counting", "sanitized", "threaded", "fibers", "threads", "foreign", "pooling_on_the_cpu"),
        *("driver", "library", "project", "compiled"),
    },
    "ray": {"ray_address"},
    "train": {"runs", "straight", "straight_best", "stopped"},
}
# Each stays on one worker, in this order, which is that of the time they take; other files follow.
FIRST = ("ray", "serial")
# With two workers on two cores, further threads only take turns.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def limit_threads(config: pytest.Config) -> None:
    """Have the numeric libraries of workers, and of what these start, use one thread each."""
    if config.getoption("numprocesses", None):
        for name in ONE_THREAD:
            os.environ.setdefault(name, "1")


def arrange(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures; under pytest-xdist, keep each file on one worker and start the longest first."""
    if (times := int(os.environ.get("CORNERNET_SOAK", "1"))) > 1:
        _scale_examples(items, times)
    for item in items:
        for mark, fixtures in USES.items():
            if fixtures & set(getattr(item, "fixturenames", ())):
                item.add_marker(mark)
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _scale_examples(items: list[pytest.Item], times: int) -> None:
    """Give each property more examples, drawn anew in each run."""
    from hypothesis import is_hypothesis_test, settings  # noqa: PLC0415 - slow to import, and rarely needed

    for test in {item.obj for item in items if is_hypothesis_test(getattr(item, "obj", None))}:
        now = test._hypothesis_internal_use_settings  # what @settings said
        more = settings(now, max_examples=times * now.max_examples, derandomize=False)
        test._hypothesis_internal_use_settings = more


def _group(item: pytest.Item) -> str:
    """Return the group of a test: that of its mark, or its file, whose fixtures are then made once."""
    for name in FIRST:
        if item.get_closest_marker(name) is not None:
            return name
    return item.path.relative_to(ROOT / "tests").with_suffix("").as_posix()


def _rank(item: pytest.Item) -> int:
    group = item.get_closest_marker("xdist_group").args[0]
    order: Sequence[str] = (*FIRST, *LONGEST)
    return order.index(group) if group in order else len(order)


# Files that take longest, longest first: what starts last should be short.
LONGEST: tuple[str, ...] = ()
