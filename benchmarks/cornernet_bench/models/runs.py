"""Runs of a detector or a pipeline, timed stage by stage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from cornernet_bench.measuring.measurement import END_TO_END, GPU_COMPUTE, REST
from cornernet_bench.measuring.timing import StageClock
from cornernet_runtime.backends.base import DeviceBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.detector import Detector
    from cornernet_runtime.pipeline import GpuPipeline

    Frame = NDArray[np.uint8]
    Run = Callable[[Sequence[Frame]], dict[str, float]]  # milliseconds of one run, by stage

COMPUTE = ("preprocess", "network", "decode", "soft_nms")  # on a GPU pipeline; the other stages are copies


class Staged(Protocol):
    """Calls ``stages`` with the name of each step, for a context that is open during it."""

    stages: Callable[[str], AbstractContextManager[object]]


def runs_on_gpu(detector: Detector) -> bool:
    """Return whether a detector's network runs on a GPU."""
    return isinstance(detector.backend, DeviceBackend)


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
