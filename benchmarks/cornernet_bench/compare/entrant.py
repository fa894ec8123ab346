"""A contestant that runs, and what was measured of it so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cornernet_bench.compare.report import Accuracy, Result
from cornernet_bench.measuring.intervals import Difference
from cornernet_bench.measuring.measurement import END_TO_END, measurement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cornernet_bench.compare.contestant import Contestant
    from cornernet_bench.compare.report import Against
    from cornernet_bench.measuring.measurement import Clock, Measurement
    from cornernet_bench.models.opening import Opened
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.detector import Detector


@dataclass(slots=True, eq=False)
class Entrant:
    """A contestant that runs.

    Attributes:
        number: Its place on the command line, from 1.
        contestant: As typed.
        detector: All is measured of it but what ``opened`` holds.
        opened: The model as it opened in a process of its own.
        disk_bytes: Of the files that its backend reads.
        category_ids: Of its classes in the data set.
        clock: Of ``samples``, unless a GPU tells them.
        samples: Milliseconds of each timed call, by stage.
        found: Detections on each picture seen.
        scaled_down: Pictures that exceed the model's largest size.
        metrics: COCO's AP by name; empty before it is judged.
        resampled: AP [B] of sets of the same pictures drawn anew, the same draws for all contestants.
        against: The first of them.
    """

    number: int
    contestant: Contestant
    detector: Detector
    opened: Opened
    disk_bytes: int
    category_ids: Sequence[Any]
    clock: Clock
    samples: list[dict[str, float]] = field(default_factory=list)
    found: list[Detections] = field(default_factory=list)
    scaled_down: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    resampled: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    against: Against | None = None

    @property
    def ap(self) -> float:
        """Average precision, points of 100; NaN where it is not known."""
        return self.metrics.get("ap", math.nan)

    @property
    def times(self) -> list[float]:
        """Milliseconds of each timed call, from a frame in memory to boxes."""
        return [sample[END_TO_END] for sample in self.samples]

    @property
    def p50_ms(self) -> float:
        """Median of ``times``; NaN where there are none."""
        return float(np.median(self.times)) if self.samples else math.nan

    @property
    def latency(self) -> Measurement | None:
        """What the timed calls come to."""
        return measurement(self.samples, 1, self.clock) if self.samples else None

    def result(self, *, best: bool) -> Result:
        """Return it for a report; ``best`` as there."""
        accuracy = None
        if self.metrics:
            whole = Difference.of(self.ap, self.resampled)
            accuracy = Accuracy(self.metrics, whole.low, whole.high)
        return Result(
            self.number, self.contestant, self.opened, self.disk_bytes, accuracy, self.latency, self.against, best
        )
