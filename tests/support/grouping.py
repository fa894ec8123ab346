"""Marks by what a test uses, and which tests share a worker of pytest-xdist.

Its own groups (``--dist loadgroup``, pytest-xdist 3.8) do nothing under pytest 9.2, without a word.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

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
# Files that share a worker: two Rays at once would compete for the machine. They start first, since they take longest.
GROUPS = {
    "ray": (
        *("tests/runtime/cluster/", "tests/runtime/serve/"),
        *("tests/benchmarks/test_accuracy_ray.py", "tests/benchmarks/test_serve_bench.py"),
    ),
}
# With two workers on two cores, further threads only take turns.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def limit_threads(config: pytest.Config) -> None:
    """Have the numeric libraries of workers, and of what these start, use one thread each."""
    if config.getoption("numprocesses", None):
        for name in ONE_THREAD:
            os.environ.setdefault(name, "1")


def arrange(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures; in a worker of pytest-xdist, put what takes longest first."""
    if (times := int(os.environ.get("CORNERNET_SOAK", "1"))) > 1:
        _scale_examples(items, times)
    for item in items:
        for mark, fixtures in USES.items():
            if fixtures & set(getattr(item, "fixturenames", ())):
                item.add_marker(mark)
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _scale_examples(items: list[pytest.Item], times: int) -> None:
    """Give each property more examples, drawn anew in each run."""
    from hypothesis import is_hypothesis_test, settings  # noqa: PLC0415 - slow to import, and rarely needed

    for test in {item.obj for item in items if is_hypothesis_test(getattr(item, "obj", None))}:
        now = test._hypothesis_internal_use_settings  # what @settings said
        more = settings(now, max_examples=times * now.max_examples, derandomize=False)
        test._hypothesis_internal_use_settings = more


def scheduler(config: pytest.Config, log: object) -> object:
    """Return what hands tests to workers: a file, whose fixtures are then made once, or a group of files at a time."""
    from xdist.scheduler import LoadFileScheduling  # noqa: PLC0415 - only where there are workers

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return Scheduler(config, log)


def group_of(nodeid: str) -> str:
    """Return the name of the group that a test is in, or its file."""
    file = nodeid.partition("::")[0]
    return next((name for name, places in GROUPS.items() if file.startswith(places)), file)


def _rank(item: pytest.Item) -> int:
    group, order = group_of(item.nodeid), (*GROUPS, *LONGEST)
    return order.index(group) if group in order else len(order)


# Files that take longest, longest first: what starts last should be short.
LONGEST: tuple[str, ...] = ()
