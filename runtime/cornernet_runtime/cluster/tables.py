"""Pictures in Parquet files, as data sets keep them: a column of encoded bytes and perhaps one of names."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cornernet_runtime.cluster.access import is_of_machine, unseen
from cornernet_runtime.errors import ClusterError, FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# As Hugging Face and others write them; a dot is a field within a column.
IMAGE_COLUMNS = ("image.bytes", "bytes", "image", "jpg", "png")
NAME_COLUMNS = ("image.path", "path", "file_name", "name", "__key__")
ROWS_AT_ONCE = 16  # of encoded pictures that are held in memory


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the pictures of a Parquet file are; None is the first that is there of IMAGE_COLUMNS and NAME_COLUMNS.

    Attributes:
        image: Column of encoded bytes (JPEG, PNG, ...), with dots for fields within one.
        name: Column of names.
    """

    image: str | None = None
    name: str | None = None


def import_parquet() -> Any:  # noqa: ANN401 - an extra
    """Return ``pyarrow.parquet``.

    Raises:
        ClusterError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ClusterError(
            f'Parquet files need pyarrow, which is not installed ({error}); pip install "cornernet-trt[cluster]"'
        ) from error
    return pyarrow.parquet


def row_count(path: Path, columns: Columns) -> int:
    """Return how many rows a Parquet file has.

    Raises:
        FrameError: It cannot be read, or a column is not there or holds no bytes.
    """
    with _opened(path) as file:
        _chosen(path, file.schema_arrow, columns)
        return int(file.metadata.num_rows)


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a Parquet file.

    Attributes:
        number: Of the row in the file, from 0.
        name: Of its picture, or None.
        content: Its encoded picture, or None.
        error: Why the row cannot be read, or None.
    """

    number: int
    name: str | None = None
    content: bytes | None = None
    error: str | None = None


def read_rows(path: Path, first: int, count: int, columns: Columns) -> Iterator[TableRow]:
    """Yield some rows.

    Only the row groups that hold them are read, a few rows at a time. Where one is damaged, its rows from the damage on
    have an error.

    Raises:
        FrameError: The file cannot be opened, is another one than it was, or a column is not there or holds no bytes.
        ClusterError: This machine cannot read on.
    """
    with _opened(path) as file:
        image, name = _chosen(path, file.schema_arrow, columns)
        if file.metadata.num_rows < first + count:
            raise FrameError(
                f"{path}: expected {first + count} rows or more, as there were, got {file.metadata.num_rows}"
            )
        end = 0
        for group in range(file.metadata.num_row_groups):
            start, end = end, end + file.metadata.row_group(group).num_rows
            if start < first + count and end > first:
                rows = _rows_of_group(path, file, group, start, image, name)
                yield from itertools.islice(rows, max(first - start, 0), min(first + count, end) - start)


def _rows_of_group(
    path: Path,
    file: Any,  # noqa: ANN401
    group: int,
    start: int,
    image: str,
    name: str | None,
) -> Iterator[TableRow]:
    """Yield the rows of a row group, whose first is ``start``."""
    wanted = [column for column in (image, name) if column is not None]
    row = start
    try:
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=wanted):
            names = [None] * len(batch) if name is None else _column(batch, name).to_pylist()
            for content, title in zip(_column(batch, image), names, strict=True):
                yield TableRow(row, None if title is None else str(title), content.as_py())
                row += 1
    except _errors() as error:
        if is_of_machine(error):
            raise unseen(str(path), error) from error
        if isinstance(error, MemoryError):
            raise
        why = str(error).splitlines()[0]
    for left in range(row, start + file.metadata.row_group(group).num_rows):
        yield TableRow(left, error=f"{path}, row {left}: row group {group} cannot be read: {why}")


def _opened(path: Path) -> Any:  # noqa: ANN401
    try:
        return import_parquet().ParquetFile(path)
    except _errors() as error:
        raise FrameError(f"{path}: cannot be read as a Parquet file: {str(error).splitlines()[0]}") from error


def _errors() -> tuple[type[Exception], ...]:
    import_parquet()
    import pyarrow as pa  # noqa: PLC0415 - an extra

    return (pa.ArrowException, OSError)


def _chosen(path: Path, schema: Any, columns: Columns) -> tuple[str, str | None]:  # noqa: ANN401
    """Return the columns of pictures and of names; raise FrameError where there is none of pictures."""
    from pyarrow import types  # noqa: PLC0415 - an extra

    kinds = _kinds(schema)
    for asked, option in ((columns.image, "--image-column"), (columns.name, "--name-column")):
        if asked is not None and asked not in kinds:
            raise FrameError(f"{path}: no column {asked}; {option} takes one of {', '.join(kinds)}")
    binary = [
        name
        for name, kind in kinds.items()
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    ]
    image = columns.image or next((name for name in IMAGE_COLUMNS if name in binary), None)
    if image not in binary:
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise FrameError(f"{path}: expected a column of encoded pictures, got {found}; name one with --image-column")
    return image, columns.name or next((name for name in NAME_COLUMNS if name in kinds), None)


def _kinds(schema: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the type of each column, and of each field of those that have fields."""
    from pyarrow import types  # noqa: PLC0415 - an extra

    kinds: dict[str, Any] = {}
    for field in schema:
        if types.is_struct(field.type):
            kinds |= {f"{field.name}.{inner.name}": inner.type for inner in field.type}
        else:
            kinds[field.name] = field.type
    return kinds


def _column(batch: Any, name: str) -> Any:  # noqa: ANN401
    import pyarrow.compute  # noqa: PLC0415 - an extra

    top, _, inner = name.partition(".")
    if name in batch.schema.names or not inner:
        return batch.column(name)
    return pyarrow.compute.struct_field(batch.column(top), inner)
