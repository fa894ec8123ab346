"""Many sources into one model beside one source: frames a second of all, shares of each, and when some of them die."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING

from cornernet_bench.measuring.intervals import Ratio
from cornernet_bench.measuring.timing import take_turns
from cornernet_bench.stream.report import Sources
from cornernet_bench.stream.throughput import Cost, cost_of, way_of
from cornernet_runtime.errors import CornerNetWarning, VideoError
from cornernet_runtime.video.multi import MultiStream
from cornernet_runtime.video.sources import Frames
from cornernet_runtime.video.stream import LARGEST_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from cornernet_bench.stream.report import OnProgress, StreamRequest
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.video.frame import VideoFrame
    from cornernet_runtime.video.stream import FrameResult

ONE, MANY, DYING = "one source", "many", "some die"
DIE = 3 / 8  # of the sources


@dataclass(frozen=True, slots=True)
class Run:
    """All frames of all sources, once.

    Attributes:
        cost: Of a frame.
        given: Results by source.
        share: What the source with the fewest results has when half of all are given, through an equal share.
        in_order: Whether every source's frames came in order, and each once.
    """

    cost: Cost
    given: Counter[str]
    share: float
    in_order: bool


class SourcesWork:
    """What takes turns: each method runs once through the frames.

    Args:
        request: What to measure.
        detector: Stays open.
        frames: Whose pictures every source gives, over and over; at least one.

    Attributes:
        count: Sources.
        each: Frames that each gives.
        dying: Sources that die halfway.
        batch: Frames that are run together, at most.
    """

    def __init__(self, request: StreamRequest, detector: Detector, frames: Sequence[VideoFrame]) -> None:
        self.count, self.each = request.sources, request.source_frames
        self.dying = max(1, int(DIE * self.count))
        usual = 1 if detector.pipeline is None else LARGEST_BATCH
        self.batch = min(request.batch or usual, detector.backend.max_batch)
        self._detector, self._workers = detector, request.workers
        self._images = [frame.image for frame in frames]

    def one(self) -> Run:
        """Run as many frames as all sources have together, from one."""
        total = self.count * self.each
        source = Frames(self._pictures(total), 25, name=ONE)
        with self._detector.stream(source, "every", workers=self._workers, batch=self.batch) as stream:
            return _run(stream, [ONE], total)

    def many(self) -> Run:
        """Run all sources."""
        names = self.names
        sources = [Frames(self._pictures(self.each), 25, name=name) for name in names]
        with self._open(sources) as stream:
            return _run(stream, names, self.count * self.each)

    def some_die(self) -> Run:
        """Run all sources, some of which fail halfway."""
        names, half = self.names, self.each // 2
        dying = [Frames(self._failing(half), 25, name=name) for name in names[: self.dying]]
        others = [Frames(self._pictures(self.each), 25, name=name) for name in names[self.dying :]]
        total = self.dying * half + len(others) * self.each
        with (
            warnings.catch_warnings(action="ignore", category=CornerNetWarning),  # of each source that fails
            self._open([*dying, *others]) as stream,
        ):
            return _run(_until_failures(stream, self.dying), names, total)

    @property
    def names(self) -> list[str]:
        """Names of the sources; the first of them are those that die."""
        return [f"source {number}" for number in range(1, self.count + 1)]

    def _open(self, sources: Iterable[Frames]) -> MultiStream:
        return MultiStream(self._detector, sources, policy="every", batch=self.batch, workers=self._workers)

    def _pictures(self, count: int) -> Iterator[Any]:
        return islice(cycle(self._images), count)

    def _failing(self, count: int) -> Iterator[Any]:
        yield from self._pictures(count)
        raise VideoError("unplugged")


def measure_sources(work: SourcesWork, rounds: int, on_progress: OnProgress) -> tuple[Sources | None, bool]:
    """Measure one source, many, and many of which some die, in turns.

    Args:
        work: What to do.
        rounds: Of each.
        on_progress: Told of each part of a round.

    Returns:
        What complete rounds came to, None without one, and whether an interrupt ended it.

    Raises:
        CornerNetError: A frame cannot be detected in.
    """
    parts = {ONE: work.one, MANY: work.many, DYING: work.some_die}
    samples: dict[str, list[Run]] = {name: [] for name in parts}
    partial = False
    try:
        for number, name in take_turns(list(parts), rounds):
            on_progress(f"{work.count} sources: {name}", number, rounds)
            samples[name].append(parts[name]())
    except KeyboardInterrupt:
        partial = True
    complete = min(map(len, samples.values()))
    if not complete:
        return None, partial
    one, many, dying = (runs[:complete] for runs in samples.values())
    return Sources(
        rounds=complete,
        count=work.count,
        frames_each=work.each,
        batch=work.batch,
        one=way_of([run.cost for run in one]),
        many=way_of([run.cost for run in many]),
        some_die=way_of([run.cost for run in dying]),
        of_one=Ratio.of([run.cost.wall for run in one], [run.cost.wall for run in many]),
        of_many=Ratio.of([run.cost.wall for run in many], [run.cost.wall for run in dying]),
        dying=work.dying,
        least_share=min(run.share for run in many),
        given=_added(many),
        given_as_some_die=_added(dying),
        in_order=all(run.in_order for run in chain(one, many, dying)),
    ), partial


def sources_failures(sources: Sources) -> list[str]:
    """Return a line for frames that are missing or came twice, or in another order."""
    lines = []
    whole, half = (sources.rounds * frames for frames in (sources.frames_each, sources.frames_each // 2))
    for given, dying in ((sources.given, 0), (sources.given_as_some_die, sources.dying)):
        for number, (name, count) in enumerate(given.items()):
            expected = half if number < dying else whole
            if count != expected:
                lines.append(f"sources: expected {expected} results of {name}, got {count}")
    if not sources.in_order:
        lines.append("sources: expected the frames of each in order and each once, got one again or an older one")
    return lines


def _run(results: Iterable[FrameResult], names: Sequence[str], total: int) -> Run:
    """Take all results, ``total`` of them if all is well."""
    given, halfway = Counter(dict.fromkeys(names, 0)), Counter[str]()
    last: dict[str, int] = {}
    in_order = True

    def take() -> None:
        nonlocal in_order, halfway
        for number, result in enumerate(results, start=1):
            name = result.frame.source
            in_order &= result.index > last.get(name, -1)
            last[name] = result.index
            given[name] += 1
            if number == max(1, total // 2):
                halfway = given.copy()

    cost = cost_of(take, max(total, 1))
    share = min(halfway[name] for name in names) * len(names) / max(1, halfway.total())
    return Run(cost, given, share, in_order)


def _until_failures(stream: MultiStream, expected: int) -> Iterator[FrameResult]:
    """Yield all results; at their end the failures of so many sources are raised, and no others may be."""
    try:
        yield from stream
    except VideoError:
        if len(stream.errors) != expected:
            raise


def _added(runs: Iterable[Run]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for run in runs:
        total.update(run.given)
    return dict(total)
