"""A run on a cluster: what is done already, what there is to do, and what it came to."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cornernet_runtime.cluster.connect import connected
from cornernet_runtime.cluster.folder import RunFolder, RunIdentity, Totals
from cornernet_runtime.cluster.model import identify
from cornernet_runtime.cluster.plan import plan_units
from cornernet_runtime.cluster.pool import Work
from cornernet_runtime.errors import CornerNetWarning
from cornernet_runtime.opening import check_backend
from cornernet_runtime.processing.geometry import usable_scales
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cornernet_runtime.bundle.spec import ModelSpec
    from cornernet_runtime.cluster.pool import Progress
    from cornernet_runtime.cluster.request import ClusterRequest
    from cornernet_runtime.cluster.rows import PartSummary, Row


@dataclass(frozen=True, slots=True)
class ClusterSummary:
    """What a run came to.

    Attributes:
        spec: How the model is used.
        scales: At which it looked at each picture.
        parts: What became of each part, in the order of the results.
        computed: Of these, those that were done now rather than by an earlier run.
        folder: Where the rows are, or None.
        rows: All rows in order, where there is no folder.
    """

    spec: ModelSpec
    scales: tuple[float, ...]
    parts: tuple[PartSummary, ...]
    computed: tuple[PartSummary, ...] = ()
    folder: RunFolder | None = None
    rows: tuple[Row, ...] = ()

    def read_rows(self) -> Iterator[Row]:
        """Yield all rows in order, from the folder where there is one.

        Raises:
            OutputError: A file cannot be read.
        """
        yield from self.rows if self.folder is None else self.folder.rows(self.parts)

    @property
    def totals(self) -> Totals:
        """Sums over the parts."""
        pictures, failed = (sum(getattr(part, name) for part in self.parts) for name in ("pictures", "failed"))
        return Totals(len(self.parts), pictures, failed, sum(self.counts.values()))

    @property
    def counts(self) -> Counter[str]:
        """Objects by class name."""
        return sum((Counter(part.counts) for part in self.parts), Counter())

    @property
    def workers(self) -> int:
        """Workers that took part now."""
        return len({part.worker for part in self.computed})

    @property
    def rate(self) -> float:
        """Pictures a second of what was done now, from the first part's begin to the last one's end; 0 without any."""
        if not self.computed:
            return 0.0
        seconds = max(part.ended for part in self.computed) - min(part.begun for part in self.computed)
        return sum(part.pictures for part in self.computed) / max(seconds, 1e-9)


def detect_on_cluster(
    request: ClusterRequest,
    on_progress: Progress = lambda *_: None,
    on_problem: Callable[[str], None] = lambda _: None,
) -> ClusterSummary:
    """Detect objects in all pictures and frames, and write a row of each; what cannot be read is named and counted.

    A part that is in the output folder already is not done again. Rows are those of a single process, to the last bit.

    Args:
        request: What to do.
        on_progress: Told how many parts are done, of how many (0 while that is not known), and what became of the last.
        on_problem: Told of each picture and video that could not be read.

    Raises:
        ClusterError: There is no Ray at the address, or a worker lacks something, cannot write, or dies again and
            again; finished parts are kept.
        FrameError: A source names nothing.
        OutputError: The folder holds another run's results, or cannot be written.
        CornerNetError: The model cannot be opened.
    """
    check_backend(request.backend)
    model = identify(request.model)
    plan = plan_units(request.sources, request.part_size, request.columns)
    folder = None
    if request.output is not None:
        folder = RunFolder(request.output, _identity(request, model.sha256, plan.sha256))
    run = Work(request, model.sha256, folder, plan.units, on_progress)
    parts = () if folder is None else folder.finished_parts()
    if not parts:
        try:
            with connected(request.address):
                if folder is not None:
                    folder.claim()
                run.do()
        except BaseException:
            if folder is not None:
                folder.release()
            raise
        parts = run.summaries
    scales = usable_scales(request.scales, model.spec)
    summary = ClusterSummary(model.spec, scales, tuple(parts), tuple(run.computed), folder, tuple(run.rows))
    if folder is not None and folder.finished is None:
        folder.finish(summary.totals)
    for problem in dict.fromkeys(problem for part in summary.parts for problem in part.problems):
        warnings.warn(problem, CornerNetWarning, stacklevel=2)
    for part in summary.parts:
        for error in part.errors:
            on_problem(error)
    return summary


def _identity(request: ClusterRequest, model_sha256: str, sources_sha256: str) -> RunIdentity:
    return RunIdentity(
        version=__version__,
        model_sha256=model_sha256,
        sources_sha256=sources_sha256,
        backend=request.backend,
        flip=request.flip,
        scales=request.scales,
        score=request.score,
        every=request.every,
        part_size=request.part_size,
        image_column=request.columns.image,
        name_column=request.columns.name,
    )
