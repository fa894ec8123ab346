"""What a measurement of latency is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_bench.models.subject import Subject
    from cornernet_runtime.bundle.spec import Size


@dataclass(frozen=True, slots=True)
class LatencyRequest:
    """What to measure, and how.

    Attributes:
        subject: The model, and how it runs.
        batches: Frames a call, one measurement each.
        iterations: Timed calls of each.
        warm_up: Calls of each before that.
        cpu_time: Whether the process's CPU time is measured instead of the time that passes; needs one thread.
        workers: Detectors that run side by side, in a measurement after the others; 1 is none.
        images: Folder of pictures to measure on; None draws some.
        frame_size: Height and width of drawn ones.
        baseline: Whether the published pipeline takes turns with the model.
        baseline_checkpoint: Its weights; None looks beside the model.
    """

    subject: Subject
    batches: tuple[int, ...] = (1,)
    iterations: int = 50
    warm_up: int = 5
    cpu_time: bool = False
    workers: int = 1
    images: Path | None = None
    frame_size: Size = (480, 640)
    baseline: bool = False
    baseline_checkpoint: Path | None = None
