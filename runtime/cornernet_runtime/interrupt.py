"""Ctrl-C between two pieces of work instead of within one, and after an import instead of within it."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType, TracebackType

_IMPORT = "<frozen importlib._bootstrap>"  # file of the code that imports
_AGAIN_S = 0.05


class Interrupt:
    """While it is entered, the first interrupt only sets ``asked``; the second raises KeyboardInterrupt as usual.

    Signals reach the main thread alone, so elsewhere this does nothing.

    Attributes:
        asked: Whether somebody wants to stop.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._in_main:
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def no_interrupt_within_imports(caller: CodeType) -> Iterator[None]:
    """Let an interrupt that comes within an import wait for its end, and raise KeyboardInterrupt then.

    Libraries in C++ abort the process when an exception meets their initialisation, and others take it for their own
    failure. Elsewhere than in the main thread, and where somebody else handles interrupts, this does nothing.

    Args:
        caller: Imports that this code was called from do not count: they may last as long as the program.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def on_signal(_number: int, frame: FrameType | None) -> None:
        while frame is not None and frame.f_code is not caller:
            if frame.f_code.co_filename == _IMPORT:
                again = threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
                again.daemon = True
                again.start()
                return
            frame = frame.f_back
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
