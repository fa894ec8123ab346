"""Latency of a model from frame to boxes, stage by stage, beside the published pipeline where asked for.

End to end is measured by the host's clock around one call of the detector. On a CPU the stages are parts of that same
call and add up to it. On a GPU pipeline they are times of the GPU, from runs of their own: the two are never mixed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cornernet_bench.latency_doubts import doubts
from cornernet_bench.latency_machine import (
    GpuState,
    Machine,
    describe_machine,
    gpu_state,
    load_average,
    peak_rss_mib,
    thread_limit,
)
from cornernet_bench.latency_subjects import (
    END_TO_END,
    GPU_COMPUTE,
    STAGES,
    baseline_run,
    host_run,
    load_frames,
    open_baseline,
    open_detector,
    pipeline_of,
    pipeline_run,
    runs_on_gpu,
)
from cornernet_bench.latency_workers import Workers, run_workers
from cornernet_bench.models import CHECKPOINTS
from cornernet_bench.timing import StageClock, Summary, summarise, take_turns
from cornernet_runtime.geometry import place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from cornernet_bench.latency_subjects import Frame, Run
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.spec import Size

    OnProgress = Callable[[str, int, int], None]  # what is done, how much of it, of how much

Clock = Literal["host", "gpu_events"]
MODEL, BASELINE = "model", "baseline"
HALVED = ("torch-fp16", "torch-cuda")  # run a checkpoint in float16


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
        threads: Of the CPU's libraries; 0 leaves it to them.
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
    threads: int = 0
    workers: int = 1
    images: Path | None = None
    frame_size: Size = (480, 640)
    baseline: bool = False
    baseline_checkpoint: Path | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Calls of one contestant with one number of frames.

    Attributes:
        clock: ``host``: its stages are parts of the calls that ``end_to_end`` is of. ``gpu_events``: they are times of
            the GPU, in runs of their own.
        end_to_end: From frames in memory to boxes, by the host's clock.
        gpu_compute: All that the GPU computes, copies left out; None by the host's clock.
        stages: By name, in order; ``other`` is what they leave of the whole.
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
        ratios: Median of the baseline through median of the model, by stage and end to end: above 1 is faster.
    """

    batch: int
    network_batch: int
    model: Measurement
    baseline: Measurement | None
    ratios: dict[str, float]


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


def measure(request: LatencyRequest, on_progress: OnProgress = lambda *_: None) -> LatencyReport:
    """Open a model and measure it; an interrupt ends the measurement and keeps what there is.

    Raises:
        CornerNetError: The model, the frames or the baseline cannot be had as asked for.
        KeyboardInterrupt: It came before anything was measured.
    """
    load, used = load_average(), gpu_state()
    torch = request.baseline or request.model.suffix in CHECKPOINTS
    with thread_limit(request.threads, torch=torch):
        on_progress("reading frames", 0, 0)
        frames = load_frames(request)
        on_progress("opening the model", 0, 0)
        start = time.perf_counter()
        detector = open_detector(request)
        load_s = time.perf_counter() - start
        with detector:
            start = time.perf_counter()
            detector.batch(frames[:1])
            first = (time.perf_counter() - start) * 1000
            for batch in request.batches:
                detector.batch(frames_of(0, batch, frames))
            device = _memory_added(used, gpu_state()) if runs_on_gpu(detector) else None
            opened = _describe(request, detector, frames, (load_s, first, peak_rss_mib(), device))
            contestants, weights = _contestants(request, detector, frames)
            results, partial = _measure_batches(request, contestants, detector, frames, on_progress)
            if not results:
                raise KeyboardInterrupt
            workers = None
            if request.workers > 1 and not partial:
                on_progress(f"{request.workers} workers", 0, 0)
                workers, partial = run_workers(
                    _more_detectors(request, detector),
                    lambda number: frames_of(number, request.batches[0], frames),
                    request.workers,
                    request.iterations,
                )
            machine = describe_machine(load, request.threads, detector.backend.name)
            on_gpu = runs_on_gpu(detector)
    return LatencyReport(
        partial=partial,
        model=opened,
        machine=machine,
        frames="drawn" if request.images is None else str(request.images),
        frame_sizes=_sizes_of(frames),
        iterations=request.iterations,
        warm_up=request.warm_up,
        excluded=("reading and decoding of image files",),
        baseline_weights=weights,
        results=tuple(results),
        workers=workers,
        warnings=doubts(results, machine, weights, on_gpu=on_gpu),
    )


