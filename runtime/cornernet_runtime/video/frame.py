"""One frame of a video, and what gives frames."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator

MICROSECOND = Fraction(1, 1_000_000)


@dataclass(frozen=True, slots=True, eq=False)
class VideoFrame:
    """A picture at a time.

    Attributes:
        image: uint8 [H, W, 3], BGR, as it is shown; or an array on a GPU, as ``Detector`` takes them.
        index: Of the frame among those that its source read, from 0; frames that are dropped leave a gap.
        ticks: Time of the frame, in units of ``time_base``; it never falls from frame to frame.
        time_base: Seconds, exactly.
        source: Name of the source.
    """

    image: Any
    index: int
    ticks: int
    time_base: Fraction
    source: str

    @property
    def seconds(self) -> float:
        """Time of the frame in seconds, on the clock of the source."""
        return float(self.ticks * self.time_base)


@runtime_checkable
class Source(Protocol):
    """What gives frames, once.

    Iterating and closing are done by one thread. What is held (files, devices) is let go of by ``close``, which may be
    called at any time and twice.

    A source that can wait for long may have a method ``stop``, which another thread calls to end the iteration soon,
    and an attribute ``state``, for others to read: "connecting", "live", "stalled" or "lost".

    Attributes:
        name: For people, and in every frame.
        live: Whether frames come when they come, so that one that is not taken is lost, rather than waiting in a file.
        problems: What was wrong with the input without ending it; complete when the frames are over.
    """

    name: str
    live: bool
    problems: list[str]

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames in the order of their times.

        Raises:
            CornerNetError: The input is broken, or there is none any more.
        """

    def close(self) -> None:
        """Let go of everything."""


def stop(source: Source) -> None:
    """End the iteration of a source, from any thread, if it has a ``stop``."""
    getattr(source, "stop", lambda: None)()


def state_of(source: Source) -> str | None:
    """Return a source's ``state``, or None if it has none."""
    state: str | None = getattr(source, "state", None)
    return state
