"""What latency is measured of: the model and the published pipeline, opened, and run on frames stage by stage."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from cornernet_bench.measuring.measurement import END_TO_END, GPU_COMPUTE, REST
from cornernet_bench.measuring.timing import StageClock
from cornernet_bench.model_names import CHECKPOINTS, PUBLISHED
from cornernet_bench.models import open_model
from cornernet_export.verify import read_some, sample_picture
from cornernet_runtime.backends.base import DeviceBackend
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError, CornerNetError
from cornernet_runtime.geometry import is_too_large, place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from cornernet_bench.baseline import PublishedPipeline
    from cornernet_bench.latency_request import LatencyRequest
    from cornernet_bench.subject import Subject
    from cornernet_runtime.pipeline import GpuPipeline
    from cornernet_runtime.spec import Size

    Frame = NDArray[np.uint8]
    Run = Callable[[Sequence[Frame]], dict[str, float]]  # milliseconds of one run, by stage

DRAWN_FRAMES = 8
COMPUTE = ("preprocess", "network", "decode", "soft_nms")  # on a GPU pipeline; the other stages are copies


class Staged(Protocol):
    """Calls ``stages`` with the name of each step, for a context that is open during it."""

    stages: Callable[[str], AbstractContextManager[object]]


def open_detector(subject: Subject) -> Detector:
    """Open the model with the threads and at the input size that are asked for.

    Raises:
        BackendError: Threads are asked for of a GPU.
        CornerNetError: As ``open_model``.
        SizeError: The model cannot take this size.
    """
    views: dict[str, Any] = {"flip": subject.flip, "scales": subject.scales}
    if subject.threads and subject.stacks is None and subject.model.suffix not in CHECKPOINTS:
        detector = Detector.open(subject.model, subject.backend, threads=subject.threads, **views)
    else:
        detector = open_model(subject.model, subject.backend, **views, stacks=subject.stacks)
    if subject.threads and runs_on_gpu(detector):
        detector.close()
        raise BackendError(f"--threads is for the CPU, and {detector.backend.name} runs on the GPU: name a --backend")
    if subject.size is None:
        return detector
    return _at_size(detector, subject.size, any_size=subject.model.suffix in CHECKPOINTS)


def runs_on_gpu(detector: Detector) -> bool:
    """Return whether a detector's network runs on a GPU."""
    return isinstance(detector.backend, DeviceBackend)


def load_frames(images: Path | None, frame_size: Size) -> list[Frame]:
    """Return the frames to measure on.

    Args:
        images: Folder of pictures; None takes parts of a drawn one.
        frame_size: Height and width of these parts.

    Raises:
        FrameError: The folder has no picture, or one cannot be read.
    """
    if images is not None:
        return read_some([str(images)])
    rng, picture = np.random.default_rng(0), sample_picture()
    height, width = picture.shape[:2]
    frames = []
    for _ in range(DRAWN_FRAMES):
        share = rng.uniform(0.6, 1)
        rows, columns = int(height * share), int(width * share)
        top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
        part = picture[top : top + rows, left : left + columns]
        frames.append(np.asarray(cv2.resize(part, frame_size[::-1]), np.uint8))
    return frames


def host_run(subject: Staged, detect: Callable[[Sequence[Frame]], object], clock: StageClock) -> Run:
    """Return what runs ``detect`` once and tells how long it and its stages took, by one clock.

    Args:
        subject: Whose stages are timed.
        detect: From frames to boxes.
        clock: Times the stages; what they leave of the whole is REST.
    """
    subject.stages = clock

    def run(frames: Sequence[Frame]) -> dict[str, float]:
        clock.take()
        start = clock.now()
        detect(frames)
        total = (clock.now() - start) * 1000
        times = clock.take()
        return {**times, REST: total - sum(times.values()), END_TO_END: total}

    return run


def model_run(detector: Detector, now: Callable[[], float]) -> Run:
    """Return what runs a detector once and tells how long it and its stages took; ``now`` is the clock of the host."""
    if detector.pipeline is None:
        return host_run(detector, detector.batch, StageClock(now=now))
    return pipeline_run(detector, detector.pipeline)