def frames_of(number: int, batch: int, frames: Sequence[Frame]) -> list[Frame]:
    """Return the frames of call ``number``: the next ones, from the beginning again after the last."""
    return [frames[(number * batch + index) % len(frames)] for index in range(batch)]


def measurement(samples: Sequence[Mapping[str, float]], batch: int) -> Measurement:
    """Return what calls of one contestant come to.

    Args:
        samples: Of each call, milliseconds by stage, and those of END_TO_END and GPU_COMPUTE; at least one.
        batch: Frames a call.
    """
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    end_to_end = summarise(columns[END_TO_END])
    gpu = columns.get(GPU_COMPUTE)
    return Measurement(
        clock="host" if gpu is None else "gpu_events",
        end_to_end=end_to_end,
        gpu_compute=None if gpu is None else summarise(gpu),
        stages={name: summarise(columns[name]) for name in STAGES if name in columns},
        throughput_fps=1000 * batch / end_to_end.mean_ms,
    )


def ratios_of(model: Measurement, baseline: Measurement) -> dict[str, float]:
    """Return how many times as long as the model the baseline takes, by medians, of each stage that both have."""
    ratios = {
        name: baseline.stages[name].p50_ms / own.p50_ms
        for name, own in model.stages.items()
        if name in baseline.stages and name != "other" and own.p50_ms > 0
    }
    return {**ratios, END_TO_END: baseline.end_to_end.p50_ms / model.end_to_end.p50_ms}


def _contestants(
    request: LatencyRequest, detector: Detector, frames: Sequence[Frame]
) -> tuple[dict[str, Run], str | None]:
    pipeline = pipeline_of(detector)
    if pipeline is None:
        contestants = {MODEL: host_run(detector, detector.batch, StageClock())}
    else:
        contestants = {MODEL: pipeline_run(detector, pipeline)}
    if not request.baseline:
        return contestants, None
    baseline, weights = open_baseline(request, detector, frames)
    return {**contestants, BASELINE: baseline_run(baseline, on_gpu=runs_on_gpu(detector))}, weights


def _measure_batches(
    request: LatencyRequest,
    contestants: Mapping[str, Run],
    detector: Detector,
    frames: Sequence[Frame],
    on_progress: OnProgress,
) -> tuple[list[BatchResult], bool]:
    """Return the result of each batch, and whether an interrupt ended it."""
    views = max(len(place(frame.shape[:2], detector.spec, detector.scales, flip=detector.flip)) for frame in frames)
    results: list[BatchResult] = []
    for batch in request.batches:
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in contestants}
        partial = False
        try:
            for number, name in take_turns(list(contestants), request.warm_up):
                on_progress(f"batch {batch}, warming up", number, request.warm_up)
                contestants[name](frames_of(number, batch, frames))
            for number, name in take_turns(list(contestants), request.iterations):
                on_progress(f"batch {batch}", number, request.iterations)
                samples[name].append(contestants[name](frames_of(number, batch, frames)))
        except KeyboardInterrupt:
            partial = True
        if samples[MODEL]:
            model = measurement(samples[MODEL], batch)
            baseline = measurement(samples[BASELINE], batch) if samples.get(BASELINE) else None
            ratios = {} if baseline is None else ratios_of(model, baseline)
            largest = min(batch * views, detector.backend.max_batch)
            results.append(BatchResult(batch, largest, model, baseline, ratios))
        if partial:
            return results, True
    return results, False


def _more_detectors(request: LatencyRequest, detector: Detector) -> Callable[[], Detector]:
    """Return what makes another detector of the same model."""
    clone: Callable[[], Detector] | None = getattr(detector, "clone", None)
    return clone or (lambda: open_detector(request))


def _describe(
    request: LatencyRequest,
    detector: Detector,
    frames: Sequence[Frame],
    figures: tuple[float, float, float, int | None],
) -> Opened:
    spec, name = detector.spec, detector.backend.name
    inputs = {
        view.input_size
        for frame in frames
        for view in place(frame.shape[:2], spec, detector.scales, flip=detector.flip)
    }
    return Opened(
        str(request.model),
        spec.name,
        name,
        "fp16" if name in HALVED else spec.precision,
        spec.geometry,
        tuple(sorted(inputs)),
        detector.flip,
        detector.scales,
        *figures,
    )


def _sizes_of(frames: Sequence[Frame]) -> tuple[Size, ...]:
    return tuple(sorted({(frame.shape[0], frame.shape[1]) for frame in frames}))


def _memory_added(before: GpuState | None, after: GpuState | None) -> int | None:
    used = [None if state is None else state.memory_used_mib for state in (before, after)]
    return None if used[0] is None or used[1] is None else used[1] - used[0]
