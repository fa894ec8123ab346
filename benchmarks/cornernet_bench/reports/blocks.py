"""What reports consist of, whatever shows them: lines and tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rich.console import Console

Role = Literal["text", "heading", "warning", "error"]
STYLES: dict[Role, str | None] = {"text": None, "heading": "bold", "warning": "yellow", "error": "red"}
_WIDEST = 1000  # columns, more than any table here has


@dataclass(frozen=True, slots=True)
class Line:
    """A line of text, and what it is."""

    text: str
    role: Role = "text"


Block = Line | Table


def print_blocks(console: Console, blocks: Iterable[Block]) -> None:
    """Print a report on a terminal, an empty line before each heading."""
    for block in blocks:
        if isinstance(block, Table):
            print_table(console, block)
            continue
        before = "\n" if block.role == "heading" else ""
        console.print(before + block.text, style=STYLES[block.role], soft_wrap=True, markup=False)


def print_table(console: Console, table: Table) -> None:
    """Print a table as wide as it is, even beyond a narrow terminal: rich would leave out names and cut off figures."""
    console.width = max(console.width, Measurement.get(console, console.options.update(width=_WIDEST), table).maximum)
    console.print(table)


def table_of(headings: Sequence[str], rows: Iterable[Sequence[str]], texts: Collection[str] = ("model",)) -> Table:
    """Return a table of plain text; columns whose headings are in ``texts`` stand left, those of figures right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        left = heading in texts
        table.add_column(heading, justify="left" if left else "right", no_wrap=not left, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table
