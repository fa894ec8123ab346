"""Rows of results: one a picture or frame, as Parquet, and back as detections."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_runtime.bundle.records import RecordError, from_json, to_json
from cornernet_runtime.cluster.tables import import_parquet
from cornernet_runtime.detections import Detections
from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import open_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SUMMARY_KEY, NAMES_KEY = b"cornernet", b"class_names"  # of the file's metadata


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What was found in a picture or frame.

    Attributes:
        source: The file: a picture, a video, or a Parquet file with pictures.
        index: Of the frame or row in it, from 0; None where a video fails as a whole.
        name: Of a picture in a Parquet file, as that has it.
        timestamp: Seconds, of a frame, on the video's clock; None for pictures.
        size: Height and width in pixels; None where it could not be read.
        detections: In pixels of the picture; None where it could not be read.
        error: Why it could not be read, or None.
    """

    source: str
    index: int | None
    name: str | None = None
    timestamp: float | None = None
    size: tuple[int, int] | None = None
    detections: Detections | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What became of a part.

    Attributes:
        unit: As for ``plan.Part``.
        span: As for ``plan.Part``.
        source: The video, or the first of the files.
        pictures: Pictures or frames that were looked at.
        failed: Pictures or videos that could not be read.
        counts: Objects by class name.
        errors: Why pictures or videos could not be read.
        problems: What was wrong with a video without ending it.
        uneven: Why a span is not what the whole video gives there, which makes it void; None if it is.
        worker: Host and process that did it.
        backend: What ran the network.
        begun: When the work on it began, seconds since 1970.
        ended: When it was written, as far as that goes.
        detecting_s: Seconds from frames to boxes, of all.
        scaled_down: Pictures that exceed the largest size of a model that takes them at their own resolution.
    """

    unit: int
    span: int | None
    source: str
    pictures: int
    failed: int
    counts: dict[str, int] = field(default_factory=dict)
    errors: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    uneven: str | None = None
    worker: str = ""
    backend: str = ""
    begun: float = 0.0
    ended: float = 0.0
    detecting_s: float = 0.0
    scaled_down: int = 0


def to_table(rows: Sequence[Row], class_names: Sequence[str], summary: PartSummary) -> Any:  # noqa: ANN401 - an extra
    """Return rows as a ``pyarrow.Table``.

    Columns: source, name, error (text); index (int64); timestamp (float64, seconds); width, height (int32, pixels);
    boxes (lists of x1 y1 x2 y2, float32, pixels), scores (float32) and labels (int64, index of the class), best first.
    What is not there is null. A name that is no UTF-8 has its odd bytes as escapes. The names of the classes are JSON
    in the metadata, under ``class_names``.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra

    found = [row.detections for row in rows]
    absent = np.array([detections is None for detections in found], bool)
    lengths = [0 if detections is None else len(detections) for detections in found]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    there = [detections for detections in found if detections is not None]
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(item.boxes for item in there)])
    scores = np.concatenate([np.zeros(0, np.float32), *(item.scores for item in there)])
    labels = np.concatenate([np.zeros(0, np.int64), *(item.labels for item in there)])
    corners = pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4)

    def lists(values: Any) -> Any:  # noqa: ANN401
        return pa.ListArray.from_arrays(offsets, values, mask=pa.array(absent))

    columns = {
        "source": pa.array([_text(row.source) for row in rows], pa.string()),
        "index": pa.array([row.index for row in rows], pa.int64()),
        "name": pa.array([None if row.name is None else _text(row.name) for row in rows], pa.string()),
        "timestamp": pa.array([row.timestamp for row in rows], pa.float64()),
        "width": pa.array([None if row.size is None else row.size[1] for row in rows], pa.int32()),
        "height": pa.array([None if row.size is None else row.size[0] for row in rows], pa.int32()),
        "boxes": lists(corners),
        "scores": lists(pa.array(scores)),
        "labels": lists(pa.array(labels)),
        "error": pa.array([None if row.error is None else _text(row.error) for row in rows], pa.string()),
    }
    metadata = {SUMMARY_KEY: json.dumps(to_json(summary)), NAMES_KEY: json.dumps(list(class_names))}
    return pa.table(columns).replace_schema_metadata(metadata)


def write_rows(path: Path, table: Any) -> None:  # noqa: ANN401
    """Write a table as a Parquet file that is there as a whole, or not at all.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    with open_atomically(path) as stream:
        import_parquet().write_table(table, stream, compression="zstd")


def read_summary(path: Path) -> PartSummary | None:
    """Return what a file says of its part; None for one that is not there, not whole, or not ours."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    try:
        metadata = import_parquet().read_schema(path).metadata or {}
        return from_json(PartSummary, json.loads(metadata[SUMMARY_KEY]))
    except (OSError, KeyError, ValueError, RecordError, pa.ArrowException):
        return None


def rows_of(table: Any) -> Iterator[Row]:  # noqa: ANN401
    """Yield the rows of a table of ``to_table``, with the same numbers that went in."""
    names = tuple(json.loads(table.schema.metadata[NAMES_KEY]))
    for batch in table.to_batches():
        plain = batch.select(["source", "index", "name", "timestamp", "width", "height", "error"]).to_pylist()
        boxes, scores, labels = (batch.column(name) for name in ("boxes", "scores", "labels"))
        for number, fields in enumerate(plain):
            fields["source"] = _name(fields["source"])
            height, width = fields.pop("height"), fields.pop("width")
            if not scores[number].is_valid:
                yield Row(**fields)
                continue
            corners = boxes[number].values.flatten().to_numpy(zero_copy_only=False)
            detections = Detections(
                corners.astype(np.float32).reshape(-1, 4),
                scores[number].values.to_numpy(zero_copy_only=False).astype(np.float32),
                labels[number].values.to_numpy(zero_copy_only=False).astype(np.int64),
                names,
            )
            yield Row(**fields, size=(height, width), detections=detections)


def to_bytes(table: Any) -> bytes:  # noqa: ANN401
    """Return a table in Arrow's format for streams."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def rows_from_bytes(content: bytes) -> Iterator[Row]:
    """Yield the rows of a table of ``to_bytes``."""
    import pyarrow as pa  # noqa: PLC0415 - an extra

    with pa.ipc.open_stream(content) as stream:
        yield from rows_of(stream.read_all())


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of ``write_rows``.

    Raises:
        OutputError: It cannot be read.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra

    try:
        table = import_parquet().read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise OutputError(
            f"{path}: cannot be read back: {str(error).splitlines()[0]}; delete it, and run the command again"
        ) from error
    yield from rows_of(table)


def _text(text: str) -> str:
    """Return a text that UTF-8 can hold."""
    return text.encode(errors="backslashreplace").decode()


def _name(text: str) -> str:
    """Return the name that ``_text`` was given: its odd bytes are one-sided surrogates, as in Python's paths."""
    return re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), text)
