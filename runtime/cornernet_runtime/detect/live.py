"""Detection in several cameras and streams at the same time: the work behind ``cornernet-detect`` there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from cornernet_runtime.detect.recording import ending
from cornernet_runtime.video.multi import MultiStream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cornernet_runtime.detect.recording import Recording
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.errors import CornerNetError
    from cornernet_runtime.video.frame import Source
    from cornernet_runtime.video.statistics import StreamStatistics
    from cornernet_runtime.video.stream import FrameResult


@dataclass(frozen=True, slots=True, eq=False)
class OneOfMany:
    """A source of a stream of many, as somebody who watches sees it.

    Attributes:
        source: As it was given.
        name: That its results have.
        stream: Of all sources.
    """

    source: Source
    name: str
    stream: MultiStream

    @property
    def statistics(self) -> StreamStatistics:
        """How the source fares, at any time and from any thread."""
        return self.stream.statistics[self.name]


def detect_live(
    detector: Detector,
    recordings: Mapping[Source, Recording],
    watch: Callable[[OneOfMany, FrameResult], None],
    on_begin: Callable[..., None],
    on_failed: Callable[[Recording, CornerNetError], None],
    on_end: Callable[[OneOfMany, Recording], None],
    *,
    whole: bool,
) -> None:
    """Detect until all sources have ended; one that fails is told of and left.

    Args:
        detector: Finds the objects.
        recordings: Of each source; both are ended here.
        watch: Shown each result, and whose it is.
        on_begin: Told of all sources, before the first result.
        on_failed: Told of the recording of each source that fails, and why, as soon as it does.
        on_end: Told of each source and its recording at the end, whatever that is.
        whole: As for ``ending``.

    Raises:
        CornerNetError: A result cannot be written, or the network cannot be run.
    """
    views: dict[str, OneOfMany] = {}

    def fail(name: str, error: CornerNetError) -> None:
        recording = recordings[views[name].source]
        recording.abort()
        on_failed(recording, error)

    with MultiStream(detector, on_source_error=fail) as stream:
        for source in recordings:
            name = stream.add(source)
            views[name] = OneOfMany(source, name, stream)
        try:
            on_begin(*views.values())
            with ending(list(recordings.values()), whole=whole):
                for found in stream:
                    view = views[found.frame.source]
                    recordings[view.source].take(found, partial(watch, view))
        finally:
            stream.close()
            for view in views.values():
                on_end(view, recordings[view.source])
    for recording in recordings.values():
        recording.warn()
