"""Running tests of a checkout, for the layers that are proven by them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cornernet_runtime.machine import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHECKOUT = Path(__file__).resolve().parents[3]  # where this file is in one
KEPT = 8000  # letters of pytest's output
NAMED = 5  # failed tests, and reasons of skipped ones
TELL_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Tested:
    """How tests ended.

    Attributes:
        state: Skipped where none could be run, or all skipped themselves.
        said: pytest's own summary, and which failed and why others were skipped; or why there was none.
        output: The end of what pytest printed.
        skipped: How many skipped themselves.
    """

    state: Literal["passed", "failed", "skipped"]
    said: str
    output: str = ""
    skipped: int = 0


def run_tests(
    root: Path,
    paths: Sequence[str],
    without: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    tell_s: float = TELL_SECONDS,
) -> Tested:
    """Run test files and folders of a checkout.

    Args:
        root: The checkout; it may be none.
        paths: Relative to it; those that are not there are left out.
        without: Parts of names of tests to leave out.
        say: Called now and then with how many are done.
        tell_s: Seconds between these calls.
    """
    there = [path for path in paths if (root / path).exists()]
    if not there:
        return Tested("skipped", "the tests are not here: run it from a checkout")
    if util.find_spec("pytest") is None:
        return Tested("skipped", 'pytest is not installed: pip install ".[dev]"')
    command = [sys.executable, "-m", "pytest", "-v", "-ra", "-o", "console_output_style=count", *there]
    if without:
        command += ["-k", " and ".join(f"not {part}" for part in without)]
    status, output = _run(command, root, say or (lambda _line: None), tell_s)
    return _tested(status, output)


def _run(command: list[str], root: Path, say: Callable[[str], None], tell_s: float) -> tuple[int, str]:
    """Return the exit status and all that was printed; what is done is told every few seconds."""
    lines = []
    told = time.monotonic()
    with subprocess.Popen(  # noqa: S603 - our tests
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if time.monotonic() - told >= tell_s and (done := re.search(r"\[ *(\d+)/(\d+)\]$", line.rstrip())):
                say(f"{done[1]} of {done[2]} tests")
                told = time.monotonic()
    return process.returncode, "".join(lines)


def _tested(status: int, output: str) -> Tested:
    summary = re.findall(r"(?m)^.*\d+ (?:passed|failed|skipped|error).*$", output)
    said = summary[-1].strip("= ") if summary else one_line(output[-800:])
    said = re.sub(r", \d+ deselected", "", said)  # belong to other layers
    skipped = re.search(r"(\d+) skipped", said) if summary else None
    if status:
        failures = ", ".join(re.findall(r"(?m)^(?:FAILED|ERROR) (.+?)(?: - .*)?$", output)[:NAMED])
        return Tested("failed", f"{said}: {failures}" if failures else said, output[-KEPT:])
    reasons = list(dict.fromkeys(re.findall(r"(?m)^SKIPPED \[\d+\] \S+: (.+)$", output)))
    if reasons:
        said += f" ({'; '.join(reasons[:NAMED])}{'; ...' if len(reasons) > NAMED else ''})"
    state: Literal["passed", "skipped"] = "passed" if " passed" in f" {said}" else "skipped"
    return Tested(state, said, output[-KEPT:], int(skipped[1]) if skipped else 0)
