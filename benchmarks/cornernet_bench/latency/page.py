"""A measurement of latency as an HTML page."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cornernet_bench.latency.tables import blocks
from cornernet_bench.reports.blocks import Line
from cornernet_bench.reports.outputs import new_figure
from cornernet_bench.reports.page import Picture, page
from cornernet_bench.reports.words import stage_name
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from cornernet_bench.latency.report import BatchResult, LatencyReport
    from cornernet_bench.reports.blocks import Block

WIDE, NARROW = (8.0, 3.2), (4.2, 3.2)  # inches


def latency_page(report: LatencyReport, date: str, command: str) -> str:
    """Return the page of a measurement; ``date`` and ``command`` say when and how it was made.

    Needs what ``reports.outputs.check_page`` asks for.
    """
    return page(f"Latency of {report.model.path}", _parts(report), date, command)


def stage_figure(result: BatchResult, inches: tuple[float, float], ink: str = "black") -> Figure:
    """Return medians of the stages as bars, the published pipeline's beside them; as ``compare.picture.front_figure``.

    Raises:
        OutputError: matplotlib is not installed.
    """
    contestants = {"model": result.model} | ({} if result.baseline is None else {"published": result.baseline})
    names = list(dict.fromkeys(name for one in reversed(contestants.values()) for name in one.stages))
    figure = new_figure(inches)
    axes = figure.subplots()
    thickness = 0.8 / len(contestants)
    for index, (who, one) in enumerate(contestants.items()):
        values = [one.stages[name].p50_ms if name in one.stages else 0.0 for name in names]
        rows = [row + (index - (len(contestants) - 1) / 2) * thickness for row in range(len(names))]
        axes.barh(rows, values, height=thickness, color=("tab:blue", "tab:gray")[index], label=who)
    axes.set_yticks(range(len(names)), [stage_name(name) for name in names])
    axes.invert_yaxis()
    unit = "milliseconds of CPU time" if result.model.clock == "process" else "milliseconds"
    axes.set_xlabel(f"{unit}, p50", color=ink)
    axes.tick_params(colors=ink)
    for spine in axes.spines.values():
        spine.set_color(ink)
    if len(contestants) > 1:
        axes.legend(labelcolor=ink, framealpha=0, loc="lower right")
    return figure


def _parts(report: LatencyReport) -> Iterator[Block | Picture]:
    yield from blocks(report)
    for result in report.results:
        frames = count_of(result.batch, "frame")
        yield Line(f"Stages, {frames} a call", "heading")
        yield Picture(functools.partial(stage_figure, result), WIDE, NARROW, f"median of each stage, {frames} a call")
