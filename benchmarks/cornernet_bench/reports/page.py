"""A report as one HTML file that needs nothing else: no network, no script, pictures inside, light and dark."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from matplotlib.figure import Figure

    from cornernet_bench.reports.blocks import Block

INK = "#012345"  # of a drawing, which takes the colour of the page's text instead


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawing for wide pages and one for narrow ones.

    Attributes:
        draw: Makes a figure of a width and height in inches, whose text and axes are INK.
        wide: Inches on a page that is wide.
        narrow: Inches on a phone.
        says: What is to be seen on it, for those who cannot see it.
    """

    draw: Callable[[tuple[float, float], str], Figure]
    wide: tuple[float, float]
    narrow: tuple[float, float]
    says: str


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the page, as the template takes it: of the kinds table, picture, and those of a line."""

    kind: str
    text: str = ""
    headings: tuple[tuple[str, bool], ...] = ()  # text, whether it stands left
    rows: tuple[tuple[bool, tuple[str, ...]], ...] = ()  # whether it is bold, cells
    drawings: tuple[str, ...] = ()


def page(title: str, parts: Iterable[Block | Picture], date: str, command: str) -> str:
    """Return the page; needs what ``reports.outputs.check_page`` asks for.

    Args:
        title: Of the report.
        parts: What it consists of, in order.
        date: When it was made.
        command: That made it.
    """
    import jinja2  # noqa: PLC0415 - an extra

    source = resources.files("cornernet_bench.reports").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(source).render(
        title=title, parts=[_part(part) for part in parts], date=date, command=command
    )


def _part(part: Block | Picture) -> _Part:
    if isinstance(part, Picture):
        drawings = (_svg(part.draw(part.wide, INK)), _svg(part.draw(part.narrow, INK)))
        return _Part("picture", part.says, drawings=drawings)
    if isinstance(part, Table):
        columns = [[Text.from_markup(str(cell)).plain for cell in column.cells] for column in part.columns]
        headings = tuple((str(column.header), column.justify == "left") for column in part.columns)
        bold = [row.style == "bold" for row in part.rows]
        return _Part("table", headings=headings, rows=tuple(zip(bold, zip(*columns, strict=True), strict=True)))
    return _Part(part.role, part.text)


def _svg(figure: Figure) -> str:
    """Return a figure as an element of a page, its text as text."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow to import

    content = io.StringIO()
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cornernet"}):
        figure.savefig(content, format="svg")
    text = content.getvalue()
    text = re.sub(r"(?s)<metadata>.*?</metadata>", "", text[text.index("<svg") :])
    text = re.sub(r'<g id="[^"]*">', "<g>", text)  # two drawings of a page would share them
    return text.replace(INK, "currentColor")
