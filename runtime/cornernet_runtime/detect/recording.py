"""What the command writes and counts of one source, and how that ends."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from cornernet_runtime.errors import CornerNetError, CornerNetWarning
from cornernet_runtime.interrupt import Interrupt
from cornernet_runtime.video.sinks import part_of
from cornernet_runtime.video.writer import VideoWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cornernet_runtime.video.sinks import Sink
    from cornernet_runtime.video.stream import FrameResult


class Recording:
    """The results of one source.

    Args:
        score: Least score of what is reported and drawn.
        shared: Where the results of all sources go; they are ended elsewhere.
        target: The annotated video, or None.
        sound: The file whose sound goes with it, or None.
        from_zero: Whether the annotated video begins at zero.

    Attributes:
        counts: Objects by class name, over all frames.
    """

    def __init__(
        self, score: float, shared: Sequence[Sink], target: Path | None, *, sound: Path | None, from_zero: bool
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._score, self._target = score, target
        self._writers = [] if target is None else [VideoWriter(target, sound=sound, from_zero=from_zero)]
        self._sinks: list[Sink] = [*shared, *self._writers]
        self._begun = self._closed = self._aborted = False

    def take(self, found: FrameResult, watch: Callable[[FrameResult], None]) -> None:
        """Write a result, and show it.

        Raises:
            KeyboardInterrupt: The user ended it, before or after the whole frame was written.
            CornerNetError: It cannot be written.
        """
        result = replace(found, detections=found.detections.above(self._score))
        with Interrupt() as interrupt:  # a frame goes into all sinks, and whole, or into none
            self.counts.update(name for _, _, name in result.detections)
            self._begun = True
            for sink in self._sinks:
                sink.write(result)
        watch(result)
        if interrupt.asked:
            raise KeyboardInterrupt

    def close(self, *, whole: bool = True) -> None:
        """End well, as ``Sink`` does."""
        for writer in self._writers:
            writer.close(whole=whole)
        self._closed = True

    def abort(self) -> None:
        """End after an error, as ``Sink`` does."""
        self._aborted = True
        for writer in self._writers:
            writer.abort()

    @property
    def written(self) -> Path | None:
        """The annotated video, once it is there; one of an earlier run is none."""
        return self._target if self._begun and self._closed and not self._aborted else None

    @property
    def kept(self) -> str:
        """Words for what is left of a video after an error."""
        if self._target is None or not self._begun or not part_of(self._target).exists():
            return ""
        return f"; the video of what was done until then is {part_of(self._target)}"

    def warn(self) -> None:
        """Warn of what the video lacks."""
        for writer in self._writers:
            for problem in writer.problems:
                warnings.warn(problem, CornerNetWarning, stacklevel=3)


@contextlib.contextmanager
def ending(sinks: Sequence[Sink | Recording], *, whole: bool = True) -> Iterator[None]:
    """End sinks as the block ends: well, before the source did, or after an error."""
    try:
        yield
    except KeyboardInterrupt:
        _close(sinks, whole=False)
        raise
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    _close(sinks, whole=whole)


def _close(sinks: Sequence[Sink | Recording], *, whole: bool) -> None:
    """End all sinks well, an interrupt meanwhile comes after that; raise the error of the first that fails."""
    failure: CornerNetError | None = None
    with Interrupt() as interrupt:
        for sink in sinks:
            try:
                sink.close(whole=whole)
            except CornerNetError as error:
                failure = failure or error
    if failure is not None:
        raise failure
    if interrupt.asked:
        raise KeyboardInterrupt
