"""The Python model of a Triton repository: frames to boxes by the Detector, around a network that Triton runs.

``cornernet-export --triton`` writes a ``model.py`` that names ``TritonModel``. Triton starts a process for each of its
instances, and only there the module ``triton_python_backend_utils`` exists.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from cornernet_runtime.bundle.manifest import MANIFEST_NAME
from cornernet_runtime.bundle.spec import spec_from_text
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError, CornerNetError, FrameError, ModelError
from cornernet_runtime.pictures import decode_picture
from cornernet_runtime.processing.maps import INPUT_NAME, OUTPUT_NAMES, CornerMaps, output_channels
from cornernet_runtime.processing.preprocess import check_frame

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import ModelSpec
    from cornernet_runtime.detections import Detections

FRAME, ENCODED = "frame", "encoded"
BOXES, SCORES, LABELS, COUNT = "boxes", "scores", "labels", "count"


class TritonModel:
    """What Triton's Python backend calls.

    A request holds pictures in one of two inputs: ``frame``, uint8 [N, H, W, 3], BGR, or ``encoded``, strings [N, 1],
    each a file of a picture. N is at most the model's largest batch. The response has, best first in each picture:

    - ``boxes``: float32 [N, K, 4], x1 y1 x2 y2 in pixels of the picture, within it.
    - ``scores``: float32 [N, K], 0 to 1, descending.
    - ``labels``: int64 [N, K], index into the class names.
    - ``count``: int32 [N, 1], how many of the K rows each picture has; the rows after them are zero.

    The configuration's ``parameters`` say which network to call and how: ``network``, ``network_batch_smallest``,
    ``network_batch_largest``, ``flip`` and ``scales``. ``bundle.json`` beside ``model.py`` says what the network is.
    """

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open the model; Triton calls it once an instance.

        Args:
            args: What Triton says of the model; ``model_config``, ``model_repository`` and ``model_version`` are used.

        Raises:
            ModelError: A parameter or ``bundle.json`` does not hold.
            SizeError: The scales are no distinct positive numbers.
        """
        self._utils = importlib.import_module("triton_python_backend_utils")
        source = Path(args["model_repository"]) / args["model_version"] / MANIFEST_NAME
        try:
            text = source.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{source}: cannot be read ({error}); write the repository again") from error
        spec = spec_from_text(text, str(source))
        parameters = _parameters(args["model_config"])
        smallest, largest = (_number(parameters, f"network_batch_{which}") for which in ("smallest", "largest"))
        network = TritonNetwork(self._utils, _given(parameters, "network"), spec, smallest, largest)
        self._detector = Detector(
            network, spec, flip=_flag(parameters, "flip"), scales=_scales(_given(parameters, "scales"))
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Detect in the pictures of several requests, in as few runs of the network as it can take.

        A request whose pictures cannot be used gets an error in place of boxes; the others are answered.
        """
        responses: list[Any] = [None] * len(requests)
        pictures: dict[int, list[NDArray[np.uint8]]] = {}
        for index, request in enumerate(requests):
            try:
                pictures[index] = self._pictures(request)
            except FrameError as error:
                responses[index] = self._refusal(error, self._utils.TritonError.INVALID_ARG)
        try:
            found = iter(self._detector.batch([picture for own in pictures.values() for picture in own]))
            for index, own in pictures.items():
                responses[index] = self._response([next(found) for _ in own])
        except CornerNetError as error:
            for index in pictures:
                responses[index] = self._refusal(error, self._utils.TritonError.INTERNAL)
        return responses

    def finalize(self) -> None:
        """Let go of the model; Triton calls it before the process ends."""
        self._detector.close()

    def _pictures(self, request: Any) -> list[NDArray[np.uint8]]:  # noqa: ANN401 - Triton publishes no types
        """Return the pictures of a request.

        Raises:
            FrameError: It has neither input, or both, or a picture that cannot be used.
        """
        frames, files = (self._utils.get_input_tensor_by_name(request, name) for name in (FRAME, ENCODED))
        if (frames is None) == (files is None):
            raise FrameError(
                f"expected one of the inputs {FRAME} and {ENCODED}, got {'none' if files is None else 'both'}"
            )
        if frames is not None:
            return [check_frame(frame) for frame in frames.as_numpy()]
        contents = files.as_numpy().reshape(-1)
        return [decode_picture(content, f"picture {number}") for number, content in enumerate(contents)]

    def _response(self, found: Sequence[Detections]) -> Any:  # noqa: ANN401
        most = max(map(len, found), default=0)
        boxes = np.zeros((len(found), most, 4), np.float32)
        scores = np.zeros((len(found), most), np.float32)
        labels = np.zeros((len(found), most), np.int64)
        for row, detections in enumerate(found):
            boxes[row, : len(detections)] = detections.boxes
            scores[row, : len(detections)] = detections.scores
            labels[row, : len(detections)] = detections.labels
        count = np.array([[len(detections)] for detections in found], np.int32)
        outputs = {BOXES: boxes, SCORES: scores, LABELS: labels, COUNT: count}
        return self._utils.InferenceResponse([self._utils.Tensor(name, array) for name, array in outputs.items()])

    def _refusal(self, error: CornerNetError, code: Any) -> Any:  # noqa: ANN401
        return self._utils.InferenceResponse([], self._utils.TritonError(str(error), code))


class TritonNetwork:
    """A network that another model of the same Triton runs.

    Args:
        utils: The module ``triton_python_backend_utils``.
        model: Name of the other model.
        spec: How to use it.
        smallest: Pictures of the smallest batch that it takes; fewer are filled up.
        largest: Pictures of the largest.
    """

    name = "triton"

    def __init__(self, utils: Any, model: str, spec: ModelSpec, smallest: int, largest: int) -> None:  # noqa: ANN401
        self._utils, self._model, self._spec, self._smallest = utils, model, spec, smallest
        self.max_batch = largest

    def __call__(self, images: NDArray[np.float32]) -> CornerMaps:
        """Have the network run on float32 [N, 3, H, W]; the maps are those of Triton, in memory of the CPU.

        Raises:
            BackendError: The other model fails or is not there.
            ModelError: It is another network.
        """
        count = len(images)
        if count < self._smallest:
            images = np.concatenate([images, np.zeros((self._smallest - count, *images.shape[1:]), np.float32)])
        utils = self._utils
        response = utils.InferenceRequest(
            model_name=self._model,
            requested_output_names=list(OUTPUT_NAMES),
            inputs=[utils.Tensor(INPUT_NAME, images)],
            preferred_memory=utils.PreferredMemory(utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise BackendError(f"the model {self._model} failed: {response.error().message()}")
        maps = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        rows, columns = ((side + 1) // self._spec.stride for side in images.shape[2:])
        for name, channels in output_channels(self._spec).items():
            expected = (len(images), channels, rows, columns)
            if maps[name].shape != expected:
                raise ModelError(
                    f"the model {self._model} is another network than {MANIFEST_NAME} says: {name} is "
                    f"{list(maps[name].shape)}, expected {list(expected)}; write the repository again"
                )
        return CornerMaps(**{name: maps[name][:count] for name in OUTPUT_NAMES})

    def clone(self) -> Self:
        """Return the same: nothing is kept from call to call."""
        return self

    def close(self) -> None:
        """Do nothing: the other model is Triton's."""


def _parameters(config: str) -> dict[str, str]:
    """Return the parameters in a model's configuration, which Triton hands over as JSON."""
    return {name: value["string_value"] for name, value in json.loads(config).get("parameters", {}).items()}


def _given(parameters: Mapping[str, str], name: str) -> str:
    if name not in parameters:
        raise ModelError(f"config.pbtxt: the parameter {name} is missing; write the repository again")
    return parameters[name]


def _number(parameters: Mapping[str, str], name: str) -> int:
    text = _given(parameters, name)
    if not text.isdecimal() or int(text) < 1:
        raise ModelError(f"config.pbtxt: parameter {name}: expected a number of 1 or more, got {text!r}")
    return int(text)


def _flag(parameters: Mapping[str, str], name: str) -> bool:
    text = _given(parameters, name)
    if text not in {"false", "true"}:
        raise ModelError(f"config.pbtxt: parameter {name}: expected true or false, got {text!r}")
    return text == "true"


def _scales(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ModelError(f"config.pbtxt: parameter scales: expected numbers such as 0.5,1,1.5, got {text!r}") from error
