"""What has to travel with the weights so that a picture becomes the right boxes.

The same record stands in a checkpoint's header, in the ONNX file's ``metadata_props`` and in ``bundle.json``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Literal

from cornernet_runtime.bundle.records import RecordError, from_json, to_json
from cornernet_runtime.errors import CornerNetError, ModelError, SizeError

SCHEMA_VERSION = 1

NmsMethod = Literal["gaussian", "linear", "hard"]
Precision = Literal["fp32", "fp16", "int8"]
Int8Target = Literal["cpu", "tensorrt"]
Geometry = Literal["fit", "native"]
Size = tuple[int, int]  # height, width
Batch = tuple[int, int, int]  # smallest, usual, largest


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How grey levels become network input: ``(level / 255 - mean) / std`` per channel.

    Attributes:
        channel_order: Order of the three channels in the input and in the three triples below.
        mean: Mean as a fraction of 255.
        std: Standard deviation as a fraction of 255, positive.
        pad: Grey levels (0 to 255) of the border around a picture, applied before normalising.
    """

    channel_order: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[float, float, float] = (0.40789654, 0.44719302, 0.47026115)
    std: tuple[float, float, float] = (0.28863828, 0.27408164, 0.27809835)
    pad: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not all(0 < value < math.inf for value in self.std):
            raise RecordError(f"normalisation.std: expected positive numbers, got {self.std}")
        if not all(map(math.isfinite, self.mean)):
            raise RecordError(f"normalisation.mean: expected finite numbers, got {self.mean}")
        if not all(0 <= value <= 255 for value in self.pad):
            raise RecordError(f"normalisation.pad: expected grey levels of 0 to 255, got {self.pad}")


@dataclass(frozen=True, slots=True)
class DecodeParameters:
    """How corner maps become candidates (cornernet_runtime.processing.decode).

    Attributes:
        top_k: Corners kept per kind, over all classes.
        candidates: Pairs kept, best first.
        embedding_distance: A pair is rejected when its embeddings differ by more.
        reject_empty: Also reject pairs of zero width or height (mmdetection); otherwise only negative ones.
    """

    top_k: int = 100
    candidates: int = 1000
    embedding_distance: float = 0.5
    reject_empty: bool = False

    def __post_init__(self) -> None:
        if min(self.top_k, self.candidates) < 1:
            raise RecordError(f"decode: expected top_k and candidates of at least 1, got {self}")
        if self.embedding_distance < 0:
            raise RecordError(f"decode: expected an embedding_distance of at least 0, got {self.embedding_distance}")


