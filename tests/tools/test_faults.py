"""Which tests run for a fault, and what counts as found, on projects of a few lines."""

from __future__ import annotations

import json

import pytest
from coverage import CoverageData

import faults
from fault_sites import sites_of
from fault_tests import Covering, candidates_for

SOURCE = b"def area(side):\n    return side * 2\n"
COLLECTED = [
    "tests/runtime/test_area.py::test_quick",
    "tests/runtime/test_area.py::TestArea::test_slow",
    "tests/runtime/test_other.py::test_other",
    "tests/export/test_area.py::test_of_export",
]


@pytest.fixture
def fault():
    """The 2 of SOURCE."""
    return sites_of("runtime/package/area.py", SOURCE)[0]


@pytest.fixture
def covering(tmp_path):
    """Make what a run covered, from the lines of each context of area.py."""

    def make(lines_by_context):
        file = tmp_path / ".coverage"
        file.unlink(missing_ok=True)
        data = CoverageData(str(file))
        for context, lines in lines_by_context.items():
            data.set_context(context)
            data.add_lines({str(tmp_path / "elsewhere/runtime/package/area.py"): lines})
        data.write()
        return Covering(file, {"runtime/package/area.py"})

    return make


def test_tests_that_run_the_statement_are_all_and_the_cheapest_is_first(fault, covering):
    covered = covering(
        {
            "": [1],
            "tests.runtime.test_area.TestArea.test_slow": [1, 2, 3, 4],
            "tests.runtime.test_area.test_quick": [1, 2],
            "tests.runtime.test_other.test_other": [1],
            "tests.runtime.test_gone.test_gone": [2],
        }
    )
    assert candidates_for(fault, covered, COLLECTED) == COLLECTED[:2]


def test_tests_of_the_mirror_follow_where_the_statement_also_runs_outside_tests(fault, covering):
    covered = covering({"": [1, 2], "tests.runtime.test_other.test_other": [2]})
    assert candidates_for(fault, covered, COLLECTED) == [COLLECTED[2], *COLLECTED[:2]]


@pytest.mark.parametrize("lines_by_context", [{}, {"": [1, 2]}], ids=["nowhere", "outside tests"])
def test_tests_of_the_folder_run_where_no_test_runs_the_statement(fault, covering, lines_by_context):
    assert candidates_for(fault, covering(lines_by_context), COLLECTED) == COLLECTED[:3]


TESTS = """
import time
from pathlib import Path

import pytest
from package.area import area

def test_nothing():
    assert area

@pytest.mark.slow
def test_value():
    assert area(3) == 6, "measured"

def test_ends():
    while area(3) == 12:
        time.sleep(0.1)
"""


STOPS = """
import os
from package.area import area

def test_stops():
    if area(3) == 12:
        os.kill(os.getpid(), 15)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A tree with one function and three tests, and a folder for the results."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    tree = tmp_path / "tree"
    (tree / "runtime/package").mkdir(parents=True)
    (tree / "tests/runtime").mkdir(parents=True)
    (tree / "pyproject.toml").write_text(
        '[tool.hatch.build.targets.wheel]\npackages = ["runtime/package"]\n'
        '[tool.pytest.ini_options]\naddopts = "-ra"\nmarkers = ["slow"]\n'
    )
    (tree / "runtime/package/area.py").write_bytes(SOURCE)
    (tree / "tests/runtime/test_area.py").write_text(TESTS)
    return tree


def judged(project, *options):
    """Run the command line on ``project``; return its exit status and what it wrote of the only fault."""
    result = project.parent / "result.json"
    status = faults.main(["--tree", str(project), "--count", "1", "--json", str(result), *options])
    (entry,) = json.loads(result.read_text())["faults"]
    return status, entry


def test_a_fault_is_found_by_the_test_that_fails(project):
    status, entry = judged(project)
    assert (status, entry["outcome"]) == (0, "found")
    assert entry["test"] == "tests/runtime/test_area.py::test_value"
    assert (entry["before"], entry["after"], entry["line"]) == ("2", "3", 2)
    assert (project / "runtime/package/area.py").read_bytes() == SOURCE


def test_a_fault_survives_the_tests_of_an_expression(project, capsys):
    status, entry = judged(project, "--tests-expression", "not slow")
    assert (status, entry["outcome"], entry["tests"]) == (1, "survived", 2)
    assert "0 of 1 found; not found: 1" in capsys.readouterr().out


def test_a_fault_that_hangs_a_test_is_found_and_reported_as_hanging(project):
    (project / "runtime/package/area.py").write_text("def area(side):\n    return side * 3\n")
    status, entry = judged(project, "--tests-expression", "not slow", "--test-limit", "1")
    assert (status, entry["outcome"], entry["test"]) == (0, "hangs", "tests/runtime/test_area.py::test_ends")


def test_a_fault_is_undecided_when_time_is_up(project):
    (project / "runtime/package/area.py").write_text("def area(side):\n    return side * 3\n")
    status, entry = judged(project, "--tests-expression", "not slow", "--limit", "1")
    assert (status, entry["outcome"]) == (1, "undecided")


def test_a_fault_is_undecided_when_pytest_is_stopped(project):
    (project / "runtime/package/area.py").write_text("def area(side):\n    return side * 3\n")
    (project / "tests/runtime/test_area.py").write_text(STOPS)
    status, entry = judged(project)
    assert (status, entry["outcome"]) == (1, "undecided")


def test_a_test_that_fails_without_the_fault_finds_nothing(project, capsys):
    (project / "tests/runtime/test_area.py").write_text("def test_broken():\n    assert False\n")
    status, entry = judged(project)
    assert (status, entry["outcome"]) == (1, "survived")
    assert "it also fails without a fault: tests/runtime/test_area.py::test_broken" in capsys.readouterr().out


def test_a_list_that_was_written_is_read_again(project, capsys):
    result = project.parent / "result.json"
    faults.main(["--tree", str(project), "--count", "1", "--json", str(result), "--list"])
    first = capsys.readouterr().out
    faults.main(["--tree", str(project), "--faults", str(result), "--list"])
    assert capsys.readouterr().out == first == "  1 runtime/package/area.py:2 constant: 2 -> 3\n    return side * 2\n"


def test_a_fault_whose_code_is_gone_is_reported(project):
    result = project.parent / "result.json"
    faults.main(["--tree", str(project), "--count", "1", "--json", str(result), "--list"])
    (project / "runtime/package/area.py").write_text("def area(side):\n    return side + side\n")
    status, entry = judged(project, "--faults", str(result))
    assert (status, entry["outcome"]) == (1, "gone")
