"""The JSON lines of a run, which are those of a single process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.cluster.plan import TABLE_SUFFIX
from cornernet_runtime.json_lines import json_objects, line_writer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cornernet_runtime.cluster.rows import Row


def write_json_lines(path: Path, rows: Iterable[Row]) -> None:
    """Write a line for each row that has detections, ``-`` is standard output.

    A picture of a Parquet file has the number of its row and its name there, beside what other pictures have.

    Raises:
        OutputError: They cannot be written, or the rows not be read.
    """
    with line_writer(path) as stream:
        for row in rows:
            if row.size is not None and row.detections is not None:
                stream.write(_line(row, to_file=str(path) != "-").encode(errors="backslashreplace"))


def _line(row: Row, *, to_file: bool) -> str:
    height, width = row.size or (0, 0)
    of_video = row.timestamp is not None
    content: dict[str, object] = {"source": row.source}
    if row.timestamp is not None:
        content |= {"frame": row.index, "seconds": round(row.timestamp, 6)}
    elif Path(row.source).suffix.lower() == TABLE_SUFFIX:
        content |= {"row": row.index, "name": row.name}
    content |= {"width": width, "height": height, "detections": json_objects(row.detections) if row.detections else []}
    return json.dumps(content, ensure_ascii=of_video and not to_file) + "\n"
