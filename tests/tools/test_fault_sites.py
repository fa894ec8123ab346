"""Where a fault can be put, and that a draw repeats."""

from __future__ import annotations

import textwrap
from collections import Counter

import pytest

from fault_sites import draw, locate, sites_of

PYPROJECT = '[tool.hatch.build.targets.wheel]\npackages = ["one/large", "two/small"]\n'
FUNCTION = """
def clip(value, low={number}):
    if value < low:
        return low
    return shift(value, {number})
"""


def edits(source):
    """(kind, what the whole source becomes) of each fault."""
    source = source.encode()
    return [(fault.kind, fault.applied(source).decode()) for fault in sites_of("a.py", source)]


@pytest.mark.parametrize(
    ("source", "kind", "after"),
    [
        ("x = a < b", "comparison", "x = a >= b"),
        ("x = a <= b < c", "comparison", "x = a > b < c"),
        ("x = (a) == (b)", "comparison", "x = (a) != (b)"),
        ("x = a is not b", "comparison", "x = a is b"),
        ("x = a not in b", "comparison", "x = a in b"),
        ("é = 'é' in b  # <", "comparison", "é = 'é' not in b  # <"),
        ("x = 255", "constant", "x = 256"),
        ("x = 0.5", "constant", "x = 1.5"),
        ("x: int = 1", "constant", "x: int = 2"),
        ("if ready:\n    go()\nelse:\n    wait()", "branch", "if False:\n    go()\nelse:\n    wait()"),
        ("f(a, b, c)", "arguments", "f(b, a, c)"),
        ("f(\n    a,  # first\n    (b),\n)", "arguments", "f(\n    b,  # first\n    (a),\n)"),
    ],
)
def test_a_fault_edits_one_place(source, kind, after):
    assert edits(source) == [(kind, after)]


@pytest.mark.parametrize(
    "source",
    [
        "x = True",
        "x = '1'",
        "__version__ = 1",
        "__all__ = f(1, 2)",
        "x: Literal[1]",
        "def f(x: Literal[1]) -> Literal[2]: ...",
        "x = f'{y + 1}'",
        "if TYPE_CHECKING:\n    x = 1",
        "if __name__ == '__main__':\n    x = 1",
        "max(a, b)",
        "f(a, a)",
        "f(*a, b)",
    ],
)
def test_code_that_cannot_go_wrong_takes_no_fault(source):
    assert edits(source) == []


def test_a_fault_names_its_scope_and_its_statement():
    source = textwrap.dedent("""\
        class A:
            def f(self):
                if (
                    self.x
                ):
                    return g(
                        1
                    )
    """)
    branch, constant = sites_of("a.py", source.encode())
    assert (branch.scope, branch.line, branch.first, branch.last) == ("A.f", 4, 3, 5)
    assert (constant.scope, constant.line, constant.first, constant.last) == ("A.f", 7, 6, 8)


def test_a_fault_is_not_applied_to_other_code():
    (fault,) = sites_of("a.py", b"x = 1")
    with pytest.raises(ValueError, match="draw the faults again"):
        fault.applied(b"y = 2")


@pytest.fixture
def tree(tmp_path):
    """Two packages, one three times as long as the other."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for folder, count in (("one/large", 9), ("two/small", 3)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "code.py").write_text("".join(FUNCTION.format(number=n) for n in range(count)))
    return tmp_path


def test_the_same_seed_draws_the_same_faults(tree):
    assert draw(tree, 1, 8) == draw(tree, 1, 8)
    assert draw(tree, 1, 8) != draw(tree, 2, 8)


def test_packages_are_drawn_from_by_their_lines(tree):
    assert Counter(fault.path.partition("/")[0] for fault in draw(tree, 1, 8)) == {"one": 6, "two": 2}


def test_no_fault_is_drawn_twice(tree):
    faults = draw(tree, 1, 16)
    assert len(set(faults)) == len(faults) == 16


def test_a_fault_is_found_after_its_code_moved(tree):
    old = draw(tree, 1, 8)
    text = (tree / "one/large/code.py").read_text()
    (tree / "one/large/code.py").write_text('"""New."""\n')
    (tree / "one/large/moved.py").write_text("import os\n" + text)
    for before, after in zip(old, locate(tree, old), strict=True):
        shift = int(before.path == "one/large/code.py")
        assert after.path == before.path.replace("large/code", "large/moved")
        assert (after.line, after.kind, after.text) == (before.line + shift, before.kind, before.text)


def test_a_fault_is_found_in_its_function_where_the_rest_of_its_line_changed(tree):
    code = tree / "one/large/code.py"
    code.write_text("def f(x):\n    return g(x, 7), 1\n")
    old = sites_of("one/large/code.py", code.read_bytes())
    code.write_text("def f(x):\n    y = g(x, 7)\n    return y\n")
    assert [new and new.line for new in locate(tree, old)] == [2, 2, None]


def test_a_decorator_belongs_to_the_statement_it_decorates():
    source = textwrap.dedent("""
        @retry(3)
        def f():
            pass
    """)
    (fault,) = sites_of("a.py", source.encode())
    assert (fault.first, fault.line, fault.scope) == (2, 2, "")
