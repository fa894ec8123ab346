"""The detector: a frame in, boxes in the frame's pixels out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from cornernet_runtime.bundle import ONNX_NAME, read_manifest
from cornernet_runtime.decode import decode
from cornernet_runtime.detections import Detections
from cornernet_runtime.errors import BackendError, BundleError
from cornernet_runtime.geometry import Placement, Preprocessor, cells_to_input, clip_to_frame
from cornernet_runtime.nms import soft_nms

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from cornernet_runtime.backends import Backend
    from cornernet_runtime.maps import CornerMaps
    from cornernet_runtime.spec import ModelSpec

BACKENDS = ("onnxruntime",)


class Detector:
    """A network with everything around it: geometry, decode and suppression.

    One detector serves one thread; its buffers are reused from frame to frame.

    Args:
        backend: Runs the network.
        spec: How to use it.
    """

    def __init__(self, backend: Backend, spec: ModelSpec) -> None:
        self.backend = backend
        self.spec = spec
        self._preprocess = Preprocessor(spec.input_size, spec.normalisation)
        self._input = np.empty((1, 3, *spec.input_size), np.float32)

    @classmethod
    def open(cls, path: str | Path, backend: str | None = None) -> Detector:
        """Open a bundle folder or an ``.onnx`` file that cornernet-export wrote.

        Args:
            path: The bundle or the file.
            backend: Name of the one to use; by default the best that can run here.

        Raises:
            BundleError: ``path`` is neither, or the bundle is broken or newer than this version.
            ModelError: The model file cannot be loaded, or is not a CornerNet of ours.
            BackendError: The backend is unknown or not installed.
        """
        if backend not in (None, *BACKENDS):
            raise BackendError(f"no backend is called {backend!r}; there are {', '.join(BACKENDS)}")
        from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend  # noqa: PLC0415 - only when used

        path = Path(path)
        try:
            exists, is_folder = path.exists(), path.is_dir()
        except OSError as error:
            raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
        spec = None
        if is_folder:
            spec = read_manifest(path).spec
            path = path / ONNX_NAME
        elif path.suffix != ".onnx":
            problem = "is no bundle folder or .onnx file" if exists else "does not exist"
            raise BundleError(f"{path} {problem}; cornernet-export makes bundles from checkpoints")
        network = OnnxRuntimeBackend(path, spec)
        return cls(network, network.spec)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names that ``Detections.labels`` index."""
        return self.spec.class_names

    def __call__(self, frame: NDArray[np.uint8]) -> Detections:
        """Detect the objects of one frame.

        Args:
            frame: uint8 [H, W, 3], BGR, of any size.

        Returns:
            Detections in pixels of the frame, best first, at most ``spec.nms.max_detections``.

        Raises:
            FrameError: The frame has another shape or type.
        """
        return self.batch([frame])[0]

    def batch(self, frames: Sequence[NDArray[np.uint8]]) -> list[Detections]:
        """Detect the objects of several frames, of any sizes, in as few runs of the network as it can take."""
        detections = []
        for start in range(0, len(frames), self.backend.max_batch):
            maps, placements = self._run(frames[start : start + self.backend.max_batch])
            detections += [self.finish(maps[index], place) for index, place in enumerate(placements)]
        return detections

    def corner_maps(self, frame: NDArray[np.uint8]) -> tuple[CornerMaps, Placement]:
        """Return the network's maps for one frame and where the frame lies in the input, for figures and analysis."""
        maps, placements = self._run([frame])
        return maps[0], placements[0]

    def finish(self, maps: CornerMaps, placement: Placement) -> Detections:
        """Turn the maps of one picture into detections: decode, back to the frame, suppress."""
        candidates = decode(maps, self.spec.decode)
        boxes = placement.to_frame(cells_to_input(candidates.boxes, self.spec))
        clipped, inside = clip_to_frame(boxes, placement.frame_size)
        clipped, labels = clipped[inside], candidates.labels[inside]
        kept, scores = soft_nms(clipped, candidates.scores[inside], labels, self.spec.nms)
        return Detections(clipped[kept], scores, labels[kept], self.class_names)

    def _run(self, frames: Sequence[NDArray[np.uint8]]) -> tuple[CornerMaps, list[Placement]]:
        if len(self._input) < len(frames):
            self._input = np.empty((len(frames), *self._input.shape[1:]), np.float32)
        images = self._input[: len(frames)]
        placements = [self._preprocess(frame, slot) for frame, slot in zip(frames, images, strict=True)]
        return self.backend(images), placements

    def close(self) -> None:
        """Let go of the backend."""
        self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
