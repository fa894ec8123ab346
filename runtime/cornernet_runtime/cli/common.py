"""What all command lines share: how they end, and where their words go."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from cornernet_runtime.errors import CornerNetError

if TYPE_CHECKING:
    from collections.abc import Callable


def run_command(function: Callable[[], int]) -> int:
    """Run a command's one function and return the exit status.

    Errors of ours become one line on standard error and status 1; an interrupt ends with 130, a closed pipe with 141.
    Anything else is a defect, and its traceback is wanted.
    """
    try:
        return function()
    except CornerNetError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - plain on purpose: no markup, no wrapping
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        # Whoever read our output has stopped; keep the interpreter from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def console_for_people() -> Console:
    """Return the console for tables and progress: standard output if that is a terminal, else standard error."""
    return Console(stderr=not sys.stdout.isatty(), highlight=False)
