"""What runs in each replica: pictures are decoded as they come, and detected in in batches."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_runtime.cluster.model import check_identity
from cornernet_runtime.detector import Detector
from cornernet_runtime.draw import draw_detections
from cornernet_runtime.errors import CornerNetError, FrameError, ModelError
from cornernet_runtime.json_lines import json_objects
from cornernet_runtime.pictures import decode_picture
from cornernet_runtime.serve.messages import Answer, ModelInfo, Question

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from numpy.typing import NDArray

    from cornernet_runtime.detections import Detections
    from cornernet_runtime.serve.options import ModelOptions

    Frame = NDArray[np.uint8]

_JPEG_QUALITY = 90
_TELL_S = 3.0  # for which a replica without its model counts as healthy, so that a start can learn why


class DetectorReplica:
    """A detector and the two threads in front of it: one decodes and draws, one detects.

    A model that cannot be opened leaves a replica that says why, so that a service which starts can end with that; to
    Serve it is not healthy soon afterwards, and is replaced. A later one fails, and Serve tries again and again.

    Args:
        options: The model, and how it is run here.

    Raises:
        CornerNetError: The model cannot be opened, and the service has started before.
    """

    def __init__(self, options: ModelOptions) -> None:
        from ray import serve  # noqa: PLC0415 - an extra

        self._detector: Detector | None = None
        self._info = ModelInfo()
        try:
            self._open(options)
        except CornerNetError as error:
            if _is_a_later_one():
                raise
            self._info = ModelInfo(problem=str(error))
            logging.getLogger("ray.serve").warning("the model cannot be opened: %s", error)
        self._told, self._opened_s = False, time.monotonic()
        self._pictures = ThreadPoolExecutor(1, "pictures")
        self._network = ThreadPoolExecutor(1, "network")  # a detector serves one thread at a time

        # Serve closes a batch after its time, whether the one before is done or not, and would let many small ones
        # wait for each other. So pictures that come while a batch is at work enter the next together, at its end.
        self._idle = asyncio.Event()
        self._idle.set()

        async def run(frames: list[Frame]) -> list[tuple[Detections | str, int, bool, float]]:
            self._idle.clear()
            try:
                return await asyncio.get_running_loop().run_in_executor(self._network, self._detect, frames)
            finally:
                self._idle.set()

        self._batched: Callable[[Frame], Awaitable[tuple[Detections | str, int, bool, float]]] = serve.batch(
            max_batch_size=options.batch, batch_wait_timeout_s=options.batch_wait_s
        )(run)

    def _open(self, options: ModelOptions) -> None:
        if options.sha256 is not None:
            check_identity(options.path, options.sha256)
        detector = Detector.open(
            options.path, options.backend, flip=options.flip, scales=options.scales, threads=options.threads
        )
        height, width = detector.spec.input_size
        detector.batch([np.zeros((height, width, 3), np.uint8)] * options.batch)  # buffers are made by the first call
        self._detector = detector
        self._info = ModelInfo(detector.spec.name, detector.class_names, repr(detector))

    async def info(self) -> ModelInfo:
        """Return what was opened."""
        self._told = True
        return self._info

    async def check_health(self) -> None:
        """Have Serve replace this replica where it could not open its model, once a start could learn why.

        Raises:
            ModelError: It could not, and has said so or lived for a while: a start asks one replica, at once.
        """
        if self._info.problem and (self._told or time.monotonic() - self._opened_s > _TELL_S):
            raise ModelError(self._info.problem)

    async def process_id(self) -> int:
        """Return the id of this process, for tests and measurements."""
        return os.getpid()

    async def detect(self, question: Question) -> Answer:
        """Return the response to one picture, detected in together with those of other calls."""
        if self._detector is None:  # its path, which is in the problem, is nothing for a client
            return Answer(None, "a replica could not open the model; its log says why", fault=True)
        loop, start = asyncio.get_running_loop(), time.perf_counter()
        try:
            frame = await loop.run_in_executor(self._pictures, decode_picture, question.picture, "the picture")
        except FrameError:
            return Answer(None, "the picture cannot be decoded; it may be damaged or cut off")
        decode_s = time.perf_counter() - start
        await self._idle.wait()
        found, batch, first, detect_s = await self._batched(frame)
        if isinstance(found, str):
            return Answer(None, found, False, batch, first, decode_s, detect_s)
        found = found.above(question.score)
        if question.draw:
            content = await loop.run_in_executor(self._pictures, _drawn, frame, found)
            if content is None:
                height, width = frame.shape[:2]
                problem = f"a picture of {width}x{height} pixels cannot be drawn on: JPEG ends at 65500"
                return Answer(None, problem, False, batch, first, decode_s, detect_s)
        else:
            content = self._json(frame, found)
        return Answer(content, "", False, batch, first, decode_s, detect_s)

    def _detect(self, frames: Sequence[Frame]) -> list[tuple[Detections | str, int, bool, float]]:
        """Return for each frame detections or why there are none, how many frames, if it is the first, and seconds."""
        start = time.perf_counter()
        found = self._detections(frames)
        seconds = time.perf_counter() - start
        return [(one, len(frames), number == 0, seconds) for number, one in enumerate(found)]

    def _detections(self, frames: Sequence[Frame]) -> list[Detections | str]:
        assert self._detector is not None  # noqa: S101 - ``detect`` has seen to it
        try:
            return list(self._detector.batch(frames))
        except FrameError as error:
            if len(frames) == 1:
                return [str(error)]
            return [one for frame in frames for one in self._detections([frame])]  # the others are not to suffer

    def _json(self, frame: Frame, found: Detections) -> bytes:
        height, width = frame.shape[:2]
        content = {"model": self._info.name, "width": width, "height": height, "detections": json_objects(found)}
        return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _is_a_later_one() -> bool:
    """Say whether this replica takes the place of one, the service having started before."""
    from ray import serve  # noqa: PLC0415 - an extra
    from ray.serve.exceptions import RayServeException  # noqa: PLC0415 - the same

    try:
        context = serve.get_replica_context()
    except RayServeException:  # no replica of Serve's
        return False
    application = serve.status().applications[context.app_name]
    return application.deployments[context.deployment].status_trigger.value != "CONFIG_UPDATE_STARTED"


def _drawn(frame: Frame, found: Detections) -> bytes | None:
    """Return the annotated picture, or None for one that is too large for JPEG."""
    done, encoded = cv2.imencode(".jpg", draw_detections(frame, found), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return encoded.tobytes() if done else None
