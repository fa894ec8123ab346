"""Opening whatever the benchmarks accept as MODEL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cornernet_bench.model_names import CHECKPOINTS, PUBLISHED
from cornernet_bench.models.runs import runs_on_gpu
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cornernet_bench.models.subject import Subject
    from cornernet_runtime.bundle.spec import Size


def open_model(
    path: str | Path,
    backend: str | None = None,
    *,
    flip: bool = False,
    scales: Sequence[float] = (1.0,),
    stacks: int | None = None,
) -> Detector:
    """Open a bundle folder, an ``.onnx`` file or a checkpoint, ours or published; the last runs in PyTorch.

    Args:
        path: Of the model.
        backend: Name of the one to use. A checkpoint runs in ``torch`` (the usual one) or ``torch-fp16``, both on the
            CPU, or with all around it on a GPU, in ``torch-cuda`` (float16) or ``torch-cuda-fp32``. In ``published`` it
            goes the published pipeline's way from frame to boxes, on the CPU.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        stacks: Hourglasses of a checkpoint to keep; None keeps all.

    Raises:
        CornerNetError: As ``Detector.open``, ``cornernet_export.torch_backend.cpu.open_checkpoint`` and
            ``cornernet_export.torch_backend.gpu.open_on_gpu``.
    """
    if Path(path).suffix not in CHECKPOINTS:
        if (backend or "").startswith(("torch", PUBLISHED)):
            raise BackendError(f"{path}: {backend} runs checkpoints ({', '.join(CHECKPOINTS)}), and this is none")
        if stacks is not None:
            raise BackendError(
                f"{path}: a checkpoint is cut as it is opened; export this one again with --stacks {stacks}"
            )
        return Detector.open(path, backend, flip=flip, scales=scales)
    from cornernet_export.torch_backend.cpu import HALF, open_checkpoint  # noqa: PLC0415 - imports torch
    from cornernet_export.torch_backend.gpu import CUDA, CUDA_FP32, open_on_gpu  # noqa: PLC0415

    if backend in (CUDA, CUDA_FP32):
        return open_on_gpu(Path(path), half=backend == CUDA, flip=flip, scales=scales, stacks=stacks)
    if backend == PUBLISHED:
        from cornernet_bench.baseline.detector import open_published  # noqa: PLC0415

        return open_published(Path(path), flip=flip, scales=scales, stacks=stacks)
    if backend not in (None, "torch", HALF):
        raise BackendError(
            f"{path}: a checkpoint runs in torch, {HALF}, {CUDA}, {CUDA_FP32} or {PUBLISHED}; export it to run in "
            f"{backend}"
        )
    return open_checkpoint(Path(path), half=backend == HALF, flip=flip, scales=scales, stacks=stacks)


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


def _at_size(detector: Detector, size: Size, *, any_size: bool) -> Detector:
    """Return a detector around the same network that fits every frame into one input of this size."""
    if not any_size:
        detector.spec.check_input_size(size)
    largest = size if any_size else detector.spec.largest_size
    spec = replace(detector.spec, input_size=size, other_sizes=(), largest_size=largest, geometry="fit")
    if detector.backend.name == PUBLISHED:
        from cornernet_bench.baseline.detector import PublishedDetector  # noqa: PLC0415 - imports torch

        if isinstance(detector, PublishedDetector):
            return detector.with_spec(spec)
    views: dict[str, Any] = {"flip": detector.flip, "scales": detector.scales}
    if detector.pipeline is None:
        return Detector(detector.backend, spec, **views)
    detector.pipeline.close()
    return Detector.around(detector.backend, spec, **views)
