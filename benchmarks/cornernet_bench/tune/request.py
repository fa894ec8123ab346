"""What a tuning is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_runtime.bundle.spec import Size


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """What to tune, and how.

    Attributes:
        checkpoint: The trained network.
        annotations: COCO instances file that AP is measured with.
        images: Folder of its pictures.
        output: Folder to make: the bundle, and ``tune.json``, which is kept from the first measurement on.
        calibration: Files or folders of pictures to calibrate on; none takes ``images``.
        max_ap_drop: AP that may be lost against float32, points of 100.
        size: Height and width of the input, pixels; None takes the checkpoint's.
        rounds: How often each mix is timed in turn with float32, at least 10.
        threads: Of the network; 0 takes one for each core that this process may use.
        cpu_time: Whether the process's CPU time is measured instead of the time that passes; needs one thread.
        force: Whether an existing bundle is replaced, and the best mix written if none is within the budget.
    """

    checkpoint: Path
    annotations: Path
    images: Path
    output: Path
    calibration: tuple[str, ...] = ()
    max_ap_drop: float = 0.5
    size: Size | None = None
    rounds: int = 30
    threads: int = 0
    cpu_time: bool = False
    force: bool = False
