"""Measure what the tests notice: put small faults into the sources, one at a time, and run the tests.

    python tools/faults.py --seed 1 --count 25 --list
    python tools/faults.py --seed 1 --count 25 --coverage .coverage --json faults.json

A fault counts as found when a test fails or hangs with it and passes without it. Only a temporary copy of the sources
is changed. Without ``--coverage`` each fault needs all tests of its folder; CONTRIBUTING.md shows how to record it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fault_sites import Fault, draw, locate, package_folders
from fault_tests import Covering, candidates_for

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_COPIED = (".git", ".venv", "build", "dist", "__pycache__", ".*_cache", ".hypothesis", ".coverage*")
FOUND = {"found", "hangs"}
PASSED = {0, 5}  # pytest's exit status: all passed, nothing was selected
# Something stopped pytest, which may have nothing to do with the fault.
STOPPED = {pytest.ExitCode.INTERRUPTED, -signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL}


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result for one fault.

    Attributes:
        outcome: ``found``, ``hangs`` (counts as found: a test did not end), ``survived``, ``undecided`` (time ran out,
            or pytest was stopped, before every test had run) or ``gone`` (its code no longer exists).
        test: Node id of the first test that failed or hung.
        tests: Number of test functions that could notice it.
        seconds: Time it took, from the first test on.
    """

    outcome: str
    test: str = ""
    tests: int = 0
    seconds: float = 0.0


class Judge:
    """Runs tests in a copy of the tree.

    Args:
        tree: The copy. It is changed for each fault and restored afterwards.
        output: A folder for what the tests write.
        expression: pytest's ``-m`` expression; empty for every test.
        test_limit: Seconds after which one test counts as hanging.
        limit: Seconds for all tests of one fault.
    """

    def __init__(self, tree: Path, output: Path, expression: str, test_limit: float, limit: float) -> None:
        self.unreliable: set[str] = set()  # tests that failed without any fault
        self._reliable: set[str] = set()
        self._edits = 0
        self._tree = tree
        self._output = output
        self._expression = expression
        self._test_limit = test_limit
        self._limit = limit
        self.collected = self._collect()

    def judge(self, fault: Fault, covering: Covering) -> Verdict:
        """Run the tests that could notice ``fault``, until one does."""
        start = time.monotonic()
        tests = candidates_for(fault, covering, self.collected)
        while True:
            usable = [test for test in tests if test not in self.unreliable]
            with self._faulty(fault):
                outcome, test = self._run(usable)
            if outcome not in FOUND or self._passes_without_fault(test):
                return Verdict(outcome, test, len(usable), round(time.monotonic() - start, 1))

    def _collect(self) -> list[str]:
        status = self._pytest(["--collect-only", "-q"], limit=600)
        lines = self._log().splitlines()
        if status not in PASSED:
            raise SystemExit("pytest cannot collect the tests of the unchanged tree:\n" + "\n".join(lines[-20:]))
        return list(dict.fromkeys(line.partition("[")[0] for line in lines if re.match(r"\S+\.py::", line)))

    def _run(self, tests: list[str]) -> tuple[str, str]:
        """Return the outcome and the test that decided it."""
        if not tests:
            return "survived", ""
        status = self._pytest(["-x", "-v", "--tb=no", *tests], self._limit)
        if status in PASSED:
            return "survived", ""
        log = self._log()
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", log, re.MULTILINE)
        running = ["", *re.findall(r"^\S+\.py::\S+", log, re.MULTILINE)][-1]
        if status is None or (failed is None and status in STOPPED):
            return "undecided", running
        if failed:
            return "found", failed[1]
        if "Timeout (" in log:
            return "hangs", running
        return "found", f"pytest ended with {status}"

    def _passes_without_fault(self, test: str) -> bool:
        """Run a test in the unchanged tree, once; a failing one is not used again."""
        function = test.partition("[")[0]
        if function not in self.collected or test in self._reliable:
            return True
        if self._run([test])[0] == "survived":
            self._reliable.add(test)
            return True
        self.unreliable.add(function)
        return False

    @contextmanager
    def _faulty(self, fault: Fault) -> Iterator[None]:
        path = self._tree / fault.path
        source, before = path.read_bytes(), path.stat()
        path.write_bytes(fault.applied(source))
        # Python recognises outdated byte code by the file's size and its time in whole seconds; the size often stays.
        self._edits += 1
        os.utime(path, (before.st_atime, before.st_mtime - 10 - self._edits))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, (before.st_atime, before.st_mtime))

    def _pytest(self, arguments: list[str], limit: float) -> int | None:
        """Run pytest, its output into the log; return its exit status, or None where it ran past ``limit``."""
        roots = [str((self._tree / package).parent) for package in package_folders(self._tree)]
        command = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider"]
        command += ["-o", f"faulthandler_timeout={self._test_limit}", "-o", "faulthandler_exit_on_timeout=true"]
        command += [f"--basetemp={self._output / 't'}", *(["-m", self._expression] if self._expression else [])]
        with (self._output / "log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the interpreter this was started with
                [*command, *arguments],
                cwd=self._tree,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                return process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGINT)  # lets pytest tear down its fixtures
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                return None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # the remaining children, and pytest if it ignored SIGINT
                process.wait()

    def _log(self) -> str:
        return (self._output / "log").read_text(encoding="utf-8", errors="replace")


