"""What a measurement of latency is asked for, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cornernet_bench.latency_subjects import END_TO_END, GPU_COMPUTE, REST
from cornernet_bench.timing import Summary, summarise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cornernet_bench.latency_machine import Machine
    from cornernet_bench.latency_workers import Workers
    from cornernet_runtime.spec import Size

Clock = Literal["host", "process", "gpu_events"]
MOST_SPREAD = 50.0  # percent; medians of times that spread further say nothing about which of two is faster


@dataclass(frozen=True, slots=True)
class LatencyRequest:
    """What to measure, and how.

    Attributes:
        model: A bundle, an ``.onnx`` file or a checkpoint.
        backend: What runs the network; None takes the best here.
        size: Input that every frame is fitted into; None leaves it to the model.
        batches: Frames a call, one measurement each.
        iterations: Timed calls of each.
        warm_up: Calls of each before that.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        stacks: Hourglasses of a checkpoint to keep; None keeps all.
        threads: Of the CPU's libraries; 0 leaves it to them.
        cpu_time: Whether the process's CPU time is measured instead of the time that passes; needs one thread.
        workers: Detectors that run side by side, in a measurement after the others; 1 is none.
        images: Folder of pictures to measure on; None draws some.
        frame_size: Height and width of drawn ones.
        baseline: Whether the published pipeline takes turns with the model.
        baseline_checkpoint: Its weights; None looks beside the model.
    """

    model: Path
    backend: str | None = None
    size: Size | None = None
    batches: tuple[int, ...] = (1,)
    iterations: int = 50
    warm_up: int = 5
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    stacks: int | None = None
    threads: int = 0
    cpu_time: bool = False
    workers: int = 1
    images: Path | None = None
    frame_size: Size = (480, 640)
    baseline: bool = False
    baseline_checkpoint: Path | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Calls of one contestant with one number of frames.

    Attributes:
        clock: ``host``: its stages are parts of the calls that ``end_to_end`` is of. ``process``: the same, in CPU time
            of the process. ``gpu_events``: they are times of the GPU, in runs of their own.
        end_to_end: From frames in memory to boxes, by the host's clock, or in CPU time.
        gpu_compute: All that the GPU computes, copies left out; None by the host's clock.
        stages: By name, in the order of the work; REST is what they leave of the whole.
        throughput_fps: Frames a second, one call after the other.
    """

    clock: Clock
    end_to_end: Summary
    gpu_compute: Summary | None
    stages: dict[str, Summary]
    throughput_fps: float


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
class Opened:
    """The model as it was opened.

    Attributes:
        path: As given.
        name: Architecture.
        backend: What ran the network.
        precision: Of the weights and activations inside.
        geometry: How frames become input.
        input_sizes: That the frames came to.
        flip: Whether mirror images were looked at too.
        scales: At which frames were looked at.
        load_s: From the path to a detector, libraries included, seconds.
        first_inference_ms: The first call, with one frame.
        peak_rss_mib: Most memory of the process once every batch had run, before any baseline was opened.
        device_memory_mib: What was in use on the GPU then, less what was in use before; None without a GPU.
    """

    path: str
    name: str
    backend: str
    precision: str
    geometry: str
    input_sizes: tuple[Size, ...]
    flip: bool
    scales: tuple[float, ...]
    load_s: float
    first_inference_ms: float
    peak_rss_mib: float
    device_memory_mib: int | None


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


def measurement(samples: Sequence[Mapping[str, float]], batch: int, clock: Clock = "host") -> Measurement:
    """Return what calls of one contestant come to.

    Args:
        samples: Of each call, milliseconds by stage, and those of END_TO_END and GPU_COMPUTE; at least one.
        batch: Frames a call.
        clock: Of samples without GPU_COMPUTE.
    """
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    end_to_end = summarise(columns[END_TO_END])
    gpu = columns.get(GPU_COMPUTE)
    return Measurement(
        clock=clock if gpu is None else "gpu_events",
        end_to_end=end_to_end,
        gpu_compute=None if gpu is None else summarise(gpu),
        stages={name: summarise(times) for name, times in columns.items() if name not in (END_TO_END, GPU_COMPUTE)},
        throughput_fps=1000 * batch / end_to_end.mean_ms,
    )


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


def comparable(*both: Summary) -> bool:
    """Say whether medians of these times tell which is faster: none spreads by more than ``MOST_SPREAD``."""
    return max(one.spread_percent for one in both) <= MOST_SPREAD
