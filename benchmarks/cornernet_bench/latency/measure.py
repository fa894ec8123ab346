"""Latency of a model from frame to boxes, stage by stage, beside the published pipeline where asked for.

End to end is measured by the host's clock around one call of the detector. On a CPU the stages are parts of that same
call and add up to it. On a GPU pipeline they are times of the GPU, from runs of their own: the two are never mixed.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from cornernet_bench.latency.baseline_run import baseline_run, open_baseline
from cornernet_bench.latency.cautions import doubts
from cornernet_bench.latency.report import BatchResult, LatencyReport, ratios_of
from cornernet_bench.latency.workers import run_workers
from cornernet_bench.measuring.machine import describe_machine, gpu_state, load_average, thread_limit
from cornernet_bench.measuring.measurement import measurement
from cornernet_bench.measuring.timing import take_turns
from cornernet_bench.model_names import CHECKPOINTS
from cornernet_bench.models.frames import frames_of, load_frames
from cornernet_bench.models.open import open_detector
from cornernet_bench.models.opening import first_calls
from cornernet_bench.models.runs import model_run, runs_on_gpu
from cornernet_runtime.errors import CornerNetError, SizeError
from cornernet_runtime.processing.geometry import place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cornernet_bench.latency.report import Workers
    from cornernet_bench.latency.request import LatencyRequest
    from cornernet_bench.measuring.measurement import Clock
    from cornernet_bench.models.runs import Frame, Run
    from cornernet_bench.models.subject import Subject
    from cornernet_runtime.detector import Detector

    OnProgress = Callable[[str, int, int], None]  # what is done, how much of it, of how much

MODEL, BASELINE = "model", "baseline"
EXCLUDED = ("reading and decoding of image files",)


def measure(request: LatencyRequest, on_progress: OnProgress = lambda *_: None) -> LatencyReport:
    """Open a model and measure it; an interrupt ends the measurement and keeps what there is.

    Raises:
        CornerNetError: The model, the frames or the baseline cannot be had as asked for.
        KeyboardInterrupt: It came before anything was measured.
    """
    load, gpu = load_average(), gpu_state()
    subject = request.subject
    with ExitStack() as stack:
        stack.enter_context(thread_limit(subject.threads, torch=subject.model.suffix in CHECKPOINTS))
        frames = load_frames(request.images, request.frame_size)
        on_progress("opening the model", 0, 0)
        start = time.perf_counter()
        with _open(subject) as detector:
            _check_cpu_time(request, detector)
            opened = first_calls(subject, detector, frames, time.perf_counter() - start, gpu, request.batches)
            contestants, weights = _contestants(request, detector, frames)
            if request.baseline:  # not before: PyTorch is none of the memory and the opening of an ONNX file
                stack.enter_context(thread_limit(subject.threads, torch=True))
            results, partial = _measure_batches(request, contestants, detector, frames, on_progress)
            if not results:
                raise KeyboardInterrupt
            workers = None
            if request.workers > 1 and not partial:
                on_progress(f"{request.workers} workers", 0, 0)
                workers, partial = _measure_workers(request, detector, frames)
            machine = describe_machine(load, subject.threads, {detector.backend.name})
            warnings = doubts(results, machine, weights, on_gpu=runs_on_gpu(detector))
    return LatencyReport(
        partial=partial,
        model=opened,
        machine=machine,
        frames="drawn" if request.images is None else str(request.images),
        frame_sizes=tuple(sorted({(frame.shape[0], frame.shape[1]) for frame in frames})),
        iterations=request.iterations,
        warm_up=request.warm_up,
        excluded=EXCLUDED,
        baseline_weights=weights,
        results=tuple(results),
        workers=workers,
        warnings=warnings,
    )


def _open(subject: Subject) -> Detector:
    try:
        return open_detector(subject)
    except SizeError as error:
        if subject.size is None:
            raise
        raise SizeError(f"{error}; without --size the model gets its own") from error


def _check_cpu_time(request: LatencyRequest, detector: Detector) -> None:
    if request.cpu_time and (request.subject.threads != 1 or runs_on_gpu(detector)):
        raise CornerNetError("--cpu-time adds up all threads and knows no GPU: add --threads 1, and run on the CPU")


def _contestants(
    request: LatencyRequest, detector: Detector, frames: Sequence[Frame]
) -> tuple[dict[str, Run], str | None]:
    now = time.process_time if request.cpu_time else time.perf_counter
    contestants = {MODEL: model_run(detector, now)}
    if not request.baseline:
        return contestants, None
    baseline, weights = open_baseline(request, detector, frames)
    return {**contestants, BASELINE: baseline_run(baseline, now, on_gpu=runs_on_gpu(detector))}, weights


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
    clock: Clock = "process" if request.cpu_time else "host"
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
            model = measurement(samples[MODEL], batch, clock)
            baseline = measurement(samples[BASELINE], batch, clock) if samples.get(BASELINE) else None
            ratios = {} if baseline is None else ratios_of(model, baseline)
            largest = min(batch * views, detector.backend.max_batch)
            results.append(BatchResult(batch, largest, model, baseline, ratios, len(samples[MODEL])))
        if partial:
            return results, True
    return results, False


def _measure_workers(
    request: LatencyRequest, detector: Detector, frames: Sequence[Frame]
) -> tuple[Workers | None, bool]:
    """Return what detectors like this one give side by side, and whether an interrupt ended it."""
    return run_workers(
        detector.clone,
        lambda number: frames_of(number, request.batches[0], frames),
        request.workers,
        request.iterations,
    )
