"""What is on its way from a source to the consumer, source by source; ``line`` moves it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from cornernet_runtime.detections import Detections
    from cornernet_runtime.video.frame import Source, VideoFrame
    from cornernet_runtime.video.statistics import Meter


@dataclass(slots=True, eq=False)
class Lane:
    """The frames of one source; guarded by the lock of its line, which alone looks inside.

    Attributes:
        source: Whose frames.
        meter: Times of its source and its results.
        newest: Whether one frame waits, which the next pushes out, rather than the next waiting itself.
        space: Told when a frame may find a place.
        waiting: For a worker.
        taken: By workers, until all before them are done.
        served: The turn at which it was last served; the line counts turns.
        reading: Whether more may be read.
        over: Whether nothing is taken in or given any more.
        error: What ended it, if not that its source was at its end.
    """

    source: Source
    meter: Meter
    newest: bool
    space: threading.Condition
    waiting: deque[Entry] = field(default_factory=deque)
    taken: deque[Entry] = field(default_factory=deque)
    read: int = 0
    dropped: int = 0
    given: int = 0
    served: int = 0
    reading: bool = True
    over: bool = False
    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class Entry:
    """A frame on its way.

    Attributes:
        lane: Whose.
        frame: As it was read.
        arrived: When it was read (``time.perf_counter``).
        since: When it, or a frame that it pushed out, began to wait.
        outcome: What came of it, as soon as that is known.
    """

    lane: Lane
    frame: VideoFrame
    arrived: float
    since: float
    outcome: Done | BaseException | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """Frames that a worker took, and when."""

    entries: Sequence[Entry]
    started: float


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a frame, when a worker took it, and when that was done."""

    lane: Lane
    frame: VideoFrame
    detections: Detections
    arrived: float
    started: float
    finished: float


@dataclass(frozen=True, slots=True)
class Ended:
    """No more results come from a lane, because of an error or because its source is at its end."""

    lane: Lane
    error: BaseException | None
