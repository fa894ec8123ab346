"""Opening whatever the benchmarks accept as MODEL."""

from __future__ import annotations

from pathlib import Path

from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError


def open_model(path: str | Path, backend: str | None = None) -> Detector:
    """Open a bundle folder, an ``.onnx`` file or a ``.safetensors`` checkpoint; the last runs in PyTorch.

    Raises:
        CornerNetError: As ``Detector.open`` and ``cornernet_export.torch_backend.open_checkpoint``.
    """
    if Path(path).suffix != ".safetensors":
        return Detector.open(path, backend)
    if backend not in (None, "torch"):
        raise BackendError(f"{path}: a checkpoint runs in torch; export it to run in {backend}")
    from cornernet_export.torch_backend import open_checkpoint  # noqa: PLC0415 - imports torch

    return open_checkpoint(Path(path))
