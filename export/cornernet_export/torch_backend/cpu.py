"""The reference model behind the runtime's detector, so that a checkpoint and its export differ in the network only."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Self

import torch

from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.model.rewrite import cut_stacks, emulate_half, fold_batch_norms, to_half
from cornernet_runtime.detector import Detector
from cornernet_runtime.processing.maps import CornerMaps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_export.model import CornerNet

HALF = "torch-fp16"


class TorchBackend:
    """A network in PyTorch, in inference mode on the device of its weights."""

    name = "torch"
    max_batch = 16

    def __init__(self, model: CornerNet) -> None:
        self._model = model.eval()

    def __call__(self, images: NDArray[np.float32]) -> CornerMaps:
        """Run the network on float32 [N, 3, H, W]."""
        device = next(self._model.parameters()).device
        with torch.inference_mode():
            maps = self._model(torch.from_numpy(images).to(device))
        return CornerMaps(*(tensor.float().cpu().numpy() for tensor in maps))

    def clone(self) -> Self:
        """Return a backend of the same weights, which are only read."""
        return copy.copy(self)

    def close(self) -> None:
        """Let go of the weights, which clones keep."""
        del self._model


def open_checkpoint(
    path: Path, *, half: bool = False, flip: bool = False, scales: Sequence[float] = (1.0,), stacks: int | None = None
) -> Detector:
    """Open a checkpoint as a detector run by PyTorch; ``flip`` and ``scales`` as for ``Detector``.

    With ``stacks``, the network is cut after so many hourglasses. With ``half``, weights and activations are rounded to
    float16 wherever ``--precision fp16`` computes in it, which ONNX Runtime does not do on a CPU.

    Raises:
        CheckpointError: As ``load_checkpoint``.
        ModelError: There are fewer stacks.
        SizeError: As ``Detector``.
    """
    checkpoint = load_checkpoint(path)
    model = checkpoint.model if stacks is None else cut_stacks(checkpoint.model, stacks)
    model = emulate_half(to_half(fold_batch_norms(model))) if half else model
    backend = TorchBackend(model)
    backend.name = HALF if half else backend.name
    return Detector(backend, checkpoint.spec, flip=flip, scales=scales)
