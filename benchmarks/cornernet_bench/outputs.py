"""Where reports go: checked before the work that fills them."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

from cornernet_runtime.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

PICTURE_FORMATS = (".png", ".svg", ".pdf")


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
