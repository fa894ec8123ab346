"""A comparison as an HTML page."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cornernet_bench.compare.picture import NARROW, WIDE, front_figure
from cornernet_bench.compare.tables import accuracy_table, blocks, map_table, opening_table
from cornernet_bench.reports.blocks import Line
from cornernet_bench.reports.page import Picture, page
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cornernet_bench.compare.report import CompareReport
    from cornernet_bench.reports.blocks import Block


def compare_page(report: CompareReport, date: str, command: str) -> str:
    """Return the page of a comparison; ``date`` and ``command`` say when and how it was made.

    Needs what ``reports.outputs.check_page`` asks for.
    """
    title = f"{count_of(len(report.results), 'model')} compared" + (" (partial)" if report.partial else "")
    return page(title, _parts(report), date, command)


def _parts(report: CompareReport) -> Iterator[Block | Picture]:
    yield from blocks(report, named=True)
    times = "milliseconds of CPU time" if report.cpu_time else "milliseconds"
    if any(result.accuracy and result.latency for result in report.results):
        yield Line("Accuracy over time", "heading")
        draw = functools.partial(front_figure, report)
        yield Picture(draw, WIDE, NARROW, f"AP over {times} a frame; the line joins models that no other beats")
    for title, table, note in (
        ("Accuracy", accuracy_table(report), "COCO's AP by overlap and by size of the objects, points of 100."),
        (
            "Outputs of the network",
            map_table(report),
            "Largest difference of each output from the first model's, of its largest value; ! means something.",
        ),
        ("Opening", opening_table(report), "Each model alone in a process: the libraries' import is in the time."),
    ):
        if table is not None:
            yield Line(title, "heading")
            yield table
            yield Line(note)
