"""Live sources that come back: each connection in a thread of its own, watched, and made anew when it ends."""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
import time
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import TYPE_CHECKING

from cornernet_runtime.errors import VideoError
from cornernet_runtime.video.cancel import cancellable
from cornernet_runtime.video.frame import VideoFrame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cornernet_runtime.video.frame import Source

LOG = logging.getLogger("cornernet_runtime.video")
FAREWELL = 1.0  # seconds that a connection is given to end
SAME_CLOCK = 1.0  # seconds that a stream's clock may be off the wall clock after a gap, to be the clock from before it
JUMP = 10.0  # seconds that it may be ahead of the wall clock from one frame to the next


class LastingError(VideoError):
    """A connection cannot be made, and no later attempt would change that."""


@dataclass(frozen=True, slots=True)
class Reconnection:
    """When a connection is cut, and when the next one is tried.

    Attributes:
        silence_s: Seconds without a frame after which a connection has stalled, and is cut.
        connect_s: The same until its first frame.
        first_wait_s: From the end of a connection to the next attempt. Each wait is shortened by up to half of it at
            random, lest many clients come back at once.
        factor: Of each wait to the one before, until a connection has lasted for longer than the longest wait.
        longest_wait_s: The wait is never longer.
        start_within_s: Seconds until the first frame of all, after which it is given up; None is never.
        give_up_after_s: Seconds since the last frame after which it is given up; None is never.

    Raises:
        VideoError: A number is not above 0, or the factor below 1.
    """

    silence_s: float = 10.0
    connect_s: float = 20.0
    first_wait_s: float = 0.5
    factor: float = 2.0
    longest_wait_s: float = 30.0
    start_within_s: float | None = None
    give_up_after_s: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise VideoError(f"{field.name}: expected a number above 0, got {value}")
        if self.factor < 1:
            raise VideoError(f"factor: expected 1 or more, got {self.factor}")


class Reconnecting:
    """A live source that is connected again whenever it ends, fails, or gives no frame for some time.

    Frames keep the times of their connection. After a gap they keep them if the source's clock went on, to within a
    second of this machine's (or to what connections may repeat), and frames up to the last one given are left out. If
    its clock began anew, times are moved: the first frame then comes as long after the last one as it did on this
    machine's clock. Either way times grow from frame to frame, and indices go on.

    ``logging.getLogger("cornernet_runtime.video")`` is told of each change of the state.

    Args:
        connect: Makes a connection: returns a source, or raises ``VideoError`` (``LastingError`` where it is of no
            use to try again). It is called, and its source is iterated and closed, by a thread of its own. The source
            may have an attribute ``repeats_s``: so many seconds of what was sent before may come again at its begin.
        name: As for ``Source``.
        plan: When to cut, to wait and to give up.

    Attributes:
        state: "connecting" at first; "live" with the first frame; "stalled" after a silence, and "lost" after an end
            or an error, that of a first attempt as well, until frames come again. Like all below it can be read from
            any thread.
        connections: That gave a frame.
        stalls: Connections that were cut because of a silence.
        reason: Why the last connection ended, or None.
    """

    live = True

    def __init__(self, connect: Callable[[], Source], name: str, plan: Reconnection | None = None) -> None:
        self.name = name
        self.problems: list[str] = []
        self.state = "connecting"
        self.connections = self.stalls = 0
        self.reason: str | None = None
        self._connect, self._plan = connect, plan or Reconnection()
        self._changed = threading.Condition()
        self._stopped = False
        self._connection: _Connection | None = None
        self._heard = 0.0  # since when the next frame is waited for

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield frames until ``stop`` or ``close`` is called.

        Raises:
            VideoError: No frame came for as long as the plan says, or a first connection can never be made.
        """
        timeline, index = _Timeline(), 0
        wait, self._heard = self._plan.first_wait_s, time.perf_counter()
        while not self._stopped:
            begin = time.perf_counter()
            for frame, arrived, repeats_s in self._frames():
                if (ticks := timeline.place(frame, arrived, repeats_s)) is not None:
                    yield VideoFrame(frame.image, index, ticks, timeline.unit, self.name)
                    index += 1
            timeline.interrupt()
            if self._heard - begin > self._plan.longest_wait_s:
                wait = self._plan.first_wait_s
            self._pause(min(wait * random.uniform(0.5, 1), self._patience()))  # noqa: S311 - no secret
            wait = min(wait * self._plan.factor, self._plan.longest_wait_s)
            self._await_end()
            if self._patience() <= 0 and not self._stopped:
                raise VideoError(f"{self.name}: given up after {self._limit():g} s without a frame: {self.reason}")

    def stop(self) -> None:
        """End the iteration soon, whatever it waits for; from any thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """End the iteration and the connection; from any thread."""
        self.stop()
        if self._connection is not None:
            self._connection.end()

    def _frames(self) -> Iterator[tuple[VideoFrame, float, float]]:
        """Yield the frames of one connection, when they came, and its ``repeats_s``; then note why it is over."""
        self._connection = connection = _Connection(self._connect, self._changed)
        begin, first, limit = time.perf_counter(), True, self._plan.connect_s
        try:
            while (item := connection.next(min(limit, self._patience()), self._is_stopped)) is not None:
                if first:
                    first, limit = False, self._plan.silence_s
                    self.connections += 1
                    self._turn("live")
                yield *item, connection.repeats_s
                self._heard = time.perf_counter()
            over, silence = connection.over, time.perf_counter() - max(begin, self._heard)  # before it is left
        finally:
            connection.end()
        if self._stopped:
            return
        if over:
            self._turn("lost", self._reason_of(connection.error))
        else:
            self.stalls += not first
            self._turn("lost" if first else "stalled", f"no frame for {silence:.1f} s")

    def _reason_of(self, error: BaseException | None) -> str:
        """Return why a connection ended, in words that follow on the name, or raise what nobody can wait to pass."""
        if error is None:
            return "the stream ended"
        if not isinstance(error, VideoError) or (isinstance(error, LastingError) and not self.connections):
            raise error
        return str(error).removeprefix(self.name).lstrip(": ")

    def _patience(self) -> float:
        """Return the seconds until it is to be given up."""
        return self._limit() - (time.perf_counter() - self._heard)

    def _limit(self) -> float:
        limit = self._plan.give_up_after_s if self.connections else self._plan.start_within_s
        return math.inf if limit is None else limit

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(self._is_stopped, max(seconds, 0))

    def _await_end(self) -> None:
        """Wait until the last connection lets go, lest ones that hang add up."""
        connection = self._connection
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or connection is None or connection.over,
                min(max(self._patience(), 0), threading.TIMEOUT_MAX),
            )

    def _is_stopped(self) -> bool:
        return self._stopped

    def _turn(self, state: str, reason: str | None = None) -> None:
        """Take a state, and tell of it unless it is the one of before."""
        self.reason = reason or self.reason
        if state == self.state:
            return
        self.state = state
        if state == "live":
            LOG.info("%s: live", self.name)
        else:
            LOG.warning("%s: %s: %s; it is connected again as soon as it answers", self.name, state, reason)