def judge_all(options: argparse.Namespace, faults: dict[int, Fault]) -> dict[int, Verdict]:
    """Judge each fault; print each result, and write it to ``--json``, as soon as it is known."""
    present = dict(zip(faults, locate(options.tree, list(faults.values())), strict=True))
    covering = Covering(options.coverage, {fault.path for fault in present.values() if fault})
    verdicts: dict[int, Verdict] = {}
    with tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True) as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(options.tree, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
        judge = Judge(tree, Path(folder), options.tests_expression, options.test_limit, options.limit)
        for number, fault in present.items():
            verdicts[number] = judge.judge(fault, covering) if fault else Verdict("gone")
            verdict = verdicts[number]
            print(f"{number:3} {verdict.outcome:9} {fault or faults[number]}", flush=True)
            print(f"    {verdict.seconds:.0f} s, {verdict.tests} tests {verdict.test}", flush=True)
            write(options, faults, verdicts)
        for test in sorted(judge.unreliable):
            print(f"ignored, it also fails without a fault: {test}")
    return verdicts


def write(options: argparse.Namespace, faults: dict[int, Fault], verdicts: dict[int, Verdict]) -> None:
    """Write the faults, and the verdicts so far, to ``--json``."""
    if options.json is not None:
        entries = [
            {"number": number, **asdict(fault), **(asdict(verdicts[number]) if number in verdicts else {})}
            for number, fault in faults.items()
        ]
        result = {"seed": options.seed, "tests_expression": options.tests_expression, "faults": entries}
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> list[Fault]:
    """Read the faults of an earlier ``--json``."""
    entries = json.loads(path.read_text(encoding="utf-8"))["faults"]
    return [Fault(**{field.name: entry[field.name] for field in fields(Fault)}) for entry in entries]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Put small faults into the sources and see which ones the tests find.")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
    parser.add_argument("--count", type=int, default=25, help="how many faults to draw (default: 25)")
    parser.add_argument("--faults", type=Path, metavar="FILE", help="use the faults of an earlier --json file instead")
    parser.add_argument("--list", action="store_true", help="print the faults and run no test")
    parser.add_argument("--only", type=int, action="append", metavar="N", help="only the fault number N")
    parser.add_argument("--coverage", type=Path, metavar="FILE", help="coverage data with a context for each test")
    parser.add_argument("--tests-expression", default="", metavar="EXPR", help="pytest's -m expression")
    parser.add_argument("--limit", type=float, default=360, help="seconds for each fault (default: 360)")
    parser.add_argument("--test-limit", type=float, default=180, help="seconds until a test hangs (default: 180)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the faults and the results")
    parser.add_argument("--tree", type=Path, default=Path(__file__).parents[1], help="another checkout to measure")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; the exit status is 1 if a fault was not found."""
    options = parse(arguments)
    drawn = read(options.faults) if options.faults else draw(options.tree, options.seed, options.count)
    faults = {number: fault for number, fault in enumerate(drawn, 1) if not options.only or number in options.only}
    if options.list:
        for number, fault in faults.items():
            print(f"{number:3} {fault}\n    {fault.text}")
        write(options, faults, {})
        return 0
    verdicts = judge_all(options, faults)
    missed = [number for number, verdict in verdicts.items() if verdict.outcome not in FOUND]
    print(f"{len(verdicts) - len(missed)} of {len(verdicts)} found; not found: {', '.join(map(str, missed)) or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # stops pytest and removes the copy
    sys.exit(main())
