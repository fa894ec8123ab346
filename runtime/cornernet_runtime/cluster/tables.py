"""Pictures in Parquet files, as data sets keep them: a column of encoded bytes and perhaps one of names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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


def read_rows(path: Path, first: int, count: int, columns: Columns) -> Iterator[tuple[int, str | None, bytes | None]]:
    """Yield number, name and encoded picture of some rows; None for what a row lacks.

    Only the row groups that hold them are read, a few rows at a time.

    Raises:
        FrameError: The file cannot be read, or a column is not there or holds no bytes.
    """
    arrow_errors = _errors()
    with _opened(path) as file:
        image, name = _chosen(path, file.schema_arrow, columns)
        groups: list[int] = []
        start = begin = 0
        for group in range(file.metadata.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if start < first + count and end > first:
                begin = begin if groups else start
                groups.append(group)
            start = end
        row = begin
        wanted = [column for column in (image, name) if column is not None]
        try:
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=wanted):
                names = [None] * len(batch) if name is None else _column(batch, name).to_pylist()
                for content, title in zip(_column(batch, image), names, strict=True):
                    if first <= row < first + count:
                        yield row, None if title is None else str(title), content.as_py()
                    row += 1
        except arrow_errors as error:
            raise FrameError(f"{path}: row {row} cannot be read: {str(error).splitlines()[0]}") from error


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