@dataclass(frozen=True, slots=True)
class NmsParameters:
    """How candidates become detections (cornernet_runtime.processing.nms).

    Attributes:
        method: Gaussian or linear decay of overlapping scores, or their removal.
        sigma: Gaussian decay is ``exp(-iou**2 / sigma)``.
        iou_threshold: Linear decay and removal act on overlaps above it.
        score_floor: A candidate whose score falls below it is dropped; positive.
        pixel_extent: Added to width and height in IoU: 1 in the original (a box covers whole pixels), 0 in mmdetection.
        max_detections: Detections kept per picture.
        merge_exponent: How sharply merging, used with several scales, prefers boxes that coincide.
    """

    method: NmsMethod = "gaussian"
    sigma: float = 0.5
    iou_threshold: float = 0.5
    score_floor: float = 0.001
    pixel_extent: float = 1.0
    max_detections: int = 100
    merge_exponent: float = 10.0

    def __post_init__(self) -> None:
        if min(self.sigma, self.score_floor) <= 0 or self.max_detections < 1:
            raise RecordError(f"nms: expected sigma and score_floor > 0, max_detections >= 1, got {self}")
        if min(self.iou_threshold, self.pixel_extent, self.merge_exponent) < 0 or self.iou_threshold > 1:
            raise RecordError(
                f"nms: expected iou_threshold of 0 to 1, pixel_extent and merge_exponent >= 0, got {self}"
            )


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything about a model that its graph does not say.

    Attributes:
        name: Architecture, for people.
        class_names: One name a heat channel, in order, distinct.
        stride: Input pixels a cell of the corner maps.
        modulus: A side of the input must be one less than a multiple of it.
        input_size: Height and width of the network input, pixels; the first of several, the usual one where any goes.
        largest_size: Largest height and width that the file accepts; corner pooling is silently wrong beyond.
        other_sizes: Further sizes that the file accepts.
        dynamic: Whether the file accepts every size of the modulus up to the largest, and every batch.
        batch: Smallest, usual and largest batch; an engine is tuned for the usual one.
        geometry: How a frame becomes input. ``fit``: scaled into the input, aspect kept, centred. ``native``: at its
            own resolution, centred in the next size of the modulus, as in the original's test code; needs ``dynamic``.
        normalisation: Grey levels to input.
        decode: Corner maps to candidates.
        nms: Candidates to detections.
        precision: Of the weights and activations inside; inputs and outputs are always float32.
        int8_target: Whom an int8 model was quantised for, a CPU or TensorRT; None for other precisions.
    """

    name: str
    class_names: tuple[str, ...]
    stride: int
    modulus: int
    input_size: Size
    largest_size: Size
    other_sizes: tuple[Size, ...] = ()
    dynamic: bool = False
    batch: Batch = (1, 1, 1)
    geometry: Geometry = "fit"
    normalisation: Normalisation = field(default_factory=Normalisation)
    decode: DecodeParameters = field(default_factory=DecodeParameters)
    nms: NmsParameters = field(default_factory=NmsParameters)
    precision: Precision = "fp32"
    int8_target: Int8Target | None = None

    def __post_init__(self) -> None:
        names = self.class_names
        if not names or len(set(names)) != len(names) or not all(names):
            raise RecordError(f"class_names: expected distinct, non-empty names, got {list(names)}")
        if self.stride < 1 or self.modulus < self.stride or self.modulus % self.stride:
            raise RecordError(
                f"modulus: expected a multiple of the stride {self.stride}, got {self.modulus}",
            )
        for size in (self.largest_size, *self.sizes):
            for side, largest in zip(size, self.largest_size, strict=True):
                check_side(side, self.modulus)
                if side > largest:
                    name = "input_size" if size == self.input_size else "other_sizes"
                    raise RecordError(f"{name}: expected at most {self.largest_size}, got {size}")
        if len(set(self.sizes)) < len(self.sizes):
            raise RecordError(f"other_sizes: expected distinct sizes, got {self.sizes}")
        smallest, usual, most = self.batch
        if not 1 <= smallest <= usual <= most:
            raise RecordError(f"batch: expected 1 <= smallest <= usual <= largest, got {self.batch}")
        if self.geometry == "native" and not self.dynamic:
            raise RecordError("geometry: native needs a model that is dynamic")

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The input sizes by name: all that the file accepts, unless it is dynamic."""
        return (self.input_size, *self.other_sizes)

    @property
    def map_size(self) -> Size:
        """Height and width of the corner maps at ``input_size``, cells."""
        height, width = self.input_size
        return (height + 1) // self.stride, (width + 1) // self.stride

    @property
    def fixed(self) -> bool:
        """Whether ``input_size`` is the only size that the file accepts."""
        return not self.dynamic and not self.other_sizes

    @property
    def free_batch(self) -> bool:
        """Whether the file accepts several batches; one of a fixed batch accepts one picture."""
        return self.dynamic or self.batch != (1, 1, 1)

    def check_input_size(self, size: Size) -> None:
        """Raise SizeError unless the model computes this height and width correctly."""
        height, width = size
        if not self.dynamic:
            if size not in self.sizes:
                accepted = ", ".join(f"{height}x{width}" for height, width in self.sizes)
                raise SizeError(f"input size {height}x{width}: this model was exported for {accepted}")
            return
        for side, largest in zip(size, self.largest_size, strict=True):
            check_side(side, self.modulus)
            if side > largest:
                raise SizeError(
                    f"input size {height}x{width}: this model was exported for at most "
                    f"{self.largest_size[0]}x{self.largest_size[1]}; export it again with a larger --size",
                )


def check_side(side: int, modulus: int) -> None:
    """Raise SizeError unless ``side`` is one less than a positive multiple of ``modulus``."""
    if side > 0 and side % modulus == modulus - 1:
        return
    below = (max(side, 0) + 1) // modulus * modulus - 1
    valid = [near for near in (below, below + modulus) if near > 0]
    raise SizeError(
        f"input side {side}: this network needs one less than a multiple of {modulus}; "
        f"nearest valid: {' and '.join(map(str, valid))}",
    )


def spec_to_text(spec: ModelSpec) -> str:
    """Return the spec with its schema version as one JSON text, for ONNX metadata and checkpoint headers."""
    return json.dumps({"schema_version": SCHEMA_VERSION, "spec": to_json(spec)})


def spec_from_text(text: str, source: str) -> ModelSpec:
    """Read what ``spec_to_text`` wrote; ``source`` names the file in errors.

    Raises:
        ModelError: Not JSON, of a newer schema, or with a field that does not hold.
    """
    try:
        data = json.loads(text)
    except (RecursionError, ValueError) as error:
        raise ModelError(f"{source}: its metadata is not JSON ({error}); export the model again") from error
    check_schema(data, source, ModelError)
    try:
        return from_json(ModelSpec, data.get("spec"), "spec")
    except (RecordError, SizeError) as error:
        raise ModelError(f"{source}: its metadata does not hold: {error}; export the model again") from error


def check_schema(data: object, source: str, error: type[CornerNetError]) -> None:
    """Raise ``error`` unless the parsed JSON object carries a schema version that this code reads."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise error(f"{source}: expected a schema_version of 1 to {SCHEMA_VERSION}, got {version!r}")
    if version > SCHEMA_VERSION:
        raise error(
            f"{source}: written with schema {version}, this version reads up to {SCHEMA_VERSION}; "
            "update your checkout of cornernet-trt",
        )
