"""What a comparison is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_bench.compare.contestant import Contestant


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """What to compare, and how.

    Attributes:
        contestants: The first is what the others are held against.
        annotations: COCO instances file.
        images: Folder of its pictures.
        iterations: Timed calls of each.
        warm_up: Calls of each before that.
        threads: Of the CPU's libraries; 0 leaves it to them.
        cpu_time: Whether the process's CPU time is measured instead of the time that passes; needs one thread.
    """

    contestants: tuple[Contestant, ...]
    annotations: Path
    images: Path
    iterations: int = 50
    warm_up: int = 5
    threads: int = 0
    cpu_time: bool = False
