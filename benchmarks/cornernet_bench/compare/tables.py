"""A comparison in lines and tables."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cornernet_bench.measuring.intervals import resampling_note
from cornernet_bench.reports.blocks import Line, table_of
from cornernet_bench.reports.words import ms_text, stage_name, thread_text
from cornernet_runtime.processing.maps import OUTPUT_NAMES
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.table import Table

    from cornernet_bench.compare.report import Against, CompareReport, Result
    from cornernet_bench.reports.blocks import Block

NONE = "-"
BEST = "*"
MODEL = "model"  # heads a column of names
BY_SIZE = {
    "AP": "ap",
    "AP50": "ap50",
    "AP75": "ap75",
    "small": "ap_small",
    "medium": "ap_medium",
    "large": "ap_large",
}


def blocks(report: CompareReport, *, named: bool = False) -> Iterator[Block]:
    """Yield what was compared on what, what each is worth, how the others differ from the first, and doubts.

    Args:
        report: All of it.
        named: Whether tables have the models' names beside their numbers.
    """
    yield from map(Line, _head(report))
    yield from _contestants(report)
    yield measured_table(report, named=named)
    if any(result.best for result in report.results):
        yield Line(f"{BEST}: no other is as accurate and as fast, or it is equal to such a one but for noise.")
    yield Line("MB: files that run. MiB: a process that opens it and runs.")
    if report.pictures:
        yield Line(f"{resampling_note(report.pictures)}.")
    if (stages := stage_table(report, named=named)) is not None:
        yield Line(f"where the time goes: {'CPU ms' if report.cpu_time else 'ms'} p50 by stage", "heading")
        yield stages
    if len(report.results) > 1:
        yield Line(f"held against {report.results[0].contestant.text}", "heading")
        yield held_table(report, named=named)
        clock = ", in CPU time" if report.cpu_time else ""
        yield Line(
            f"speed: so many times as fast, by rounds{clock}. gain: of AP. "
            "agree: matched of all that either found at 0.1 or more."
        )
        if (speeds := stage_speed_table(report, named=named)) is not None:
            yield Line(f"so many times as fast as {report.results[0].contestant.text}, by stage", "heading")
            yield speeds
        for result in report.results:
            findings = result.against.findings if result.against else ()
            yield from (Line(f"{result.number}: {found}") for found in findings)
    yield from ends(report)


def ends(report: CompareReport) -> Iterator[Line]:
    """Yield what is odd about the data, doubtful or missing."""
    yield from (Line(f"note: {report.annotations}: {line}") for line in report.notes)
    yield from (Line(f"warning: {line}", "warning") for line in report.warnings)
    yield from (Line(f"failed: {failure.text}", "error") for failure in report.failures)
    if report.partial:
        yield Line("interrupted: these are partial results", "warning")


def measured_table(report: CompareReport, *, named: bool = False) -> Table:
    """Return what each is worth, a row a model; ``named`` as for ``blocks``."""
    times = "CPU ms p50" if report.cpu_time else "p50 ms"
    headings = (_heading(named=named), "AP", "AP 95 %", times, "p90", "network", "MB", "MiB")
    return table_of(headings, (_measured(result, named=named) for result in report.results))


def held_table(report: CompareReport, *, named: bool = False) -> Table:
    """Return how each of the others differs from the first; ``named`` as for ``blocks``."""
    headings = (_heading(named=named), "speed", "10 to 90 %", "gain", "gain 95 %", "agree %", "missed", "extra")
    held = [(_label(result, named=named), result.against) for result in report.results if result.against]
    return table_of(headings, (_held(label, against) for label, against in held))


def accuracy_table(report: CompareReport) -> Table | None:
    """Return AP by overlap and by size; None where nothing was judged."""
    rows = [
        (_label(result), *(points(result.accuracy.metrics[name]) for name in BY_SIZE.values()))
        for result in report.results
        if result.accuracy is not None
    ]
    return table_of((MODEL, *BY_SIZE), rows) if rows else None


def stage_table(report: CompareReport, *, named: bool = False) -> Table | None:
    """Return the median of each stage; None where nothing was timed. ``named`` as for ``blocks``."""
    timed = [(_label(result, named=named), result.latency.stages) for result in report.results if result.latency]
    return _by_stage(timed, lambda stage: ms_text(stage.p50_ms), named=named)


def stage_speed_table(report: CompareReport, *, named: bool = False) -> Table | None:
    """Return how many times as fast as the first each stage is; None without any. ``named`` as for ``blocks``."""
    held = [(_label(result, named=named), result.against.stage_speeds) for result in report.results if result.against]
    return _by_stage(held, lambda speed: f"{speed.median:.2f}", named=named)


def _by_stage(
    rows: Sequence[tuple[str, Mapping[str, Any]]], text: Callable[[Any], str], *, named: bool
) -> Table | None:
    names = list(dict.fromkeys(name for _, stages in rows for name in stages))
    cells = [(label, *(text(stages[name]) if name in stages else NONE for name in names)) for label, stages in rows]
    return table_of((_heading(named=named), *map(stage_name, names)), cells) if names else None


def map_table(report: CompareReport) -> Table | None:
    """Return the error of each output beside the first's, marked where it means something; None without any."""
    rows = [
        (
            _label(result),
            *(f"{error:.1e}{'!' if name in maps.differing else ''}" for name, error in maps.errors.items()),
            f"{maps.tolerance:g}",
        )
        for result in report.results
        if result.against is not None and (maps := result.against.maps) is not None
    ]
    return table_of((MODEL, *OUTPUT_NAMES, "allowed"), rows) if rows else None


