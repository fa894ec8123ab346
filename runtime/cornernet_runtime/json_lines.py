"""Lines of JSON: where they go, and what they say of each object."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, BinaryIO

from cornernet_runtime.files import make_folder, open_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cornernet_runtime.detections import Detections


@contextlib.contextmanager
def line_writer(path: Path) -> Iterator[BinaryIO]:
    """Yield what lines are written to: a file that is there as a whole in the end, or standard output for ``-``.

    Raises:
        OutputError: It cannot be written.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        make_folder(path.parent)
        with open_atomically(path) as stream:
            yield stream


def json_objects(detections: Detections) -> list[dict[str, object]]:
    """Return what JSON lines say of each object: label, score, and box (x1, y1, x2, y2 in pixels)."""
    return [
        {"label": name, "score": round(score, 6), "box": [round(side, 3) for side in box.tolist()]}
        for box, score, name in detections
    ]
