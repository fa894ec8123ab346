"""``cornernet-doctor``: a table of what this installation has, what it lacks and how to get that."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.table import Table
from rich.text import Text

from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.cli.common import ReportConsole, run_command
from cornernet_runtime.doctor import Fact, Report, diagnose
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

_TITLES = {
    "system": "Installation",
    "run": "Running models",
    "export": "Export, training, accuracy",
    "gpu": "GPU and TensorRT",
    "other": "Video",
}
_STYLES = {"ok": "green", "missing": "yellow", "problem": "bold red"}
_WIDE = 110  # columns from which a command stands beside what it is for, not below
_PIPE = 120  # columns where the output is no terminal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 when a model can run here without a problem."""
    parser = argparse.ArgumentParser(
        prog="cornernet-doctor",
        description="Show what this installation has, what it lacks, and how to get what it lacks.",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="also write the facts to FILE as JSON")
    arguments = parser.parse_args(argv)
    return run_command(lambda: report_installation(arguments.report))


def report_installation(path: Path | None) -> int:
    """Print what ``diagnose`` finds on standard output, write it to ``path`` if that is given, and return 0.

    Raises:
        OutputError: ``path`` cannot be written.
        CornerNetError: There is a problem, or no backend can run a model.
    """
    report = diagnose()
    print_report(report, sys.stdout)
    if path is not None:
        write_atomically(path, json.dumps(to_json(report), indent=2) + "\n")
    if not report.usable:
        problems = [
            f"{fact.label}: {fact.value}" + (f" (type: {fact.command})" if fact.command else "")
            for fact in report.facts
            if fact.state == "problem"
        ]
        raise CornerNetError("; ".join(problems) or "no backend can run a model here")
    return 0


def print_report(report: Report, stream: TextIO) -> None:
    """Print the table and a one-line summary: in colour on a terminal, plain elsewhere, never cut off."""
    console = ReportConsole(file=stream, highlight=False)
    if not console.is_terminal:
        console = ReportConsole(file=stream, highlight=False, width=max(console.width, _PIPE))
    label_width = max(len(fact.label) for fact in report.facts)
    for group, title in _TITLES.items():
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(width=label_width + 2)
        table.add_column(width=max(map(len, _STYLES)))
        table.add_column(overflow="fold")
        for fact in report.facts:
            if fact.group == group:
                state = Text(fact.state, style=_STYLES[fact.state])
                table.add_row(Text(f"  {fact.label}"), state, _details(fact, wide=console.width >= _WIDE))
        console.print(Text(title, style="bold"), table, sep="\n")
    abilities = (("can", report.can), ("cannot", report.cannot))
    summary = "; ".join(f"{verb}: {', '.join(items)}" for verb, items in abilities if items)
    console.print(Text(f"\n{summary}", style="bold"), soft_wrap=not console.is_terminal)


def _details(fact: Fact, *, wide: bool) -> Text:
    """Return what was found or is wrong, or what the missing thing is for; then the command."""
    if fact.state != "missing":
        details = Text(fact.value)
    else:
        details = Text(f"for {fact.purpose} ({fact.value})" if fact.value else f"for {fact.purpose}")
    if fact.command:
        separator = ": " if wide and fact.state == "missing" else "\n"
        details.append(separator).append(fact.command, style="cyan")
    return details