def pipeline_run(detector: Detector, pipeline: GpuPipeline) -> Run:
    """Return what runs a GPU pipeline twice: once from frames to boxes, by the host's clock, once stage by stage.

    The first is a replay of the captured graph; the second runs outside of it, between events of the GPU.
    """

    def run(frames: Sequence[Frame]) -> dict[str, float]:
        start = time.perf_counter()
        detector.batch(frames)
        total = (time.perf_counter() - start) * 1000
        stages = pipeline.time_stages(frames)
        return {**stages, GPU_COMPUTE: sum(stages[name] for name in COMPUTE), END_TO_END: total}

    return run


def open_baseline(
    request: LatencyRequest, detector: Detector, frames: Sequence[Frame]
) -> tuple[PublishedPipeline, str]:
    """Return the published pipeline on the model's device and input, and where its weights come from.

    Weights are those that are named, else the model's own where it is a checkpoint or a bundle that holds one, else
    random ones of the architecture: they take as long in the network, but give other corners to decode.

    Raises:
        BackendError: PyTorch is missing, or cannot use the GPU that the model runs on.
        CheckpointError: The checkpoint cannot be used.
        CornerNetError: The published steps cannot do the same work, or there is nothing to take weights from.
    """
    if len(detector.scales) > 1:
        raise CornerNetError("--baseline looks at one scale: leave --scales away")
    try:
        import torch  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise BackendError('--baseline runs in PyTorch, which is not installed; pip install ".[export]"') from error
    from cornernet_bench.baseline import PublishedPipeline  # noqa: PLC0415 - imports torch
    from cornernet_bench.baseline_weights import published_weights  # noqa: PLC0415 - as above

    device = "cuda" if runs_on_gpu(detector) else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            "--baseline runs on the model's device, and this PyTorch knows no GPU: install its build for CUDA, or run "
            "the model on the CPU with --backend onnxruntime"
        )
    size = _common_input(detector, frames)
    model, source = published_weights(request.baseline_checkpoint, request.subject.model, detector.spec)
    pipeline = PublishedPipeline(model, detector.spec, flip=detector.flip, input_size=size, device=device)
    return pipeline, source


def baseline_run(pipeline: PublishedPipeline, now: Callable[[], float], *, on_gpu: bool) -> Run:
    """Return what runs the published pipeline on one frame after the other, as published; ``now`` is the clock."""

    def detect(frames: Sequence[Frame]) -> None:
        for frame in frames:
            pipeline(frame)

    return host_run(pipeline, detect, StageClock(_synchronise if on_gpu else lambda: None, now))


def _synchronise() -> None:
    import torch  # noqa: PLC0415 - an extra

    torch.cuda.synchronize()


def _common_input(detector: Detector, frames: Sequence[Frame]) -> Size | None:
    """Return the one input that all frames are fitted into, or None where each is taken at its own size."""
    spec = detector.spec
    if spec.geometry == "native":
        for frame in frames:
            if is_too_large(frame.shape[:2], spec):
                raise CornerNetError(
                    f"--baseline takes frames at their own size, and {frame.shape[0]}x{frame.shape[1]} exceeds the "
                    "model's largest: fit all into one input with --size HxW, or give smaller frames with --frame HxW"
                )
        return None
    sizes = {place(frame.shape[:2], spec)[0].input_size for frame in frames}
    if len(sizes) > 1:
        raise CornerNetError("--baseline needs one input size for all frames: name it with --size HxW")
    return sizes.pop()


def _at_size(detector: Detector, size: Size, *, any_size: bool) -> Detector:
    """Return a detector around the same network that fits every frame into one input of this size."""
    if not any_size:
        detector.spec.check_input_size(size)
    largest = size if any_size else detector.spec.largest_size
    spec = replace(detector.spec, input_size=size, other_sizes=(), largest_size=largest, geometry="fit")
    if detector.backend.name == PUBLISHED:
        from cornernet_bench.baseline_detector import PublishedDetector  # noqa: PLC0415 - imports torch

        if isinstance(detector, PublishedDetector):
            return detector.with_spec(spec)
    views: dict[str, Any] = {"flip": detector.flip, "scales": detector.scales}
    if detector.pipeline is None:
        return Detector(detector.backend, spec, **views)
    detector.pipeline.close()
    return Detector.around(detector.backend, spec, **views)
