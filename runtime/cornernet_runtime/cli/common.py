"""What all command lines share: how they end, and where their words go."""

from __future__ import annotations

import argparse
import atexit
import errno
import math
import os
import re
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

LARGEST_SCALE = 10
RAY_OPTIONS = ("workers", "worker_cpus", "worker_gpus")  # that need --ray
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


def add_view_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--flip`` and ``--scales``, which say how often each picture is looked at."""
    parser.add_argument(
        "--flip", action="store_true", help="look at the mirror image too: more accurate, twice the work"
    )
    parser.add_argument(
        "--scales",
        type=parse_scales,
        default=(1.0,),
        metavar="S,S,...",
        help="look at these scales and merge the boxes, such as 0.5,0.75,1,1.25,1.5 (default 1)",
    )


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width of ``HxW``, for an option."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected HxW such as 511x511, got {text!r}")
    return int(match[1]), int(match[2])


def parse_score(text: str) -> float:
    """Return a score, 0 to 1, for an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")
    return value


def parse_scales(text: str) -> tuple[float, ...]:
    """Return the scales of ``S,S,...``, for an option."""
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= LARGEST_SCALE for scale in scales) or len(set(scales)) < len(scales):
        raise argparse.ArgumentTypeError(
            f"expected distinct numbers above 0 and up to {LARGEST_SCALE} such as 0.5,1,1.5, got {text!r}"
        )
    return scales


def whole_number(text: str) -> int:
    """Return a number of things, 1 or more, for an option; no library is asked to count to more than 2**40."""
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= 2**40:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def share(text: str) -> float:
    """Return a number of GPUs, whole or a part of one, for an option."""
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not (0 <= value < math.inf and (value < 1 or value.is_integer())):
        raise argparse.ArgumentTypeError(f"expected a whole number or a part of 1, got {text!r}")
    return value


def add_ray_options(group: argparse._ArgumentGroup) -> None:
    """Add ``--ray`` and what its workers are given; ``RAY_OPTIONS`` go with it only."""
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread the work by Ray: HOST:PORT of a cluster, auto, or local for this machine",
    )
    group.add_argument("--workers", type=whole_number, metavar="N", help="detectors at work (default: as many as fit)")
    group.add_argument("--worker-cpus", type=whole_number, metavar="C", help="cores for each (default 1)")
    group.add_argument("--worker-gpus", type=share, metavar="G", help="GPUs for each, such as 1 or 0.5 (default 0)")


def console_for_people() -> Console:
    """Return the console for tables and progress: standard output if that is a terminal, else standard error."""
    return Console(stderr=not sys.stdout.isatty(), highlight=False)
