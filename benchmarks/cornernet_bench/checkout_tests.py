"""Running tests of a checkout, for the layers that are proven by them."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib import util
from typing import TYPE_CHECKING, Literal

from cornernet_runtime.machine import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEPT = 8000  # letters of pytest's output


@dataclass(frozen=True, slots=True)
class Tested:
    """How tests ended.

    Attributes:
        state: Skipped where none could be run, or all skipped themselves.
        said: pytest's own summary, and which failed; or why there was none.
        output: The end of what pytest printed.
    """

    state: Literal["passed", "failed", "skipped"]
    said: str
    output: str = ""


def run_tests(root: Path, paths: Sequence[str], without: Sequence[str] = ()) -> Tested:
    """Run test files and folders of a checkout.

    Args:
        root: The checkout; it may be none.
        paths: Relative to it; those that are not there are left out.
        without: Parts of names of tests to leave out.
    """
    there = [path for path in paths if (root / path).exists()]
    if not there:
        return Tested("skipped", "the tests are not here: run it from a checkout")
    if util.find_spec("pytest") is None:
        return Tested("skipped", "pytest is not installed: make test installs it")
    command = [sys.executable, "-m", "pytest", "-q", *there]
    if without:
        command += ["-k", " and ".join(f"not {part}" for part in without)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)  # noqa: S603 - our tests
    output = (done.stdout + done.stderr)[-KEPT:]
    summary = re.findall(r"(?m)^.*\d+ (?:passed|failed|skipped|error).*$", done.stdout)
    said = summary[-1].strip("= ") if summary else one_line(done.stdout[-400:] + done.stderr[-400:])
    if done.returncode:
        failures = ", ".join(re.findall(r"(?m)^(?:FAILED|ERROR) (\S+)", done.stdout)[:5])
        return Tested("failed", f"{said}: {failures}", output)
    return Tested("passed" if " passed" in f" {said}" else "skipped", said, output)
