"""What streams ask of a detector, so that they need not know the class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from cornernet_runtime.backends import Backend
    from cornernet_runtime.detections import Detections
    from cornernet_runtime.pipeline import GpuPipeline


class FrameDetector(Protocol):
    """Detects objects in frames, as ``cornernet_runtime.Detector`` does.

    Attributes:
        stages: Called on the CPU with the name of each step, for a context that is open during it.
    """

    stages: Callable[[str], AbstractContextManager[object]]

    @property
    def backend(self) -> Backend:
        """The network."""

    @property
    def pipeline(self) -> GpuPipeline | None:
        """All of the work on a GPU; None where all but the network is done on the CPU."""

    def batch(self, frames: Sequence[object], /) -> list[Detections]:
        """Return the detections of each frame, in pixels of it."""

    def clone(self) -> FrameDetector:
        """Return another detector of the same model, for another thread."""

    def __enter__(self) -> Self:
        """Return the detector, which is closed at the end of the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None:
        """Close the detector."""
