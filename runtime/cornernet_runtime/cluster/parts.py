"""The frames of a part, as a source of a stream, and what could not be read of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cornernet_runtime.cluster.access import check_seen, is_of_machine, is_of_memory, unseen
from cornernet_runtime.cluster.rows import Row
from cornernet_runtime.cluster.tables import Columns, read_rows
from cornernet_runtime.cluster.video_spans import VideoSpan
from cornernet_runtime.errors import ClusterError, FrameError
from cornernet_runtime.pictures import decode_picture, read_picture
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.frame import MICROSECOND, VideoFrame
from cornernet_runtime.video.sources import Part as VideoPart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cornernet_runtime.cluster.plan import Part
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.video.frame import Source


class Frames(Protocol):
    """A source, and the rows of what it gives.

    Attributes:
        source: Gives the frames.
        failed: Rows of what could not be read, by their places in the part; complete when the frames are over.
    """

    source: Source
    failed: dict[int, Row]

    def row(self, frame: VideoFrame, detections: Detections) -> Row:
        """Return the row of a frame."""


def open_part(part: Part, *, every: int, columns: Columns, threads: int) -> Frames:
    """Open a part.

    Args:
        part: Which.
        every: Of so many frames of a video one is looked at.
        columns: Of Parquet files.
        threads: For decoding videos.

    Raises:
        VideoError: It is of a video that cannot be opened.
        ClusterError: This machine does not see a video that was there when the run was planned.
    """
    return _Video(part, every, threads) if part.kind == "video" else _Pictures(part, columns)


class _Video:
    def __init__(self, part: Part, every: int, threads: int) -> None:
        self.failed: dict[int, Row] = {}
        whole = part.span is None
        path = part.sources[0]
        if path not in part.missing:
            check_seen(path)
        self.source: Source = VideoPart(VideoFile(path), every=every) if whole else VideoSpan(part, every, threads)

    def row(self, frame: VideoFrame, detections: Detections) -> Row:
        return Row(
            frame.source, frame.index, timestamp=frame.seconds, size=frame.image.shape[:2], detections=detections
        )


class _Pictures:
    """Pictures as frames: the index of a frame is its place in the part."""

    live = False

    def __init__(self, part: Part, columns: Columns) -> None:
        self.source: Source = self
        self.name, self.problems = part.sources[0], list[str]()
        self.failed: dict[int, Row] = {}
        self._part, self._columns = part, columns
        self._rows: dict[int, Row] = {}  # of frames that are on their way

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the pictures that can be read.

        Raises:
            FrameError: The Parquet file cannot be read.
            ClusterError: This machine lacks memory, or does not see a picture that was there when the run was planned.
        """
        for place, (row, content) in enumerate(self._contents()):
            if row.error is not None:
                self.failed[place] = row
                continue
            name = row.source if row.name is None else f"{row.source}: {row.name}"
            if self._part.kind == "table":
                name = f"{name}, row {row.index}"
            try:
                if content is None and self._part.kind == "table":
                    raise FrameError(f"{name}: no picture")  # noqa: TRY301 - one way for all
                image = read_picture(Path(row.source)) if content is None else decode_picture(content, name)
            except FrameError as error:
                if is_of_machine(error.__cause__) and row.source not in self._part.missing:
                    raise unseen(row.source, error.__cause__) from error
                if is_of_memory(error.__cause__):
                    raise ClusterError(str(error)) from error
                self.failed[place] = Row(row.source, row.index, row.name, error=str(error))
                continue
            self._rows[place] = row
            yield VideoFrame(image, place, place, MICROSECOND, self.name)

    def row(self, frame: VideoFrame, detections: Detections) -> Row:
        row = self._rows.pop(frame.index)
        return Row(row.source, row.index, row.name, size=frame.image.shape[:2], detections=detections)

    def close(self) -> None:
        """Nothing is held."""

    def _contents(self) -> Iterator[tuple[Row, bytes | None]]:
        part = self._part
        if part.kind == "pictures":
            yield from ((Row(path, 0), None) for path in part.sources)
            return
        rows = read_rows(Path(part.sources[0]), part.first, part.count or 0, self._columns)
        for row in rows:
            yield Row(part.sources[0], row.number, row.name, error=row.error), row.content
