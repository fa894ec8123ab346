"""What the command lines of several benchmarks share."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

AS_OBJECT = "as one object (- for standard output, which the tables then leave)"  # of --json


@contextlib.contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows on a terminal what is done, how much of it, of how much (0 is not known)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=None)
        yield lambda what, done, total: progress.update(
            task, description=escape(what), completed=done, total=total or None
        )


def check_cpu_time(arguments: argparse.Namespace) -> None:
    """End a command with status 2 that would measure the CPU time of several threads, or of as many as it likes."""
    if arguments.cpu_time and arguments.threads != 1:
        arguments.usage_error("--cpu-time adds up all threads: add --threads 1")


def count_text(text: str) -> int:
    """Return the whole number of an option that counts something."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 to 1000000, got {text!r}")
    return int(text)
