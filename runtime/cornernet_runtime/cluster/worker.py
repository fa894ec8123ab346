"""A worker: one detector in a process of Ray's, which does parts and writes their rows."""

from __future__ import annotations

import json
import os
import socket
import time
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from cornernet_runtime.bundle.records import from_json, to_json
from cornernet_runtime.cluster.access import check_seen
from cornernet_runtime.cluster.model import check_identity
from cornernet_runtime.cluster.parts import open_part
from cornernet_runtime.cluster.plan import Part
from cornernet_runtime.cluster.rows import PartSummary, Row, read_summary, to_bytes, to_table, write_rows
from cornernet_runtime.cluster.tables import Columns, import_parquet
from cornernet_runtime.cluster.video_spans import SpanError, split
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import ClusterError, CornerNetError, FrameError, VideoError
from cornernet_runtime.processing.geometry import is_too_large
from cornernet_runtime.version import __version__
from cornernet_runtime.video.file import import_av

if TYPE_CHECKING:
    from cornernet_runtime.cluster.parts import Frames


@dataclass(frozen=True, slots=True)
class Task:
    """What all workers of a run do alike.

    Attributes:
        model: Bundle folder or ``.onnx`` file, at this path on every machine.
        sha256: That its files must have there, see ``model.identify``.
        version: Of this package, that every machine must have.
        backend: As for ``Detector.open``.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        score: Least score of what is kept.
        every: Of so many frames of a video one is looked at.
        columns: Of Parquet files.
        cpus: That a worker may use.
        videos: Whether there are any.
        output: Folder of the files, at this path on every machine; None sends the rows back.
        base: Folder that relative paths begin at; None where all are absolute.
    """

    model: str
    sha256: str
    backend: str | None
    flip: bool
    scales: tuple[float, ...]
    score: float
    every: int
    columns: Columns
    cpus: int
    videos: bool
    output: str | None
    base: str | None
    version: str = __version__


class Worker:
    """Does parts, one after the other.

    Nothing of ours is raised: Ray would do a part again that fails for a reason that stays, and wrap the reason into
    tracebacks. It is returned instead, and whoever drives the run ends it.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._host = socket.gethostname()
        self._fatal: str | None = None
        try:
            self._open()
        except CornerNetError as error:
            self._fatal = f"worker on {self._host}: {error}"

    def _open(self) -> None:
        task = self._task
        if task.version != __version__:
            raise ClusterError(
                f"expected cornernet-trt {task.version} as on the machine of this command, got {__version__}; "
                "install the same version everywhere"
            )
        if task.base is not None:
            try:
                os.chdir(task.base)  # this process is the worker's own
            except OSError as error:
                raise ClusterError(
                    f"the folder {task.base}, which relative paths begin at, cannot be entered here "
                    f"({error.strerror}); name model, sources and --output on a disk that all machines share"
                ) from error
        import_parquet()
        if task.videos:
            import_av()
        check_identity(task.model, task.sha256)
        # With more than one core, one frame is prepared or decoded while another is in the network.
        self._workers = 1 if task.cpus < 2 else 2
        threads = max(1, task.cpus // self._workers)
        cv2.setNumThreads(threads)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            self._detector = Detector.open(
                task.model, task.backend, flip=task.flip, scales=task.scales, threads=threads
            )
        self._notes = tuple(dict.fromkeys(str(warning.message) for warning in told))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do a part: JSON of a ``Part`` in; out comes that of its summary, the rows if they are wanted, or why not."""
        part = from_json(Part, json.loads(row["part"]))
        nothing = {"summary": None, "rows": None, "fatal": None}
        if self._fatal is not None:
            return nothing | {"fatal": self._fatal}
        try:
            summary, rows = self._do(part)
        except CornerNetError as error:
            return nothing | {"fatal": f"worker on {self._host}: {error}"}
        return nothing | {"summary": json.dumps(to_json(summary)), "rows": rows}

    def _do(self, part: Part) -> tuple[PartSummary, bytes | None]:
        path = None if self._task.output is None else Path(self._task.output, part.file_name)
        if path is not None and (done := read_summary(path)) is not None:  # by a worker that was killed after it
            return done, None
        begun = time.time()
        rows, told = self._detect(part)
        counts: Counter[str] = Counter()
        for row in rows:
            if row.detections is not None:
                counts.update(name for _, _, name in row.detections)
        summary = replace(
            told,
            counts=dict(counts),
            worker=f"{self._host}:{os.getpid()}",
            backend=self._detector.backend.name,
            begun=begun,
            ended=time.time(),
        )
        table = to_table(rows, self._detector.class_names, summary)
        if path is None:
            return summary, to_bytes(table)
        write_rows(path, table)
        return summary, None

    def _detect(self, part: Part) -> tuple[list[Row], PartSummary]:
        """Return the rows of a part, in order, and what became of it."""
        rows: dict[int, Row] = {}
        detecting, error, uneven = 0.0, None, None
        known = 0  # problems of a video before it is read
        frames: Frames | None = None
        task = self._task
        try:
            frames = open_part(part, every=task.every, columns=task.columns, threads=task.cpus)
            known = len(frames.source.problems)
            with (
                warnings.catch_warnings(),
                self._detector.stream(frames.source, "every", workers=self._workers) as stream,
            ):
                warnings.simplefilter("ignore")  # of problems, which the summary has
                for found in stream:
                    rows[found.index] = frames.row(found.frame, found.detections.above(task.score))
                    detecting += found.detecting_s
        except SpanError as failure:
            uneven, rows = str(failure), {}
        except (VideoError, FrameError) as failure:
            if part.kind != "video" or not _is_of_video(failure):
                raise
            error = str(failure)
        if part.kind == "video" and not part.missing:
            damaged = frames is not None and len(frames.source.problems) > known
            if damaged or error is not None or uneven is not None:
                check_seen(part.sources[0], whole=True)  # FFmpeg takes a disk that fails for the end of the file
        failed = {} if frames is None else frames.failed
        ordered = [row for _, row in sorted((rows | failed).items())]
        errors = [row.error for row in ordered if row.error is not None]
        if error is not None:
            ordered.append(Row(part.sources[0], None, error=error))
            errors.append(error)
        summary = PartSummary(
            unit=part.unit,
            span=part.span,
            source=part.sources[0],
            pictures=len(rows),
            failed=len(errors),
            errors=tuple(errors),
            problems=(*self._notes, *(() if frames is None else frames.source.problems)),
            uneven=uneven,
            detecting_s=detecting,
            scaled_down=sum(self._too_large(row) for row in rows.values()),
        )
        return ordered, summary

    def _too_large(self, row: Row) -> bool:
        return row.size is not None and is_too_large(row.size, self._detector.spec, self._detector.scales)


def _is_of_video(failure: CornerNetError) -> bool:
    """Whether it tells of the video, rather than of this machine: a stream makes VideoErrors of all that it meets."""
    cause = failure.__cause__
    decoding = isinstance(cause, import_av().error.FFmpegError) and not isinstance(cause, MemoryError)
    return cause is None or decoding


def spans_in(row: dict[str, Any]) -> dict[str, Any]:
    """Cut a video by ``video_spans.split``: JSON of the spans, or why not.

    In come its path, whether the machine of the command sees it, and the least frames.
    """
    try:
        import_av()
        path = os.fsdecode(row["path"])
        if row["seen"]:
            check_seen(path)
        spans = split(path, row["least"])
        return {"unit": row["unit"], "spans": json.dumps(spans), "fatal": None}
    except CornerNetError as error:
        return {"unit": row["unit"], "spans": None, "fatal": f"worker on {socket.gethostname()}: {error}"}
