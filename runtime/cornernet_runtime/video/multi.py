"""Detection in many sources at the same time, with one model."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.errors import CornerNetError, CornerNetWarning, VideoError
from cornernet_runtime.video.frame import stop
from cornernet_runtime.video.pool import Crew
from cornernet_runtime.video.sources import open_source
from cornernet_runtime.video.stream import LARGEST_BATCH, ResultStream, check_options, warn_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cornernet_runtime.video.detecting import FrameDetector
    from cornernet_runtime.video.lane import Ended, Lane
    from cornernet_runtime.video.statistics import StreamStatistics
    from cornernet_runtime.video.stream import Policy

WORKERS = 2  # on the CPU: while one is in the network, the other prepares or decodes


@dataclass(slots=True, eq=False)
class _Feed:
    """The lane of a source, and whether it was told that no more results come."""

    lane: Lane
    ended: bool = False


class MultiStream(ResultStream):
    """Iterator over the results of many sources: those of one in order, those of different ones as they come.

    Every source has a thread that reads it, and all share the workers of one model. A worker takes the frames that
    wait, up to a batch: each next frame is of the source that was served the longest ago. So sources that bring more
    than their share get equal shares, and those that bring less are served at once.

    ``result.frame.source`` says whose a result is. Equal names are numbered: "camera", "camera 2".

    A source that ends, stalls or fails does not hold up the others. An error ends its source alone: it comes as a
    ``CornerNetWarning`` as soon as the results before it were given, stays in ``errors``, and at the end of all sources
    a ``VideoError`` names those that failed. An error that is not one source's (the network cannot be run) is raised at
    once, after the results of before. In all other ways the stream ends as a ``DetectionStream`` does.

    Args:
        detector: Finds the objects; it stays open.
        sources: Each as for ``open_source``; the stream closes them.
        policy: Of every source, as for ``DetectionStream``; by default "newest" for those that are live and "every" for
            the others.
        latency_s: Seconds that frames wait for others while the batch is not full. By default they do not: what comes
            during a run makes the next batch, which is as full as it needs to be.
        batch: Frames that one run of the network takes at most. By default 1 on the CPU, where larger ones bring lag
            and no speed, and on a GPU what it can take, up to 8.
        workers: Threads that detect on the CPU; by default two, and one on one core.
        on_source_error: Told of each source that fails, in the consumer's thread, in place of the warning and of the
            error at the end.

    Attributes:
        errors: What ended the sources that failed, by name, as far as that was given.

    Raises:
        VideoError: A source cannot be opened, or the policy or a number is none; no source is left open.
        BackendError: There is no memory for the workers' clones.
    """

    def __init__(
        self,
        detector: FrameDetector,
        sources: Iterable[object] = (),
        *,
        policy: Policy | None = None,
        latency_s: float = 0.0,
        batch: int | None = None,
        workers: int | None = None,
        on_source_error: Callable[[str, CornerNetError], None] | None = None,
    ) -> None:
        check_options(policy, workers=workers, batch=batch)
        if not latency_s >= 0:
            raise VideoError(f"latency_s: expected 0 or more seconds, got {latency_s}")
        batch = min(batch or (1 if detector.pipeline is None else LARGEST_BATCH), detector.backend.max_batch)
        workers = workers or min(WORKERS, default_threads())
        super().__init__(Crew(detector, batch=batch, workers=workers, lead=1, latency=latency_s), "all sources")
        self.errors: dict[str, CornerNetError] = {}
        self._policy, self._on_source_error = policy, on_source_error
        self._feeds: dict[str, _Feed] = {}
        self._adding = threading.RLock()  # held until a source that is read is among the feeds
        try:
            for source in sources:
                self.add(source)
            self._crew.start()  # not before, so that the first batch is one of all
        except BaseException:
            self.close()
            raise

    @property
    def statistics(self) -> dict[str, StreamStatistics]:
        """How each source fares, by its name, at any time and from any thread; those that ended are still there.

        The stages of the workers are those of all sources, on average.
        """
        return {name: self._fares(name, feed) for name, feed in list(self._feeds.items())}

    def add(self, source: object, policy: Policy | None = None) -> str:
        """Read another source from now on, and return the name that its results have.

        Args:
            source: As for the class.
            policy: Of this source; by default as for the class.

        Raises:
            VideoError: It cannot be opened, is in the stream already, or the stream has ended.
        """
        check_options(policy)
        opened = open_source(source)
        policy = policy or self._policy or ("newest" if opened.live else "every")
        with self._adding:
            if any(opened is feed.lane.source for feed in list(self._feeds.values())):
                again = "expected each source once, got it twice; open it again to see it twice"
                raise VideoError(f"{opened.name}: {again}")
            name, number = opened.name, 1
            while name in self._feeds:
                number += 1
                name = f"{opened.name} {number}"
            try:
                lane = self._crew.read(opened, newest=policy == "newest", name=name)
            except BaseException:
                opened.close()
                raise
            self._feeds[name] = _Feed(lane)
        return name

    def remove(self, name: str) -> None:
        """Give no more results of a source, and close it as soon as it answers; its name becomes free.

        Raises:
            VideoError: There is no source of this name.
        """
        feed = self._feeds.pop(name, None)
        if feed is None:
            raise VideoError(f"{name}: no such source; there are {', '.join(self._feeds) or 'none'}")
        self.errors.pop(name, None)
        self._crew.remove(feed.lane)

    def close(self) -> None:
        """End the stream and wait for its threads; what is on its way is dropped, errors are warned of."""
        super().close()
        for name, feed in list(self._feeds.items()):  # who is told of an error may add and remove sources
            self._end_feed(name, feed, feed.lane.error)

    def _fares(self, name: str, feed: _Feed) -> StreamStatistics:
        told = self._crew.statistics(feed.lane)
        return replace(told, state="failed" if name in self.errors else "ended") if feed.ended else told

    def _end_lane(self, ended: Ended) -> None:
        with self._adding:
            feeds = list(self._feeds.items())
        for name, feed in feeds:
            if feed.lane is ended.lane:
                self._end_feed(name, feed, ended.error)

    def _end_feed(self, name: str, feed: _Feed, error: BaseException | None) -> None:
        """Tell, once, of what ended a source."""
        if feed.ended:
            return
        feed.ended = True
        feed.lane.meter.end()
        stop(feed.lane.source)  # whatever it waits for, if a frame of it was to blame
        warn_of(feed.lane.source.problems)
        if error is None:
            return
        self.errors[name] = problem = _named(name, error)
        if self._on_source_error is not None:
            self._on_source_error(name, problem)
            return
        go_on = self._stop.alive and not all(other.ended for other in self._feeds.values())
        warnings.warn(f"{problem}{'; the other sources go on' if go_on else ''}", CornerNetWarning, stacklevel=4)

    def _end(self) -> None:
        if self.errors and self._on_source_error is None:
            failed = f"{len(self.errors)} of {len(self._feeds)} sources failed"
            causes = ExceptionGroup(failed, list(self.errors.values()))
            raise VideoError(f"{failed}: {'; '.join(map(str, self.errors.values()))}") from causes


def _named(name: str, error: BaseException) -> CornerNetError:
    """Return an error as one of this project's, of the same type if it is one, that names its source."""
    if isinstance(error, CornerNetError):
        if name in str(error):
            return error
        named = type(error)(f"{name}: {error}")
    else:
        named = VideoError(f"{name}: {type(error).__name__}: {error}")
    named.__cause__ = error
    return named
