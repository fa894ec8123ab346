"""Opening whatever the benchmarks accept as MODEL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKPOINTS = (".safetensors", ".pkl", ".pth")


def open_model(
    path: str | Path, backend: str | None = None, *, flip: bool = False, scales: Sequence[float] = (1.0,)
) -> Detector:
    """Open a bundle folder, an ``.onnx`` file or a checkpoint, ours or published; the last runs in PyTorch.

    ``flip`` and ``scales`` are as for ``Detector``.

    Raises:
        CornerNetError: As ``Detector.open`` and ``cornernet_export.torch_backend.open_checkpoint``.
    """
    if Path(path).suffix not in CHECKPOINTS:
        if (backend or "").startswith("torch"):
            raise BackendError(f"{path}: {backend} runs checkpoints ({', '.join(CHECKPOINTS)}), and this is none")
        return Detector.open(path, backend, flip=flip, scales=scales)
    from cornernet_export.torch_backend import HALF, open_checkpoint  # noqa: PLC0415 - imports torch

    if backend not in (None, "torch", HALF):
        raise BackendError(f"{path}: a checkpoint runs in torch or {HALF}; export it to run in {backend}")
    return open_checkpoint(Path(path), half=backend == HALF, flip=flip, scales=scales)