class _Connection:
    """A connection and its thread, which waits for the source, so that nobody else has to for longer than they want.

    Args:
        connect: As for ``Reconnecting``.
        changed: Of the one who takes the frames.

    Attributes:
        over: Whether it ended by itself.
        repeats_s: As of its source, once there is one.
        error: What ended it, or None; complete when it is over.
    """

    def __init__(self, connect: Callable[[], Source], changed: threading.Condition) -> None:
        self.over = False
        self.repeats_s = 0.0
        self.error: BaseException | None = None
        self._changed = changed
        self._item: tuple[VideoFrame, float] | None = None
        self._left = threading.Event()  # nobody waits for it any more
        self._thread = threading.Thread(target=self._run, args=(connect,), name="cornernet_connection", daemon=True)
        self._thread.start()

    def next(self, seconds: float, stopped: Callable[[], bool]) -> tuple[VideoFrame, float] | None:
        """Wait for the next frame, and return it and when it came; None at the end, after some time, or if stopped."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._item is not None or self.over or stopped(), min(max(seconds, 0), threading.TIMEOUT_MAX)
            )
            item, self._item = None if stopped() else self._item, None
            self._changed.notify_all()
            return item

    def end(self) -> None:
        """Leave it, and wait for its end for as long as FFmpeg may take to notice."""
        self._left.set()
        with self._changed:
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(FAREWELL)

    def _run(self, connect: Callable[[], Source]) -> None:
        error: BaseException | None = None
        try:
            with cancellable(self._left), contextlib.closing(connect()) as source:
                self.repeats_s = getattr(source, "repeats_s", 0.0)
                for frame in source:
                    if not self._hand_over(frame):
                        break
        except BaseException as problem:  # noqa: BLE001 - whoever takes the frames raises it
            error = problem
        with self._changed:
            self.over, self.error = True, error
            self._changed.notify_all()

    def _hand_over(self, frame: VideoFrame) -> bool:
        """Wait until a frame can be taken; return whether more are wanted."""
        item = frame, time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._item is None or self._left.is_set())
            self._item = item
            self._changed.notify_all()
            return not self._left.is_set()


class _Timeline:
    """Times that grow from frame to frame, over gaps, and whatever the source's clock does.

    Attributes:
        unit: Seconds of a tick: that of the first frame.
    """

    def __init__(self) -> None:
        self.unit = Fraction(1)
        self._last: int | None = None  # ticks, as given
        self._at = 0.0  # when that came
        self._moved = 0  # ticks that are added
        self._after_gap = False

    def interrupt(self) -> None:
        """Say that what comes next is from another connection."""
        self._after_gap = True

    def place(self, frame: VideoFrame, arrived: float, repeats_s: float = 0.0) -> int | None:
        """Return the time of a frame in ticks, or None if it was given before or comes too late.

        Args:
            frame: With its time on the clock of its connection.
            arrived: When it came (``time.perf_counter``).
            repeats_s: Seconds from before that its connection may have begun with.
        """
        if self._last is None:
            self.unit, self._last, self._at = frame.time_base, frame.ticks, arrived
            return self._last
        ticks = frame.ticks if frame.time_base == self.unit else round(frame.ticks * frame.time_base / self.unit)
        passed = arrived - self._at
        step = ticks + self._moved - self._last
        seconds = float(step * self.unit)
        off = seconds - passed
        near = max(SAME_CLOCK, repeats_s) if self._after_gap else SAME_CLOCK
        stuck = step <= 0 and passed > near
        if stuck or off > max(JUMP, near) or seconds < -near or (self._after_gap and abs(off) > near):
            expected = max(round(passed / self.unit), 1)
            self._moved += expected - step
            step = expected
        if step <= 0:
            return None
        self._after_gap = False
        self._last, self._at = self._last + step, arrived
        return self._last
