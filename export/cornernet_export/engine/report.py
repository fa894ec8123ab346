"""What an engine is made of, by TensorRT's own inspector: the proof that it computes in the precision asked for."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cornernet_runtime.bundle.spec import Precision

# As the inspector of TensorRT 10 and 11 names types; the words stand in a description such as
# "Channel major FP16 format where channel % 8 == 0".
_TYPES = {
    "FP32": r"FP32|FLOAT32|FLOAT",
    "FP16": r"FP16|FLOAT16|HALF",
    "BF16": r"BF16|BFLOAT16",
    "FP8": r"FP8",
    "INT8": r"INT8",
    "INT32": r"INT32",
    "INT64": r"INT64",
    "BOOL": r"BOOL",
}
_FLOATS = ("FP32", "FP16", "BF16", "FP8", "INT8")  # what carries the network's values


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The layers of an engine, of all profiles together.

    Attributes:
        layers: How many there are.
        plugin_layers: How many a plugin computes.
        reformat_layers: How many only bring a tensor into another layout.
        precisions: How many layer outputs are of each type.
    """

    layers: int
    plugin_layers: int
    reformat_layers: int
    precisions: dict[str, int]


def read_report(texts: Iterable[str]) -> LayerReport:
    """Read what the inspector says of each profile, as JSON.

    Layers stand under ``Layers`` in all versions; tensors of the whole engine, under ``Bindings`` in TensorRT 10 and
    ``I/O Tensors`` in 11, are not needed.

    Raises:
        EngineError: It is not what an inspector says of an engine that was built with all details.
    """
    layers: list[Mapping[str, Any]] = []
    for text in texts:
        try:
            found = json.loads(text)["Layers"]
        except (KeyError, TypeError, ValueError) as error:
            raise EngineError(f"TensorRT's inspector answers in an unknown form: {text[:80]!r}") from error
        if not isinstance(found, list) or not all(isinstance(layer, dict) for layer in found):
            raise EngineError("TensorRT's inspector tells names of layers only, so their precision cannot be shown")
        layers += found
    kinds = [str(layer.get("LayerType", "")) for layer in layers]
    outputs = [tensor for layer in layers for tensor in layer.get("Outputs", ())]
    return LayerReport(
        layers=len(layers),
        plugin_layers=sum(kind.lower().startswith("plugin") for kind in kinds),
        reformat_layers=sum(kind.lower().startswith("reformat") for kind in kinds),
        precisions=dict(sorted(Counter(map(_type_of, outputs)).items())),
    )


def check_precision(report: LayerReport, precision: Precision) -> None:
    """Raise EngineError unless an engine computes in the precision that its ONNX file says.

    A graph in float16 or int8 keeps float32 in places; one in float32 has nothing else.
    """
    counts = {name: count for name, count in report.precisions.items() if name in _FLOATS}
    wanted = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}[precision]
    have, total = counts.get(wanted, 0), sum(counts.values())
    if have == 0 or (precision == "fp32" and have < total):
        found = ", ".join(f"{count} {name}" for name, count in report.precisions.items()) or "none"
        raise EngineError(f"the engine was to compute in {precision}, but the outputs of its layers are: {found}")


def _type_of(tensor: Any) -> str:  # noqa: ANN401 - parsed JSON
    """Return the type of a tensor of the inspector, ``UNKNOWN`` where it does not tell."""
    if not isinstance(tensor, dict):
        return "UNKNOWN"
    text = " ".join(str(value) for key, value in tensor.items() if "format" in key.lower() or "type" in key.lower())
    for name, pattern in _TYPES.items():
        if re.search(rf"\b({pattern})\b", text, re.IGNORECASE):
            return name
    return "UNKNOWN"
