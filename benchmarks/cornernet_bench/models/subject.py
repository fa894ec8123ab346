"""A model and how it runs, as the benchmarks open it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_runtime.bundle.spec import Size


@dataclass(frozen=True, slots=True)
class Subject:
    """A model and how it runs.

    Attributes:
        model: A bundle, an ``.onnx`` file or a checkpoint.
        backend: What runs the network; None takes the best here.
        size: Input that every frame is fitted into; None leaves it to the model.
        flip: As for ``Detector``.
        scales: As for ``Detector``.
        stacks: Hourglasses of a checkpoint to keep; None keeps all.
        threads: Of the CPU's libraries; 0 leaves it to them.
    """

    model: Path
    backend: str | None = None
    size: Size | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    stacks: int | None = None
    threads: int = 0
