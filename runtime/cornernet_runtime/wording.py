"""Text for people: counts, names that print safely, and notes on what a model does otherwise."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.markup import escape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def count_of(count: int, noun: str) -> str:
    """Return ``3 pictures``, but ``1 picture``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(path: Path | str) -> str:
    """Return the text of a path as it can be printed, whatever bytes it has: no markup, no lone surrogates."""
    return escape(plain(path).replace("\n", "?").encode(errors="replace").decode())


def plain(text: object) -> str:
    """Return a text without the control characters that a name in it may hold, for terminals obey them."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "?", str(text))


def scales_note(asked: Sequence[float], used: Sequence[float]) -> str | None:
    """Return what to tell a user whose model cannot take the scales asked for as they are."""
    if tuple(asked) == tuple(used):
        return None
    before, after = (", ".join(f"{scale:.3g}" for scale in scales) for scales in (asked, used))
    return f"the input of this model is fixed: scales {before} become {after} of what fills it"


def too_large_note(count: int, largest_size: tuple[int, int]) -> str | None:
    """Return what to tell a user of pictures that a model could not take at their own resolution."""
    if not count:
        return None
    height, width = largest_size
    exceed = "1 picture exceeds" if count == 1 else f"{count} pictures exceed"
    return (
        f"{exceed} {height}x{width}, the largest size of this model, and had to be scaled down; "
        "export it with a larger --size"
    )
