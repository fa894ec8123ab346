"""The GPU pipeline through NVIDIA's real bindings, on a driver whose launches and graphs run on the CPU."""

import functools
import json
import os
import subprocess
import sys

import pytest
from cases import capture as capture_cases
from cases import pipeline as pipeline_cases
from cases import ring as ring_cases
from cases import scene as scene_cases
from cases import stage as stage_cases
from cases import stream as stream_cases
from cases.pipeline_run import cases_of
from places import SOURCE_ROOTS, SUPPORT, python_path

from cornernet_runtime.pipeline.plan import Batch, Plan

WIDE, SMALL = (63, 95), (31, 47)


# Modules of cases, and how late a stream does its work there: as late as may be, or by chance.
LATE, CHANCE = -1, 20
LATE_ONES = (pipeline_cases, capture_cases, scene_cases, stage_cases, ring_cases, stream_cases)
ORDERS = (*((module, LATE) for module in LATE_ONES), (ring_cases, CHANCE))
CASES = [
    pytest.param(
        module.__name__,
        order,
        name,
        id=f"{name}-{'late' if order == LATE else 'by chance'}",
        marks=[] if module is pipeline_cases else [pytest.mark.slow],
    )
    for module, order in ORDERS
    for name in cases_of(module)
]


@pytest.fixture(scope="module")
def outcomes(gpu_driver, kernel_cache, tmp_path_factory):
    """A function that returns what went wrong in each case of a module, or None."""
    folders = [*SOURCE_ROOTS, SUPPORT]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(gpu_driver),
        "CORNERNET_CACHE": str(kernel_cache),
        "PYTHONPATH": python_path(*folders),
    }

    @functools.cache
    def run(module, order):
        report = tmp_path_factory.mktemp("pipeline") / "report.json"
        command = [sys.executable, "-m", "cases.pipeline_run", str(report), module]
        settings = {**environment, "FAKE_ORDER": str(order)}
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)  # noqa: S603 - ours
        sys.stderr.write(done.stderr)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(report.read_text())

    return run


@pytest.mark.parametrize(("module", "order", "case"), CASES)
def test_on_a_gpu(module, order, case, outcomes):
    found = outcomes(module, order)[case]
    assert found is None, found


def test_a_plan_of_one_size_is_seen_in_the_order_of_frames_and_views():
    plan = Plan((WIDE, WIDE), 3)
    assert plan.views == 6
    assert plan.batches(4) == [Batch(WIDE, 0, (0, 1, 2, 3)), Batch(WIDE, 4, (4, 5))]
    assert [batch.runs() for batch in plan.batches(4)] == [[(0, 0, 4)], [(0, 4, 2)]]


def test_a_plan_of_two_sizes_is_seen_size_by_size():
    plan = Plan((WIDE, WIDE, SMALL), 2)  # views 0 1 2 of the first frame, 3 4 5 of the second
    assert plan.batches(4) == [Batch(WIDE, 0, (0, 1, 3, 4)), Batch(SMALL, 4, (2, 5))]
    assert [batch.runs() for batch in plan.batches(4)] == [[(0, 0, 2), (2, 3, 2)], [(0, 2, 1), (1, 5, 1)]]
    assert plan.batches(3) == [Batch(WIDE, 0, (0, 1, 3)), Batch(WIDE, 3, (4,)), Batch(SMALL, 4, (2, 5))]
