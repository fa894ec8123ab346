"""A comparison as tables for the terminal, whose cells the report in HTML shows too."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.table import Table

from cornernet_bench.latency_tables import ms_text
from cornernet_bench.oracle_repairs import resampling_note
from cornernet_runtime.cli.common import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from cornernet_bench.compare_report import CompareReport, Result

Cells = tuple[str, ...]

MEASURED = ("", "model", "runs in", "AP", "95 %", "p50 ms", "network", "MB", "MiB")
HELD = ("", "model", "times as fast", "AP", "95 %", "agree %", "missed", "extra")
NONE = "-"
BEST = "*"


def print_report(console: Console, report: CompareReport) -> None:
    """Print what was compared on what, two tables, and what differs where."""

    def say(line: str, style: str | None = None) -> None:
        console.print(line, style=style, soft_wrap=True, markup=False)

    for line in head(report):
        say(line)
    console.print(_table(MEASURED, measured_rows(report)))
    for line in legend(report):
        say(line)
    if rows := held_rows(report):
        say(f"\nheld against {report.results[0].contestant.text}:")
        console.print(_table(HELD, rows))
        for number, line in findings(report):
            say(f"{number}  {line}")
    for line in report.notes:
        say(f"note: {report.annotations}: {line}")
    for line in report.warnings:
        say(f"warning: {line}", "yellow")
    for failure in report.failures:
        say(f"error: {failure.contestant.text}: {failure.error}", "red")
    if report.partial:
        say("interrupted: these are partial results", "yellow")


def head(report: CompareReport) -> list[str]:
    """Return lines on data, timing and machine."""
    machine = report.machine
    pictures = count_of(report.pictures, "picture")
    if report.pictures < report.listed:
        pictures = f"{report.pictures} of {count_of(report.listed, 'picture')}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    gpu = "" if machine.gpu is None else f"; {machine.gpu.name}, driver {machine.gpu.driver_version}"
    calls = f"{count_of(report.iterations, 'call')} of each in turns, after {report.warm_up} to warm up,"
    return [
        f"{report.annotations}: {pictures}, {count_of(report.objects, 'object')}; COCO's AP, points of 100",
        f"times from a frame in memory to boxes: {calls} on {count_of(report.frames, 'picture')}",
        f"{machine.cpu}, {count_of(machine.cores, 'core')}{gpu}; {versions}",
    ]


def legend(report: CompareReport) -> list[str]:
    """Return what the columns of the first table are."""
    lines = [
        f"{BEST} no other is as accurate and as fast; MB of the files that run; MiB of a process that opens it and runs",
    ]
    return [*lines, resampling_note(report.pictures)] if report.pictures else lines


def measured_rows(report: CompareReport) -> list[Cells]:
    """Return the cells below MEASURED."""
    return [_measured(number, result) for number, result in enumerate(report.results, 1)]


def held_rows(report: CompareReport) -> list[Cells]:
    """Return the cells below HELD, none for the first."""
    return [_held(number, result) for number, result in enumerate(report.results, 1) if result.against is not None]


def findings(report: CompareReport) -> list[tuple[int, str]]:
    """Return what differs, with the number of its model."""
    return [
        (number, line)
        for number, result in enumerate(report.results, 1)
        if result.against is not None
        for line in result.against.findings
    ]


def runs_in(result: Result) -> str:
    """Return backend, precision and input of a model."""
    opened = result.opened
    sizes = " ".join(f"{height}x{width}" for height, width in opened.input_sizes[:2])
    return f"{opened.backend}, {opened.precision}, {sizes}{' ...' if len(opened.input_sizes) > 2 else ''}"


def points(value: float, sign: str = "") -> str:
    """Return points of AP with two decimals; NONE for NaN."""
    return NONE if math.isnan(value) else f"{value:{sign}.2f}"


def _measured(number: int, result: Result) -> Cells:
    accuracy, latency = result.accuracy, result.latency
    network = None if latency is None else latency.stages.get("network")
    return (
        f"{number}{BEST if result.best else ''}",
        result.contestant.name,
        runs_in(result),
        NONE if accuracy is None else points(accuracy.metrics["ap"]),
        NONE if accuracy is None else f"{points(accuracy.low)} to {points(accuracy.high)}",
        NONE if latency is None else ms_text(latency.end_to_end.p50_ms),
        NONE if network is None else ms_text(network.p50_ms),
        f"{result.disk_bytes / 1e6:.1f}",
        f"{result.opened.peak_rss_mib:.0f}",
    )


def _held(number: int, result: Result) -> Cells:
    against = result.against
    if against is None:
        raise AssertionError("the first is held against nothing")
    speed, ap, agreement = against.speed, against.ap, against.agreement
    return (
        str(number),
        result.contestant.name,
        NONE if speed is None else f"{speed.median:.2f} ({speed.low:.2f} to {speed.high:.2f})",
        NONE if ap is None else points(ap.points, "+"),
        NONE if ap is None else f"{points(ap.low, '+')} to {points(ap.high, '+')}",
        NONE if agreement is None else f"{agreement.percent:.1f}",
        NONE if agreement is None else str(agreement.reference - agreement.matched),
        NONE if agreement is None else str(agreement.extra),
    )


def _table(headings: Cells, rows: Sequence[Cells]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        text = heading in ("model", "runs in")
        table.add_column(heading, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table
