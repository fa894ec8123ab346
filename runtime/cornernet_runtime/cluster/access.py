"""Whether a worker's machine sees the files that the machine of the command saw.

One that does not would turn good files into rows of errors, in parts that count as done.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

import cv2

from cornernet_runtime.errors import ClusterError

_PIECE = 1 << 20  # bytes


def is_of_machine(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether the operating system refused to read a file; decoders have no ``errno`` for content that they refuse."""
    return isinstance(error, OSError) and error.errno is not None


def unseen(path: str, error: OSError) -> ClusterError:
    """Return the error that ends a run whose worker cannot read a file."""
    return ClusterError(
        f"{path}: cannot be read here ({error.strerror or error}), and was there when the run was planned; "
        "keep sources at the same path on every machine, readable, or leave this one out"
    )


def is_of_memory(error: BaseException | None) -> bool:
    """Whether OpenCV had no memory for a picture."""
    return isinstance(error, cv2.error) and getattr(error, "code", None) == cv2.Error.StsNoMem


def check_seen(path: str, *, whole: bool = False) -> None:
    """Read the beginning of a file, or all of it.

    Raises:
        ClusterError: The operating system refuses it.
    """
    try:
        with Path(path).open("rb", buffering=0) as file:
            while file.read(_PIECE) and whole:
                pass
    except OSError as error:
        raise unseen(path, error) from error
