"""Where reports and pictures go: checked before the work that fills them, and written as wholes."""

from __future__ import annotations

import io
import tempfile
from importlib import util
from typing import TYPE_CHECKING

from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

PICTURE_FORMATS = (".png", ".svg", ".pdf")


def check_picture(path: Path | None) -> None:
    """Raise OutputError unless a picture can be drawn into a file of this name; None is none."""
    if path is not None and path.suffix not in PICTURE_FORMATS:
        raise OutputError(f"{path}: cannot be drawn; name a {', '.join(PICTURE_FORMATS)} file")


def check_page(path: Path | None) -> None:
    """Raise OutputError unless what makes a page in HTML is installed; None is none."""
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


def check_outputs(*paths: Path | None) -> None:
    """Raise OutputError unless each of these files could be written; None is none."""
    for path in paths:
        if path is None:
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
