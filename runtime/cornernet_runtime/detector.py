"""The detector: a frame in, boxes in the frame's pixels out."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Self

import numpy as np

from cornernet_runtime.backends.base import DeviceBackend
from cornernet_runtime.detections import Candidates, Detections
from cornernet_runtime.errors import BackendError
from cornernet_runtime.opening import open_network, pipeline_around
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.geometry import Placement, boxes_in_frame, place, usable_scales
from cornernet_runtime.processing.nms import merging_soft_nms, soft_nms
from cornernet_runtime.processing.preprocess import Preprocessor, check_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

    from cornernet_runtime.backends import Backend
    from cornernet_runtime.bundle.spec import ModelSpec, Size
    from cornernet_runtime.pipeline import GpuPipeline
    from cornernet_runtime.processing.maps import CornerMaps
    from cornernet_runtime.video.stream import DetectionStream, Policy


class Detector:
    """A network with everything around it: geometry, decode and suppression.

    One detector serves one thread, since its buffers are reused from frame to frame; ``clone`` gives another thread its
    own. A second thread is refused while the first is at work, and so is all work once the detector is closed.

    Args:
        backend: Runs the network.
        spec: How to use it.
        flip: Whether to look at each frame's mirror image too, for accuracy at twice the work.
        scales: Scales at which to look at each frame; the boxes of several are merged.
        pipeline: Does everything from frames to detections on a GPU, with the same network, flip and scales; by default
            all but the network is done on the CPU.

    Attributes:
        pipeline: As given; None where all but the network is done on the CPU.
        scales: Those that the model can take (``processing.geometry.usable_scales``).
        stages: Called on the CPU with "preprocess", "network", "decode" or "soft_nms" for a context that is open during
            that part of the work, to time it; no pipeline calls it.

    Raises:
        SizeError: The scales are no distinct positive numbers.
    """

    def __init__(
        self,
        backend: Backend,
        spec: ModelSpec,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        pipeline: GpuPipeline | None = None,
    ) -> None:
        self.backend = backend
        self.pipeline = pipeline
        self.spec = spec
        self.flip = flip
        self.scales = usable_scales(scales, spec)
        self._preprocess = Preprocessor(spec.normalisation)
        self._input = np.empty(0, np.float32)
        self.stages: Callable[[str], AbstractContextManager[object]] = nullcontext
        self._busy, self._closed = Lock(), False

    @classmethod
    def open(
        cls,
        path: str | Path,
        backend: str | None = None,
        *,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        allow_engine_code: bool = False,
        threads: int | None = None,
    ) -> Detector:
        """Open a bundle folder or an ``.onnx`` file that cornernet-export wrote.

        A bundle's engine is used if it can run here, else its ONNX file, with a ``CornerNetWarning``. Around an engine
        everything runs on the GPU, if the kernels can do what the model asks for, else on the CPU, with a warning.

        Args:
            path: The bundle or the file.
            backend: Name of the one to use; by default the best that can run here.
            flip: As for the class.
            scales: As for the class.
            allow_engine_code: Whether a portable engine may run the code that it carries.
            threads: Threads of a network on the CPU; by default one for each core that this process may use.

        Raises:
            SizeError: The scales are no distinct positive numbers.
            BundleError: ``path`` is neither, or the bundle is broken or newer than this version.
            ModelError: The model file cannot be loaded, or is not a CornerNet of ours.
            BackendError: The backend is unknown or not installed, or the engine cannot run here and was asked for.
            PluginError: ``CORNERNET_PLUGIN`` names something else than our plugin, and the engine was asked for.
        """
        network, spec = open_network(path, backend, allow_engine_code=allow_engine_code, threads=threads)
        return cls.around(network, spec, flip=flip, scales=scales)

    @classmethod
    def around(
        cls, backend: Backend, spec: ModelSpec, *, flip: bool = False, scales: Sequence[float] = (1.0,)
    ) -> Detector:
        """Return a detector around a backend, with a pipeline around one of a GPU.

        Where the kernels cannot do what the spec asks for, all but the network is done on the CPU, with a warning.

        Args:
            backend: As for the class; the detector closes it.
            spec: As for the class.
            flip: As for the class.
            scales: As for the class.

        Raises:
            SizeError: The scales are no distinct positive numbers.
        """
        pipeline = pipeline_around(backend, spec, flip=flip, scales=scales)
        return cls(backend, spec, flip=flip, scales=scales, pipeline=pipeline)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names that ``Detections.labels`` index."""
        return self.spec.class_names

    def __call__(self, frame: object) -> Detections:
        """Detect the objects of one frame.

        Args:
            frame: A NumPy array, uint8 [H, W, 3], BGR, of any size. Around an engine also an array of another library
                on the GPU that runs it (DLPack or ``__cuda_array_interface__``), which is read where it lies.

        Returns:
            Detections in pixels of the frame, best first, at most ``spec.nms.max_detections``.

        Raises:
            FrameError: The frame has another shape or type.
            BackendError: The network cannot be run, the detector is at work in another thread, or it is closed.
        """
        return self.batch([frame])[0]

    def batch(self, frames: Sequence[object]) -> list[Detections]:
        """Detect the objects of several frames, of any sizes, in as few runs of the network as it can take."""
        with self._at_work():
            return self._batch(frames) if self.pipeline is None else self.pipeline(frames)

    def _batch(self, frames: Sequence[object]) -> list[Detections]:
        pictures = [check_frame(frame) for frame in frames]
        views = [place(picture.shape[:2], self.spec, self.scales, flip=self.flip) for picture in pictures]
        by_size: dict[Size, list[tuple[int, int]]] = {}
        for frame, own in enumerate(views):
            for number, view in enumerate(own):
                by_size.setdefault(view.input_size, []).append((frame, number))
        found: dict[tuple[int, int], Candidates] = {}
        for looks in by_size.values():
            for start in range(0, len(looks), self.backend.max_batch):
                batch = looks[start : start + self.backend.max_batch]
                places = [views[frame][number] for frame, number in batch]
                maps = self._run([pictures[frame] for frame, _ in batch], places)
                with self.stages("decode"):
                    for index, look in enumerate(batch):
                        found[look] = self._candidates(maps[index], places[index])
        with self.stages("soft_nms"):
            return [
                self._suppress(Candidates.joined([found[frame, number] for number in range(len(own))]))
                for frame, own in enumerate(views)
            ]

    def stream(
        self, source: object, policy: Policy | None = None, *, workers: int | None = None, batch: int | None = None
    ) -> DetectionStream:
        """Return an iterator over the results of a video's frames, in order, which reads and detects at the same time.

        Args:
            source: A path, the index of a camera, an iterable of frames, or a ``video.frame.Source``.
            policy: "every" frame, or only the "newest", so that results do not lag; by default what suits the source.
            workers: As for ``video.stream.DetectionStream``.
            batch: As for ``video.stream.DetectionStream``.

        Raises:
            VideoError: The source cannot be opened, or the policy or a number is none.
            BackendError: There is no memory for the workers' clones.
        """
        from cornernet_runtime.video.stream import DetectionStream  # noqa: PLC0415 - only when used

        return DetectionStream(self, source, policy, workers=workers, batch=batch)

    def corner_maps(self, frame: NDArray[np.uint8]) -> tuple[CornerMaps, Placement]:
        """Return the network's maps for the largest view of a frame, and that view, for figures and analysis."""
        view = place(check_frame(frame).shape[:2], self.spec, [max(self.scales)])[0]
        with self._at_work():
            return self._run([frame], [view])[0], view

    def finish(self, maps: CornerMaps, placement: Placement) -> Detections:
        """Turn the maps of one view into detections: decode, back to the frame, suppress."""
        return self._suppress(self._candidates(maps, placement))

    def _run(self, frames: Sequence[NDArray[np.uint8]], views: Sequence[Placement]) -> CornerMaps:
        """Run the network on one view of each frame, all of one input size."""
        shape = (len(frames), 3, *views[0].input_size)
        self.spec.check_input_size(views[0].input_size)
        if self._input.size < math.prod(shape):
            self._input = np.empty(math.prod(shape), np.float32)
        images = self._input[: math.prod(shape)].reshape(shape)
        with self.stages("preprocess"):
            for frame, view, image in zip(frames, views, images, strict=True):
                self._preprocess(frame, view, image)
        with self.stages("network"):
            return self.backend(images)

    def _candidates(self, maps: CornerMaps, view: Placement) -> Candidates:
        """Decode the maps of one view, and bring the boxes into the frame."""
        candidates = decode(maps, self.spec.decode)
        clipped, inside = boxes_in_frame(candidates.boxes, view, self.spec.stride)
        return replace(candidates, boxes=clipped)[inside]

    def _suppress(self, found: Candidates) -> Detections:
        if len(self.scales) > 1:
            corner_scores = np.stack([found.tl_scores, found.br_scores], axis=1)
            kept, scores, boxes = merging_soft_nms(
                found.boxes, found.scores, corner_scores, found.labels, self.spec.nms
            )
        else:
            kept, scores = soft_nms(found.boxes, found.scores, found.labels, self.spec.nms)
            boxes = found.boxes[kept]
        return Detections(boxes, scores, found.labels[kept], self.class_names)

    def clone(self) -> Detector:
        """Return another detector of the same model for another thread; either can be closed before the other.

        What is never written to is shared: the session of ONNX Runtime, the engine, the weights, compiled kernels. The
        rest is its own: stream, buffers, captured graphs.

        Raises:
            BackendError: There is no memory for another, the detector is closed, or the pipeline was made by the caller
                around another network than the backend's.
        """
        self._check_open()
        if self.pipeline is not None and not isinstance(self.backend, DeviceBackend):
            raise BackendError(
                f"the pipeline's network is not that of the backend {self.backend.name}; clone the network, and make "
                "another pipeline and detector around it"
            )
        backend = self.backend.clone()
        try:
            pipeline = None
            if self.pipeline is not None and isinstance(backend, DeviceBackend):
                from cornernet_runtime.pipeline import GpuPipeline  # noqa: PLC0415 - only when used

                pipeline = GpuPipeline(
                    backend.device,
                    backend.network,
                    self.spec,
                    flip=self.flip,
                    scales=self.scales,
                    kernels=self.pipeline.kernels,
                    depth=self.pipeline.depth,
                )
            return Detector(backend, self.spec, flip=self.flip, scales=self.scales, pipeline=pipeline)
        except BaseException:
            backend.close()
            raise

    def close(self) -> None:
        """Let go of the backend, and of the pipeline, once what is under way is over; again it does nothing."""
        with self._busy:
            if self._closed:
                return
            self._closed = True
            try:
                if self.pipeline is not None:
                    self.pipeline.close()
            finally:
                self.backend.close()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Keep other threads out, whose frames would be written into the buffers of this one's."""
        if not self._busy.acquire(blocking=False):
            raise BackendError("this detector is at work in another thread; clone() gives each thread its own")
        try:
            self._check_open()
            yield
        finally:
            self._busy.release()

    def _check_open(self) -> None:
        if self._closed:
            raise BackendError("this detector is closed; open the model again")

    def __repr__(self) -> str:
        sizes = "any size" if self.spec.dynamic else " or ".join(f"{high}x{wide}" for high, wide in self.spec.sizes)
        around = "on the CPU" if self.pipeline is None else "in the GPU pipeline"
        return f"<Detector: {self.spec.name}, {self.spec.precision}, {sizes}, {self.backend.name}, the rest {around}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
