"""The published pipeline as a detector, so that whatever measures detectors measures it too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cornernet_bench.baseline.pipeline import PublishedPipeline, with_published_pools
from cornernet_bench.model_names import PUBLISHED
from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.model.rewrite import cut_stacks
from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import SizeError
from cornernet_runtime.processing.preprocess import check_frame

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cornernet_export.model import CornerNet
    from cornernet_runtime.bundle.spec import ModelSpec
    from cornernet_runtime.detections import Detections


class PublishedDetector(Detector):
    """A detector that takes the published steps from frame to boxes, one frame after the other, on the CPU.

    ``corner_maps`` and ``finish`` are those of any detector: the same network between our steps.

    Args:
        model: The network; its corner pools become the original's.
        spec: How to use it.
        flip: As for ``Detector``.
    """

    def __init__(self, model: CornerNet, spec: ModelSpec, *, flip: bool = False) -> None:
        backend = TorchBackend(with_published_pools(model))
        backend.name = PUBLISHED
        super().__init__(backend, spec, flip=flip)
        self._model = model
        size = None if spec.geometry == "native" else spec.input_size
        self._steps = PublishedPipeline(model, spec, flip=flip, input_size=size)

    def with_spec(self, spec: ModelSpec) -> PublishedDetector:
        """Return a detector of the same network with another spec."""
        return PublishedDetector(self._model, spec, flip=self.flip)

    def batch(self, frames: Sequence[object]) -> list[Detections]:
        """Detect the objects of several frames, as ``Detector`` does."""
        with self._at_work():
            self._steps.stages = self.stages
            return [self._steps(check_frame(frame)) for frame in frames]

    def clone(self) -> PublishedDetector:
        """Return another detector of the same network for another thread."""
        self._check_open()
        return self.with_spec(self.spec)


def open_published(
    path: Path, *, flip: bool = False, scales: Sequence[float] = (1.0,), stacks: int | None = None
) -> PublishedDetector:
    """Open a checkpoint to be run as published; ``stacks`` as for ``open_checkpoint``.

    Raises:
        CheckpointError: As ``load_checkpoint``.
        ModelError: There are fewer stacks.
        SizeError: There is another scale than 1.
    """
    if tuple(scales) != (1.0,):
        raise SizeError(f"{path}: {PUBLISHED} looks at one scale: leave scales away")
    checkpoint = load_checkpoint(path)
    model = checkpoint.model if stacks is None else cut_stacks(checkpoint.model, stacks)
    return PublishedDetector(model, checkpoint.spec, flip=flip)
