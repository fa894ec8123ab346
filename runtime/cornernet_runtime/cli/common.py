"""What all command lines share: how they end, and where their words go."""

from __future__ import annotations

import atexit
import errno
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from cornernet_runtime.errors import CornerNetError, CornerNetWarning
from cornernet_runtime.interrupt import InterruptWatch
from cornernet_runtime.wording import plain

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130  # status after Ctrl-C
# Of a write into what is no file of ours: the error of one of those becomes an OutputError where it is written.
_TAKES_NOTHING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})


def run_command(function: Callable[[], int]) -> int:
    """Run a command's one function and return the exit status.

    Errors of ours, and a standard output that takes nothing, become one line on standard error and status 1; an
    interrupt ends with 130, a closed pipe with 141. Anything else is a defect, and its traceback is wanted.
    """
    if sys.stdout is None:  # Python found it closed
        return _unwritable("it is closed")
    try:
        status = _status_of(function)
        if status == INTERRUPTED:  # who presses Ctrl-C again while Python ends would have a library abort it
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has stopped
        _silence_standard_output()
        return 141
    except OSError as error:
        if error.errno not in _TAKES_NOTHING or error.filename is not None:
            raise
        _silence_standard_output()
        return _unwritable(str(error.strerror))
    return status


class ReportConsole(Console):
    """Lets ``run_command`` end a command where the reader of a pipe has stopped; rich ends it with status 1."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError."""
        raise BrokenPipeError


def _status_of(function: Callable[[], int]) -> int:
    """Return the status of what runs, errors and interrupts told; those of standard output are raised."""
    watch = InterruptWatch(run_command.__code__)
    try:
        with warnings.catch_warnings(), watch:
            warnings.showwarning = _show_warning
            return function()
    except CornerNetError as error:
        if watch.caused(error):
            return _interrupted()
        print(f"error: {plain(error)}", file=sys.stderr)  # noqa: T201 - plain on purpose: no markup, no wrapping
        return 1
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        if watch.caused(error):
            return _interrupted()
        raise


def _silence_standard_output() -> None:
    """Keep the interpreter from complaining when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unwritable(reason: str) -> int:
    print(f"error: cannot write standard output: {reason}; send it elsewhere", file=sys.stderr)  # noqa: T201 - as above
    return 1


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)  # noqa: T201 - plain on purpose, as above
    return INTERRUPTED


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of ours on one line, for the line of code that it comes from is no user's concern."""
    if issubclass(category, CornerNetWarning):
        print(f"warning: {plain(message)}", file=file or sys.stderr)
        return
    print(warnings.formatwarning(message, category, filename, lineno, line), end="", file=file or sys.stderr)


def console_for_people() -> Console:
    """Return the console for tables and progress: standard output if that is a terminal, else standard error."""
    return Console(stderr=not sys.stdout.isatty(), highlight=False)
