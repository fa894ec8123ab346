"""Compare two versions of the tests: which test functions went and came, and what the tests cover.

    python tools/compare_suites.py tests main .
    python tools/compare_suites.py coverage before/.coverage .coverage

A version of the tests is a folder or a git revision. Parameters of a test do not count, and moving it changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from coverage import Coverage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
SIMILAR = 0.8  # share of equal lines from which a test that went and one that came count as one that was renamed


@dataclass(frozen=True, slots=True)
class Function:
    """One test function.

    Attributes:
        path: File, with forward slashes.
        name: Its name, after that of its class where it has one.
        lines: Its source, normalised, without its name and decorators.
    """

    path: str
    name: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.path}::{self.name}"


@dataclass(slots=True)
class Changes:
    """What became of the tests; a pair is (before, after)."""

    kept: int = 0
    went: list[Function] = field(default_factory=list)
    came: list[Function] = field(default_factory=list)
    moved: list[tuple[Function, Function]] = field(default_factory=list)
    renamed: list[tuple[Function, Function]] = field(default_factory=list)


def compare(before: list[Function], after: list[Function]) -> Changes:
    """Pair the tests of two versions by file and name, then by name, then by what they do."""
    kept, went, came = _pairs(before, after, str)
    moved, went, came = _pairs(went, came, lambda test: test.name)
    changes = Changes(len(kept), came=came, moved=moved)
    for test in went:
        like = max(came, key=lambda other: _similarity(test, other), default=None)
        if like is not None and _similarity(test, like) >= SIMILAR:
            changes.renamed.append((test, like))
            came.remove(like)
        else:
            changes.went.append(test)
    return changes


def functions_of_version(version: str) -> list[Function]:
    """Return the tests of a folder or, where there is no such folder, of a git revision."""
    files = _files_of_folder(Path(version)) if Path(version).is_dir() else _files_of_revision(version)
    return [test for path, source in files for test in functions_of(path, source)]


def functions_of(path: str, source: str) -> Iterator[Function]:
    """Yield the test functions of one file, and the test methods of its classes."""
    for node in ast.parse(source).body:
        for function in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name.startswith("test_"):
                name = f"{node.name}::{function.name}" if isinstance(node, ast.ClassDef) else function.name
                lines = (ast.unparse(function.args), *map(ast.unparse, function.body))
                yield Function(path, name, tuple("\n".join(lines).splitlines()))


def package_coverage(data_file: Path) -> dict[str, dict[str, float]]:
    """Return the per cent of lines and of branches that ran, by package; the measured sources must still be there."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        coverage = Coverage(data_file=str(data_file), config_file=False, messages=False)
        coverage.load()
        coverage.json_report(outfile=str(report))
        files = json.loads(report.read_text(encoding="utf-8"))["files"]
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for path, entry in files.items():
        package = next((part for part in Path(path).parts if part.startswith("cornernet_")), "other")
        totals[package].update({name: value for name, value in entry["summary"].items() if isinstance(value, int)})
    return {
        package: {
            "lines": _percent(counts["covered_lines"], counts["num_statements"]),
            "branches": _percent(counts["covered_branches"], counts["num_branches"]),
        }
        for package, counts in sorted(totals.items())
    }


def print_tests(before: str, after: str) -> int:
    """Print what became of the tests of ``before``; the exit status is always 0."""
    changes = compare(functions_of_version(before), functions_of_version(after))
    print(f"{changes.kept} stayed, {len(changes.moved)} moved, {len(changes.renamed)} renamed, ", end="")
    print(f"{len(changes.went)} went, {len(changes.came)} came")
    for title, tests in (("Went", changes.went), ("Came", changes.came)):
        print(f"\n{title}:", *sorted(map(str, tests)), sep="\n- ")
    for title, pairs in (("Renamed", changes.renamed), ("Moved", changes.moved)):
        print(f"\n{title}:", *sorted(f"{old} -> {new}" for old, new in pairs), sep="\n- ")
    return 0


def print_coverage(before: Path, after: Path, allowed: float) -> int:
    """Print each package's coverage; the exit status is 1 where one fell by more than ``allowed`` points."""
    first, second = package_coverage(before), package_coverage(after)
    print("| package | what | before | after | change |\n|---|---|---:|---:|---:|")
    fell = False
    for package in sorted(first.keys() | second.keys()):
        for what in ("lines", "branches"):
            old, new = (side.get(package, {}).get(what, 0.0) for side in (first, second))
            print(f"| {package} | {what} | {old:.2f} | {new:.2f} | {new - old:+.2f} |")
            fell |= new - old < -allowed
    return int(fell)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare two versions of the tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    tests = commands.add_parser("tests", help="list the test functions that went, came, moved or were renamed")
    coverage = commands.add_parser("coverage", help="compare the coverage of each package; 1 if one fell too far")
    for name in ("before", "after"):
        tests.add_argument(name, help="a folder or a git revision")
        coverage.add_argument(name, type=Path, help="a coverage data file")
    coverage.add_argument("--allow", type=float, default=0.2, help="points by which it may fall (default: 0.2)")
    options = parser.parse_args(arguments)
    if options.command == "tests":
        return print_tests(options.before, options.after)
    return print_coverage(options.before, options.after, options.allow)


def _pairs(
    before: list[Function], after: list[Function], key: Callable[[Function], str]
) -> tuple[list[tuple[Function, Function]], list[Function], list[Function]]:
    """Return the pairs of equal key, and what is left of both sides."""
    waiting = defaultdict(list)
    for test in reversed(after):
        waiting[key(test)].append(test)
    pairs, went = [], []
    for test in before:
        if waiting[key(test)]:
            pairs.append((test, waiting[key(test)].pop()))
        else:
            went.append(test)
    return pairs, went, [test for tests in waiting.values() for test in tests]


def _similarity(one: Function, other: Function) -> float:
    matcher = SequenceMatcher(None, one.lines, other.lines, autojunk=False)
    return matcher.ratio() if matcher.quick_ratio() >= SIMILAR else 0.0


def _is_test_file(path: str) -> bool:
    return path.startswith("tests/") and fnmatch(PurePosixPath(path).name, "test_*.py")


def _files_of_folder(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted((folder / "tests").rglob("test_*.py")):
        yield file.relative_to(folder).as_posix(), file.read_text(encoding="utf-8")


def _files_of_revision(revision: str) -> Iterator[tuple[str, str]]:
    command = ["git", "archive", revision, "tests"]
    archive = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603 - a revision
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and _is_test_file(member.name):
                yield member.name, file.read().decode()


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


if __name__ == "__main__":
    sys.exit(main())
