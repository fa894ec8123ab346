"""A model as it was opened: how long that took, and what memory it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cornernet_bench.measuring.machine import gpu_state, peak_rss_mib
from cornernet_bench.models.frames import frames_of
from cornernet_bench.models.runs import runs_on_gpu
from cornernet_runtime.processing.geometry import place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cornernet_bench.measuring.machine import GpuState
    from cornernet_bench.models.runs import Frame
    from cornernet_bench.models.subject import Subject
    from cornernet_runtime.bundle.spec import Size
    from cornernet_runtime.detector import Detector

PRECISIONS = {"torch-fp16": "fp16", "torch-cuda": "fp16", "openvino-bf16": "bf16"}  # what floats are computed in


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


def first_calls(
    subject: Subject,
    detector: Detector,
    frames: Sequence[Frame],
    load_s: float,
    gpu: GpuState | None,
    batches: Sequence[int] = (1,),
) -> Opened:
    """Run every batch once and describe the model.

    Args:
        subject: The model, and how it runs.
        detector: The same, open.
        frames: To run it on.
        load_s: Seconds that it took to open.
        gpu: Its state before that.
        batches: Frames a call.
    """
    start = time.perf_counter()
    detector.batch(frames[:1])
    first = (time.perf_counter() - start) * 1000
    for batch in batches:
        detector.batch(frames_of(0, batch, frames))
    spec, name = detector.spec, detector.backend.name
    inputs = {view.input_size for frame in frames for view in place(frame.shape[:2], spec, detector.scales)}
    return Opened(
        path=str(subject.model),
        name=spec.name,
        backend=name,
        precision="int8" if spec.precision == "int8" else PRECISIONS.get(name, spec.precision),
        geometry=spec.geometry,
        input_sizes=tuple(sorted(inputs)),
        flip=detector.flip,
        scales=detector.scales,
        load_s=load_s,
        first_inference_ms=first,
        peak_rss_mib=peak_rss_mib(),
        device_memory_mib=_memory_added(gpu, gpu_state()) if runs_on_gpu(detector) else None,
    )


def _memory_added(before: GpuState | None, after: GpuState | None) -> int | None:
    used = [None if state is None else state.memory_used_mib for state in (before, after)]
    return None if used[0] is None or used[1] is None else used[1] - used[0]
