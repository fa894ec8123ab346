"""The folder of a run: which run it is, and what of it is done."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from cornernet_runtime.bundle.records import RecordError, from_json, to_json
from cornernet_runtime.cluster.plan import TABLE_SUFFIX, file_name_of
from cornernet_runtime.cluster.rows import Row, read_rows, read_summary
from cornernet_runtime.errors import OutputError
from cornernet_runtime.files import make_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cornernet_runtime.cluster.plan import Part
    from cornernet_runtime.cluster.rows import PartSummary

RUN_NAME = "run.json"
PARTS_NAME = "parts"


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """What decides the rows of a run, and how they are cut into files.

    Attributes:
        version: Of this package.
        model_sha256: As for ``model.ModelIdentity``.
        sources_sha256: As for ``plan.Plan``.
        backend: That was asked for, or None.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        score: Least score of what is kept.
        every: Of so many frames of a video one is looked at.
        part_size: Pictures or frames a part, or None.
        image_column: That was asked for, or None.
        name_column: That was asked for, or None.
    """

    version: str
    model_sha256: str
    sources_sha256: str
    backend: str | None
    flip: bool
    scales: tuple[float, ...]
    score: float
    every: int
    part_size: int | None
    image_column: str | None
    name_column: str | None


@dataclass(frozen=True, slots=True)
class Totals:
    """What a finished run came to: files, pictures or frames looked at, what could not be read, and objects."""

    parts: int
    pictures: int
    failed: int
    objects: int


@dataclass(frozen=True, slots=True)
class _Record:
    """Content of ``run.json``; ``finished`` is None while there is something to do."""

    run: RunIdentity
    finished: Totals | None = None


class RunFolder:
    """A folder with ``run.json`` and, in ``parts``, a Parquet file for each part that is done.

    Args:
        path: Of the folder, which is made, and is the run's from ``claim`` on; one of the same run is gone on with.
        run: Which run it is.

    Raises:
        OutputError: It holds another run or other things, or cannot be written.
    """

    def __init__(self, path: Path, run: RunIdentity) -> None:
        self.path, self.parts = path, path / PARTS_NAME
        self._run = run
        self._record = path / RUN_NAME
        self.finished: Totals | None = None
        make_folder(path)
        try:
            if self._record.exists():
                self.finished = self._same_run(self._record.read_text(encoding="utf-8"))
            elif any(path.iterdir()):
                raise OutputError(
                    f"{path} holds other things than a run of --ray: name a new or empty folder with --output"
                )
        except OSError as error:
            raise OutputError(f"{path}: cannot be used: {error.strerror or error}") from error

    def claim(self) -> None:
        """Make it the folder of this run, for the parts that are to come.

        Raises:
            OutputError: It cannot be written.
        """
        try:
            if not self._record.exists():
                self._write(None)
            make_folder(self.parts)
            for left in self.parts.glob(f".*{TABLE_SUFFIX}.*"):  # of workers that were killed
                left.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be used: {error.strerror or error}") from error

    def release(self) -> None:
        """Let go of a folder in which nothing was finished: the next command may be another run."""
        with contextlib.suppress(OSError):  # it stays this run's then
            if not self.files():
                self._record.unlink(missing_ok=True)
                self.parts.rmdir()

    def _same_run(self, text: str) -> Totals | None:
        """Return the totals if that run is finished; raise OutputError for another one."""
        again = "choose another --output folder, or delete this one"
        try:
            record = from_json(_Record, json.loads(text))
        except (RecordError, RecursionError, ValueError) as error:
            raise OutputError(
                f"{self._record}: is no record of a run that this version knows ({error}); {again}"
            ) from error
        for field in fields(RunIdentity):
            theirs, ours = (getattr(run, field.name) for run in (record.run, self._run))
            if theirs != ours:
                what = _WORDS.get(field.name, f"--{field.name.replace('_', '-')}")
                values = "" if field.name.endswith("sha256") else f": {_shown(theirs)} there, {_shown(ours)} now"
                raise OutputError(f"{self.path} holds the results of another run ({what}{values}); {again}")
        return record.finished

    def done(self, part: Part) -> PartSummary | None:
        """Return what became of a part, or None if it is still to be done."""
        return read_summary(self.parts / part.file_name)

    def finished_parts(self) -> list[PartSummary]:
        """Return what became of all parts of a run that is finished; nothing of one that is not, or that lost files."""
        parts = [read_summary(path) for path in self.files()] if self.finished is not None else []
        whole = [part for part in parts if part is not None]
        if self.finished is None or len(whole) != self.finished.parts:
            self.finished = None
            return []
        return whole

    def files(self) -> list[Path]:
        """Return the files of parts, in the order of the results."""
        return sorted(self.parts.glob(f"[0-9]*{TABLE_SUFFIX}"))

    def remove_spans(self, unit: Part) -> None:
        """Remove what a video's spans left, which was done again as a whole.

        Raises:
            OutputError: It cannot be removed.
        """
        for path in self.parts.glob(f"{unit.unit:08d}-*{TABLE_SUFFIX}"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"cannot remove {path}: {error.strerror or error}") from error

    def rows(self, parts: Iterable[PartSummary]) -> Iterator[Row]:
        """Yield the rows of some parts, one part after the other; other files may be left of a video's spans.

        Raises:
            OutputError: A file cannot be read.
        """
        for part in parts:
            yield from read_rows(self.parts / file_name_of(part.unit, part.span))

    def finish(self, totals: Totals) -> None:
        """Note that all is done.

        Raises:
            OutputError: That cannot be written.
        """
        self.finished = totals
        self._write(totals)

    def _write(self, totals: Totals | None) -> None:
        content = to_json(_Record(self._run, totals))
        write_atomically(self._record, json.dumps(content, indent=2) + "\n")


_WORDS = {
    "version": "version of cornernet-trt",
    "model_sha256": "its model is another",
    "sources_sha256": "its sources are others, or were changed since",
}


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{item:g}" for item in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
