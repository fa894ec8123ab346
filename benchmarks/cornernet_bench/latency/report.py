"""What a measurement of latency comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cornernet_bench.measuring.measurement import END_TO_END, REST, Measurement, comparable

if TYPE_CHECKING:
    from cornernet_bench.measuring.machine import Machine
    from cornernet_bench.measuring.timing import Summary
    from cornernet_bench.models.opening import Opened
    from cornernet_runtime.bundle.spec import Size


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What one number of frames a call gave.

    Attributes:
        batch: Frames a call.
        network_batch: Largest number of images that a run of the network had.
        model: The model.
        baseline: The published pipeline, in turns with it.
        ratios: As ``ratios_of`` returns them; empty without a baseline.
        calls: Timed calls of the model that were made: fewer than asked for after an interrupt.
    """

    batch: int
    network_batch: int
    model: Measurement
    baseline: Measurement | None
    ratios: dict[str, float]
    calls: int


@dataclass(frozen=True, slots=True)
class Workers:
    """What detectors side by side gave.

    Attributes:
        count: How many.
        batch: Frames a call.
        clock: The host's: CPU time of the process would add up all of them.
        end_to_end: Of every call of every worker, from frames to boxes, while the others ran.
        throughput_fps: Frames a second of all together, from the first call's beginning to the last one's end.
    """

    count: int
    batch: int
    clock: Literal["host"]
    end_to_end: Summary
    throughput_fps: float


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """All of it.

    Attributes:
        partial: Whether it was interrupted: fewer calls, or batches, than asked for.
        model: What was measured.
        machine: On what.
        frames: Where they come from: ``drawn``, or the folder.
        frame_sizes: Heights and widths of them.
        iterations: Timed calls of each that were asked for.
        warm_up: Calls before that.
        excluded: What no figure contains.
        baseline_weights: Where the published pipeline's come from; None without it.
        results: One a batch.
        workers: Detectors side by side; None without them.
        warnings: What makes these figures doubtful, for people.
    """

    partial: bool
    model: Opened
    machine: Machine
    frames: str
    frame_sizes: tuple[Size, ...]
    iterations: int
    warm_up: int
    excluded: tuple[str, ...]
    baseline_weights: str | None
    results: tuple[BatchResult, ...]
    workers: Workers | None
    warnings: tuple[str, ...]


def ratios_of(model: Measurement, baseline: Measurement) -> dict[str, float]:
    """Return how many times as long as the model the baseline takes, by medians: above 1 the model is faster.

    Of each stage that both have, and end to end; but of none whose times spread by more than ``MOST_SPREAD`` in one of
    the two, and of nothing at all if those end to end do.
    """
    pairs = {
        name: (baseline.stages[name], own)
        for name, own in model.stages.items()
        if name in baseline.stages and name != REST and own.p50_ms > 0
    }
    pairs[END_TO_END] = (baseline.end_to_end, model.end_to_end)
    if not comparable(*pairs[END_TO_END]):
        return {}
    return {name: base.p50_ms / own.p50_ms for name, (base, own) in pairs.items() if comparable(base, own)}
