"""The work of a run: parts spread over a pool of workers by Ray Data, each done once."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_runtime.bundle.records import from_json, to_json
from cornernet_runtime.cluster.connect import import_ray, one_line
from cornernet_runtime.cluster.plan import PART_SIZE, Part, spans_of
from cornernet_runtime.cluster.rows import PartSummary, Row, rows_from_bytes
from cornernet_runtime.cluster.worker import Task, Worker, spans_in
from cornernet_runtime.errors import ClusterError, CornerNetWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cornernet_runtime.cluster.folder import RunFolder
    from cornernet_runtime.cluster.request import ClusterRequest
    from cornernet_runtime.cluster.video_spans import Span

TRIES = 4  # of a part whose worker dies, before it is taken for the cause
Progress = Callable[[int, int, PartSummary | None], None]


class Work:
    """The work of one request: what is done, by place in the order of the results."""

    def __init__(
        self, request: ClusterRequest, sha256: str, folder: RunFolder | None, units: Sequence[Part], tell: Progress
    ) -> None:
        self._request, self._folder, self._units, self._tell = request, folder, units, tell
        self._done: dict[tuple[int, int], PartSummary] = {}
        self._rows: dict[tuple[int, int], list[Row]] = {}
        self.computed: list[PartSummary] = []
        self._begun: Sequence[Part] = ()
        self._workers = 0
        paths = (request.model, *request.sources, *(() if request.output is None else (str(request.output),)))
        self._task = Task(
            model=request.model,
            sha256=sha256,
            backend=request.backend,
            flip=request.flip,
            scales=request.scales,
            score=request.score,
            every=request.every,
            columns=request.columns,
            cpus=request.worker_cpus,
            videos=any(unit.kind == "video" for unit in units),
            output=None if folder is None else str(folder.parts),
            base=None if all(Path(path).is_absolute() for path in paths) else str(Path.cwd()),
        )

    def do(self) -> None:
        """Do what is not done yet."""
        self._tell(0, 0, None)
        with self._told_plainly():
            self._compute(self._cut())
            void = {part.unit for part in self._done.values() if part.uneven is not None}
            if again := [unit for unit in self._units if unit.unit in void]:
                self._done = {place: part for place, part in self._done.items() if place[0] not in void}
                self._compute(again)
                self._remove_spans(again)

    @property
    def summaries(self) -> list[PartSummary]:
        """What became of each part, in order."""
        return [part for _, part in sorted(self._done.items())]

    @property
    def rows(self) -> list[Row]:
        """The rows, in order, where there is no folder."""
        return [row for place in sorted(self._done) for row in self._rows.get(place, [])]

    def _cut(self) -> list[Part]:
        """Return all parts; videos are cut by Ray's tasks, for their packets have to be read."""
        for unit in self._units:
            self._look_for(unit)
        videos = [unit for unit in self._units if unit.kind == "video"]
        whole = [unit for unit in videos if _place(unit) in self._done]
        self._remove_spans(whole)  # a driver was killed before it did
        videos = [unit for unit in videos if _place(unit) not in self._done]
        spans: dict[int, list[Span]] = {}
        if videos:
            least = (self._request.part_size or PART_SIZE) * self._request.every
            base = self._task.base or ""
            rows = [
                {
                    "unit": unit.unit,
                    "path": os.fsencode(Path(base, unit.sources[0])),
                    "seen": not unit.missing,
                    "least": least,
                }
                for unit in videos
            ]
            data = import_ray().data
            for row in data.from_items(rows, override_num_blocks=len(rows)).map(spans_in, num_cpus=1).iter_rows():
                if row["fatal"] is not None:
                    raise ClusterError(row["fatal"])
                spans[row["unit"]] = json.loads(row["spans"])
        return [part for unit in self._units for part in spans_of(unit, spans.get(unit.unit, ()))]

    def _compute(self, parts: Sequence[Part]) -> None:
        """Do those of some parts that are not done."""
        todo = []
        for part in parts:
            if _place(part) not in self._done and part.span is not None:
                self._look_for(part)
            if _place(part) not in self._done:
                todo.append(part)
        finished, count = len(parts) - len(todo), len(parts)
        self._tell(finished, count, None)
        for summary, rows in self._spread(todo) if todo else ():
            self._done[_place(summary)] = summary
            if rows is not None:
                self._rows[_place(summary)] = list(rows_from_bytes(rows))
            self.computed.append(summary)
            finished += 1
            self._tell(finished, count, summary)

    def _look_for(self, part: Part) -> None:
        """Take note of a part that is done already."""
        if self._folder is not None and (done := self._folder.done(part)) is not None:
            self._done[_place(part)] = done

    def _spread(self, parts: Sequence[Part]) -> Iterator[tuple[PartSummary, bytes | None]]:
        """Yield what becomes of parts, as they are done."""
        ray = import_ray()
        request = self._request
        self._begun, self._workers = parts, min(_workers(ray, request), len(parts))
        pool = ray.data.ActorPoolStrategy(
            size=self._workers,
            max_tasks_in_flight_per_actor=1,  # a part that waits at a busy worker could be with an idle one
        )
        items = [{"part": json.dumps(to_json(part))} for part in parts]
        with warnings.catch_warnings():
            # Ray 2.64 is to drop the last two arguments, with what they do as its only way but for the number of tries.
            warnings.simplefilter("ignore", ray.util.annotations.RayDeprecationWarning)
            done = ray.data.from_items(items, override_num_blocks=len(items)).map(
                Worker,
                fn_constructor_args=(self._task,),
                compute=pool,
                num_cpus=request.worker_cpus,
                num_gpus=request.worker_gpus or None,
                max_restarts=-1,
                max_task_retries=TRIES - 1,
            )
        for row in done.iter_rows():
            if row["fatal"] is not None:
                raise ClusterError(row["fatal"])
            yield from_json(PartSummary, json.loads(row["summary"])), row["rows"]

    def _remove_spans(self, units: Sequence[Part]) -> None:
        if self._folder is not None:
            for unit in units:
                self._folder.remove_spans(unit)

    @contextlib.contextmanager
    def _told_plainly(self) -> Iterator[None]:
        """Turn Ray's own errors into one line."""
        exceptions = import_ray().exceptions
        try:
            yield
        except exceptions.RayError as error:
            if "No module named 'cornernet_runtime'" in str(error):
                raise ClusterError(
                    "a worker has no cornernet-trt; install the same version on every machine: "
                    'pip install "cornernet-trt[cluster]"'
                ) from error
            if isinstance(error, exceptions.RayActorError):  # that it died, or that it is being started again
                raise ClusterError(
                    f"workers died {TRIES} times over the same part, of too little memory perhaps, or of a file in it: "
                    f"{self._suspects()} ({one_line(error)}){self._kept()}"
                ) from error
            raise ClusterError(f"Ray failed: {one_line(error)}{self._kept()}") from error
        except ClusterError as error:
            raise ClusterError(f"{error}{self._kept()}") from error

    def _kept(self) -> str:
        folder = self._folder
        if folder is None or not folder.files():
            return ""
        return f"; finished parts are kept in {folder.path}: run the same command again to go on"

    def _suspects(self) -> str:
        """Return the parts of which one is likely at fault: the first that are not done, for they were begun."""
        left = (
            part.sources[0] if len(part.sources) == 1 else f"{part.sources[0]} to {part.sources[-1]}"
            for part in self._begun
            if _place(part) not in self._done and (self._folder is None or self._folder.done(part) is None)
        )
        return " or ".join(itertools.islice(left, self._workers)) or "which is not known"


def _workers(ray: Any, request: ClusterRequest) -> int:  # noqa: ANN401
    """Return how many workers to start.

    Raises:
        ClusterError: No machine has what one of them needs, and nobody said to wait for one.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": request.worker_cpus, "GPU": request.worker_gpus}
    places = sum(
        min(math.floor(machine.get(kind, 0) / share) for kind, share in asked.items() if share) for machine in machines
    )
    if request.workers is None and not places:
        most = ", ".join(f"{max(machine.get(kind, 0) for machine in machines):g} {kind}" for kind in asked)
        raise ClusterError(
            f"no machine of the cluster has {request.worker_cpus} CPU and {request.worker_gpus:g} GPU for a worker; "
            f"the most of one are {most}: ask for less, or say --workers N to wait for machines that will come"
        )
    if request.workers is not None and request.workers > places:
        warnings.warn(
            f"the cluster has a place for {places} of {request.workers} workers; the others wait for one",
            CornerNetWarning,
            stacklevel=2,
        )
    return request.workers or places


def _place(part: Part | PartSummary) -> tuple[int, int]:
    return part.unit, -1 if part.span is None else part.span
