"""Which tests count as gone, new, moved or renamed, and which coverage fell."""

from __future__ import annotations

import subprocess

import pytest
from coverage import CoverageData

import compare_suites
from compare_suites import compare, functions_of

BODY = """\
    made = make(3)
    check(made)
    assert made.size == 3
    assert made.name == "x"
    assert made.ok
"""


def functions(path, source):
    return list(functions_of(path, source))


def test_functions_and_methods_are_listed_and_helpers_are_not():
    source = "def helper(): ...\ndef test_a(): ...\nclass TestB:\n    def test_c(self): ...\n    def make(self): ...\n"
    assert list(map(str, functions("t.py", source))) == ["t.py::test_a", "t.py::TestB::test_c"]


def test_parameters_do_not_count():
    plain = functions("t.py", "def test_a(x): ...\n")
    parametrised = functions("t.py", "@pytest.mark.parametrize('x', [1, 2])\ndef test_a(x): ...\n")
    changes = compare(plain, parametrised)
    assert (changes.kept, changes.went, changes.came) == (1, [], [])


def test_a_test_in_another_file_has_moved():
    changes = compare(functions("a.py", "def test_a(): ...\n"), functions("b.py", "def test_a(): ...\n"))
    assert [(str(old), str(new)) for old, new in changes.moved] == [("a.py::test_a", "b.py::test_a")]
    assert (changes.kept, changes.went, changes.came) == (0, [], [])


def test_a_test_with_nearly_the_same_lines_is_renamed():
    old = functions("a.py", f"def test_old(make):\n{BODY}")
    new = functions("a.py", f"def test_new(make):\n{BODY.replace('made.ok', 'made.good')}")
    assert [(old.name, new.name) for old, new in compare(old, new).renamed] == [("test_old", "test_new")]


def test_another_test_in_its_place_is_not_a_new_name():
    changes = compare(functions("a.py", f"def test_old():\n{BODY}"), functions("a.py", "def test_new():\n    go()\n"))
    assert [test.name for test in changes.went] == ["test_old"]
    assert [test.name for test in changes.came] == ["test_new"]


def test_one_of_two_tests_with_the_same_name_has_gone():
    old = functions("a.py", "def test_a(): ...\n") + functions("b.py", "def test_a():\n    go()\n")
    changes = compare(old, functions("b.py", "def test_a():\n    go()\n"))
    assert (changes.kept, list(map(str, changes.went))) == (1, ["a.py::test_a"])


def test_a_revision_is_compared_with_a_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "tests/runtime").mkdir(parents=True)
    file = tmp_path / "tests/runtime/test_a.py"
    file.write_text("def test_a(): ...\ndef test_b():\n    b()\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)  # noqa: S603, S607 - fixed
    file.write_text("def test_a(): ...\n")
    monkeypatch.setattr(compare_suites, "ROOT", tmp_path)
    assert compare_suites.main(["tests", "HEAD", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1 stayed, 0 moved, 0 renamed, 1 went, 0 came"
    assert lines[3] == "- tests/runtime/test_a.py::test_b"


@pytest.mark.parametrize(("allowed", "status"), [("50", 0), ("49.9", 1)])
def test_coverage_that_falls_by_more_than_is_allowed_is_a_failure(tmp_path, capsys, allowed, status):
    module = tmp_path / "cornernet_small" / "code.py"
    module.parent.mkdir()
    module.write_text("def f(x):\n    if x:\n        return 1\n    return 2\n")
    # Arcs that run the function once with a true and, before only, once with a false argument.
    true, false = {(-1, 1), (1, -1), (-1, 2), (2, 3), (3, -1)}, {(2, 4), (4, -1)}
    for name, arcs in (("before", true | false), ("after", true)):
        data = CoverageData(str(tmp_path / name))
        data.add_arcs({str(module): arcs})
        data.write()
    files = [str(tmp_path / "before"), str(tmp_path / "after")]
    # The branch falls by 50 points, and the lines by 25: three of four are left.
    assert compare_suites.main(["coverage", *files, "--allow", allowed]) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| cornernet_small | lines | 100.00 | 75.00 | -25.00 |",
        "| cornernet_small | branches | 100.00 | 50.00 | -50.00 |",
    ]
