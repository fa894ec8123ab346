"""The published pipeline beside a model: on its device and input, and timed stage by stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.measuring.timing import StageClock
from cornernet_bench.models.runs import host_run, runs_on_gpu
from cornernet_runtime.errors import BackendError, CornerNetError
from cornernet_runtime.processing.geometry import is_too_large, place

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cornernet_bench.baseline.pipeline import PublishedPipeline
    from cornernet_bench.latency.request import LatencyRequest
    from cornernet_bench.models.runs import Frame, Run
    from cornernet_runtime.bundle.spec import Size
    from cornernet_runtime.detector import Detector


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
    from cornernet_bench.baseline.pipeline import PublishedPipeline  # noqa: PLC0415 - imports torch
    from cornernet_bench.baseline.weights import published_weights  # noqa: PLC0415 - as above

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
