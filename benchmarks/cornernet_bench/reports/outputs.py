"""Where reports and pictures go: checked before the work that fills them, and written as wholes.

A report is a command's result and goes to standard output, as tables, or as one object with ``--json -``.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.cli.common import ReportConsole
from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.figure import Figure
    from rich.console import Console

PICTURE_FORMATS = (".png", ".svg", ".pdf")
STDOUT = Path("-")  # what ``--json -`` names
_PIPE = 120  # columns where nobody says how many there are


def check_picture(path: Path | None) -> None:
    """Raise OutputError unless a picture can be drawn into a file of this name; None is none."""
    if path is not None and path.suffix not in PICTURE_FORMATS:
        raise OutputError(f"{path}: cannot be drawn; name a {', '.join(PICTURE_FORMATS)} file")


def check_page(path: Path | None) -> None:
    """Raise OutputError unless a page in HTML can be made, for a file of this name; None is none."""
    if path == STDOUT:
        raise OutputError("no HTML on standard output, which the tables take; name a file such as report.html")
    for name in ("jinja2", "matplotlib") if path is not None else ():
        if util.find_spec(name) is None:
            raise OutputError(f"no HTML: {name} is not installed; pip install {name}")


def new_figure(inches: tuple[float, float]) -> Figure:
    """Return an empty figure of a width and height.

    Raises:
        OutputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise OutputError("no picture: matplotlib is not installed; pip install matplotlib") from error
    return Figure(figsize=inches, layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure into a file of one of PICTURE_FORMATS.

    Raises:
        OutputError: matplotlib does not know the format, or the file cannot be written.
    """
    content = io.BytesIO()
    try:
        figure.savefig(content, format=path.suffix.removeprefix(".") or "png", dpi=120)
    except ValueError as error:
        raise OutputError(f"{path}: cannot be drawn: {error}; name a .png, .svg or .pdf file") from error
    write_atomically(path, content.getvalue())


def console_for_report(json_file: Path | None = None) -> Console:
    """Return the console for a report: standard output, whatever it is, unless ``json_file`` takes that.

    In a file or a pipe a report is plain, and 120 columns wide where the environment's ``COLUMNS`` says nothing else.
    """
    taken = json_file is not None and (json_file == STDOUT or str(json_file) == "/dev/stdout")
    console = ReportConsole(stderr=taken, highlight=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = _PIPE
    return console


def write_json(path: Path | None, content: Mapping[str, object]) -> None:
    """Write one object into a file, or for STDOUT to standard output; None is none.

    Raises:
        OutputError: The file cannot be written.
    """
    text = json.dumps(content, indent=2) + "\n"
    if path == STDOUT:
        sys.stdout.write(text)
        sys.stdout.flush()
    elif path is not None:
        write_atomically(path, text)


def check_outputs(*paths: Path | None) -> None:
    """Raise OutputError unless each of these files could be written; None is none."""
    for path in paths:
        if path in (None, STDOUT):
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; name a file in it")
        if path.exists() and not path.is_file():
            continue  # a device, such as standard output
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
