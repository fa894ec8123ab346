"""Ctrl-C between two pieces of work instead of within one, and after an import instead of within it."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
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


class InterruptWatch:
    """While it is entered, an interrupt within an import waits for its end, and becomes KeyboardInterrupt then.

    Libraries in C++ abort the process when an exception meets their initialisation, and others take it for their own
    failure. Elsewhere than in the main thread, and where somebody else handles interrupts, this does nothing.

    Args:
        caller: Imports that this code was called from do not count: they may last as long as the program.
    """

    def __init__(self, caller: CodeType) -> None:
        self._caller = caller
        self._stack: set[tuple[CodeType, int]] = set()  # where the last interrupt came: each function, and its line

    def __enter__(self) -> Self:
        in_main = threading.current_thread() is threading.main_thread()
        self._active = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._active:
            signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def caused(self, error: BaseException | None) -> bool:
        """Say whether an error is a KeyboardInterrupt that a library took for a failure of its own.

        So it is where one stands in its chain of causes, or where it comes from the very line that was interrupted:
        code in C raises its own error where the Python that it calls fails.
        """
        while error is not None:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            here = trace is not None and (trace.tb_frame.f_code, trace.tb_lineno) in self._stack
            if here or isinstance(error, KeyboardInterrupt):
                return True
            error = error.__cause__ or error.__context__
        return False

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        self._stack.clear()
        while frame is not None and frame.f_code is not self._caller:
            if frame.f_code.co_filename == _IMPORT:
                again = threading.Timer(_AGAIN_S, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
                again.daemon = True
                again.start()
                return
            self._stack.add((frame.f_code, frame.f_lineno))
            frame = frame.f_back
        raise KeyboardInterrupt
