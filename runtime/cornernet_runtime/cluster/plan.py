"""What there is to do, cut into parts: the same sources and options give the same parts, wherever and whenever."""

from __future__ import annotations

import glob
import hashlib
import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cornernet_runtime.cluster.tables import Columns, row_count
from cornernet_runtime.errors import FrameError
from cornernet_runtime.pictures import SUFFIXES as PICTURE_SUFFIXES
from cornernet_runtime.pictures import find_pictures
from cornernet_runtime.video.addresses import SUFFIXES as VIDEO_SUFFIXES
from cornernet_runtime.video.addresses import is_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

TABLE_SUFFIX = ".parquet"
PART_SIZE = 256  # pictures or frames a part at most, where no number is asked for
SHARES, LEAST_SIZE = 32, 8  # the parts that few pictures are cut into, but for those too small to be worth a file
Kind = Literal["pictures", "table", "video"]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of work that is done whole, and gives one file.

    Attributes:
        unit: Number of the piece among all, in the order of the results; a video is one unit, whatever its spans.
        kind: Pictures, rows of a Parquet file, or frames of a video.
        sources: The pictures' paths; else the one file.
        first: Row or frame with which it begins.
        count: Rows or frames; None for a whole video.
        span: Number of the span of a video; None for a unit that is one part.
        start: Time of a span's first frame, in ticks of the video; None for its beginning.
        end: Time of the frame after the last one, in ticks; None for the video's end.
        missing: Of the sources, those that the machine of the command does not see either.
    """

    unit: int
    kind: Kind
    sources: tuple[str, ...]
    first: int = 0
    count: int | None = None
    span: int | None = None
    start: int | None = None
    end: int | None = None
    missing: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """Of its rows; names sort in the order of the results."""
        return file_name_of(self.unit, self.span)


@dataclass(frozen=True, slots=True)
class Plan:
    """All units of a run.

    Attributes:
        units: In the order of the results; each video whole.
        sha256: Of the sources' names, sizes and times of change.
        sources: How many files there are.
    """

    units: tuple[Part, ...]
    sha256: str
    sources: int


def plan_units(sources: Sequence[str], size: int | None, columns: Columns) -> Plan:
    """Cut what the sources name into units.

    Args:
        sources: Pictures, Parquet files with pictures, videos, folders (of pictures, else of Parquet files) and globs.
        size: Pictures a unit, at most; None is a share of all that leaves each of several workers several.
        columns: Of Parquet files.

    Raises:
        FrameError: A source names nothing or cannot be read, or a Parquet file has no such column.
        ClusterError: pyarrow is not installed, which reads Parquet files.
    """
    files = [file for source in sources for file in _files(source)]
    digest = hashlib.sha256()
    missing: set[str] = set()
    for path in files:
        state = _state_of(path)
        if state is None:
            missing.add(str(path))
        digest.update(f"{path}\0{state or ''}\0".encode(errors="surrogateescape"))
    units = itertools.chain.from_iterable(
        _cut(kind, list(group), size, columns) for kind, group in itertools.groupby(files, _kind)
    )
    numbered = tuple(
        replace(unit, unit=number, missing=tuple(name for name in unit.sources if name in missing))
        for number, unit in enumerate(units)
    )
    return Plan(numbered, digest.hexdigest(), len(files))


def file_name_of(unit: int, span: int | None) -> str:
    """Return the name of the file of a part; names sort in the order of the results."""
    suffix = "" if span is None else f"-{span:05d}"
    return f"{unit:08d}{suffix}{TABLE_SUFFIX}"


def _files(source: str) -> list[Path]:
    """Return the files of a source, those of a folder or glob sorted by name."""
    if is_address(source):
        raise FrameError(f"{source}: many machines read files, not addresses; name a file that all of them see")
    path = Path(source)
    try:
        if path.is_dir():
            found = _by_kind(source, (item for item in path.iterdir() if not item.is_dir()))
            return sorted(found.get("table", ())) or find_pictures([source])
        if path.exists():
            return [path]
        matches = glob.glob(source, recursive=True)  # noqa: PTH207 - absolute ones too
        found = _by_kind(source, map(Path, matches))
    except OSError as error:
        raise FrameError(f"{source}: cannot be read: {error.strerror or error}") from error
    return sorted(found.get("table", found.get("video", ()))) or find_pictures([source])


def _by_kind(source: str, paths: Iterable[Path]) -> dict[Kind, list[Path]]:
    """Return the pictures, Parquet files and videos among others; raise FrameError for more than one kind."""
    found: dict[Kind, list[Path]] = {}
    for path in paths:
        kind = _kind(path)
        if kind != "pictures" or path.suffix.lower() in PICTURE_SUFFIXES:
            found.setdefault(kind, []).append(path)
    if len(found) > 1:
        names = {"pictures": "pictures", "table": "Parquet files", "video": "videos"}
        counts = " and ".join(f"{word} ({len(found[kind])})" for kind, word in names.items() if kind in found)
        raise FrameError(f"{source}: holds {counts}; name them apart, by globs such as '*.jpg' and '*.parquet'")
    return found


def _kind(path: Path) -> Kind:
    suffix = path.suffix.lower()
    if suffix == TABLE_SUFFIX:
        return "table"
    return "video" if suffix in VIDEO_SUFFIXES else "pictures"


def _state_of(path: Path) -> str | None:
    """Return what changes when a file does, as far as that is known without reading it; None if it is missing."""
    try:
        state = path.stat()
    except OSError:  # it is named where it is read, like any picture that cannot be
        return None
    return f"{state.st_size} {state.st_mtime_ns}"


def _cut(kind: Kind, files: Sequence[Path], size: int | None, columns: Columns) -> Iterator[Part]:
    if kind == "pictures":
        size = size or _share(len(files))
        for start in range(0, len(files), size):
            names = tuple(map(str, files[start : start + size]))
            yield Part(0, kind, names, count=len(names))
    elif kind == "video":
        for path in files:
            yield Part(0, kind, (str(path),))
    else:
        for path in files:
            rows = row_count(path, columns)
            step = size or _share(rows)
            for first in range(0, rows, step):
                yield Part(0, kind, (str(path),), first=first, count=min(step, rows - first))


def _share(count: int) -> int:
    """Return how many of so many pictures a part has: several workers are to have several parts each."""
    return min(PART_SIZE, max(LEAST_SIZE, math.ceil(count / SHARES)))


def spans_of(unit: Part, spans: Iterable[tuple[int, int, int | None, int | None]]) -> list[Part]:
    """Return the parts of a video that is cut into spans (first frame, count, start, end), or the unit if it is not."""
    parts = [
        replace(unit, first=first, count=count, span=number, start=start, end=end)
        for number, (first, count, start, end) in enumerate(spans)
    ]
    return parts if len(parts) > 1 else [unit]
