"""Ending a wait of FFmpeg from another thread.

FFmpeg asks about ten times a second whether to go on waiting for the network. PyAV answers for it: it compares the
clock with a time-out that was fixed before the call, and offers no other way to say no. So in threads that want it,
the clock that PyAV looks at leaps once the wait is to end; every other thread is told the time. Should a PyAV without
that clock come, such a wait ends by its time-out.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAP = 1e6  # seconds; beyond any time-out

_thread = threading.local()


@contextlib.contextmanager
def cancellable(left: threading.Event) -> Iterator[None]:
    """Let waits of FFmpeg in this thread end with an error as soon as an event is set, if they have a time-out.

    Args:
        left: Set by whoever does not wait for this thread any more.
    """
    with contextlib.suppress(ImportError):
        from av.container import core  # noqa: PLC0415 - an extra

        core.time = _CLOCK  # type: ignore[attr-defined] # what PyAV imported there
    _thread.left, _thread.leaps = left, itertools.count(1)
    try:
        yield
    finally:
        del _thread.left, _thread.leaps


def _monotonic() -> float:
    # Each answer leaps, for the first may be taken for the begin of the wait.
    left = getattr(_thread, "left", None)
    return time.monotonic() + (LEAP * next(_thread.leaps) if left is not None and left.is_set() else 0)


_CLOCK = SimpleNamespace(**{**vars(time), "monotonic": _monotonic})