def opening_table(report: CompareReport) -> Table:
    """Return what opening each model took."""
    rows = [
        (
            _label(result),
            f"{result.opened.load_s:.2f}",
            ms_text(result.opened.first_inference_ms),
            f"{result.opened.peak_rss_mib:.0f}",
            NONE if result.opened.device_memory_mib is None else str(result.opened.device_memory_mib),
        )
        for result in report.results
    ]
    return table_of((MODEL, "opened in s", "first call ms", "MiB", "MiB on the GPU"), rows)


def points(value: float, sign: str = "") -> str:
    """Return points of AP with two decimals; NONE for NaN."""
    return NONE if math.isnan(value) else f"{value:{sign}.2f}"


def _head(report: CompareReport) -> list[str]:
    machine = report.machine
    pictures = count_of(report.listed, "picture")
    if report.pictures < report.listed:
        pictures = f"{report.pictures} of {pictures}"
    calls = f"{_calls(report)} of each in turns, after {report.warm_up} to warm up,"
    gpu = "" if machine.gpu is None else f"; {machine.gpu.name}, driver {machine.gpu.driver_version}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    times = "CPU time of the process (no latency)" if report.cpu_time else "time"
    return [
        f"{report.annotations}: {pictures}, {count_of(report.objects, 'object')}; COCO's AP, points of 100",
        f"{times} from a frame in memory to boxes: {calls} on {count_of(report.frames, 'picture')}",
        f"{machine.cpu}, {count_of(machine.cores, 'core')}{gpu}; threads: {thread_text(machine)}; {versions}",
    ]


def _calls(report: CompareReport) -> str:
    """Say how many timed calls were made; an interrupt leaves fewer than were asked for."""
    made = sorted({result.latency.end_to_end.count for result in report.results if result.latency})
    if made == [report.iterations]:
        return count_of(report.iterations, "call")
    return f"{' to '.join(map(str, made[:1] + made[1:][-1:]))} of {count_of(report.iterations, 'call')}"


def _heading(*, named: bool) -> str:
    return MODEL if named else ""


def _label(result: Result, *, named: bool = True) -> str:
    """Return what stands for a model in a row."""
    return f"{result.number} {result.contestant.name}" if named else str(result.number)


def _contestants(report: CompareReport) -> Iterator[Line]:
    for result in report.results:
        opened = result.opened
        sizes = " ".join(f"{height}x{width}" for height, width in opened.input_sizes[:3])
        more = " ..." if len(opened.input_sizes) > 3 else ""
        yield Line(
            f"{result.number}: {result.contestant.text}: {opened.backend}, {opened.precision}, input {sizes}{more}"
        )


def _measured(result: Result, *, named: bool) -> tuple[str, ...]:
    accuracy, latency = result.accuracy, result.latency
    network = None if latency is None else latency.stages.get("network")
    return (
        f"{_label(result, named=named)}{BEST if result.best else ''}",
        *_cells(accuracy, lambda one: (points(one.metrics["ap"]), f"{points(one.low)} to {points(one.high)}"), 2),
        *_cells(latency, lambda one: (ms_text(one.end_to_end.p50_ms), ms_text(one.end_to_end.p90_ms)), 2),
        *_cells(network, lambda one: (ms_text(one.p50_ms),), 1),
        f"{result.disk_bytes / 1e6:.1f}",
        f"{result.opened.peak_rss_mib:.0f}",
    )


def _held(label: str, against: Against) -> tuple[str, ...]:
    return (
        label,
        *_cells(against.speed, lambda one: (f"{one.median:.2f}", f"{one.low:.2f} to {one.high:.2f}"), 2),
        *_cells(
            against.ap, lambda one: (points(one.points, "+"), f"{points(one.low, '+')} to {points(one.high, '+')}"), 2
        ),
        *_cells(
            against.agreement, lambda one: (f"{one.percent:.1f}", str(one.reference - one.matched), str(one.extra)), 3
        ),
    )


def _cells(value: Any, of: Callable[[Any], tuple[str, ...]], count: int) -> tuple[str, ...]:  # noqa: ANN401 - any record
    """Return the cells of what was measured, or so many that say that it was not."""
    return (NONE,) * count if value is None else of(value)
