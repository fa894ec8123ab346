"""The two ``config.pbtxt`` of a Triton repository: what a bundle's models take, give and run on.

The fields are those of Triton's ``model_config.proto``, written as protobuf text by hand: the tests read them with
Triton's own definition, so nothing of Triton is needed to write them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cornernet_runtime.backends.onnx_file import MAX_BATCH
from cornernet_runtime.processing.maps import INPUT_NAME, output_channels
from cornernet_runtime.triton import BOXES, COUNT, ENCODED, FRAME, LABELS, SCORES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cornernet_runtime.bundle.engine_record import EngineRecord
    from cornernet_runtime.bundle.manifest import Manifest
    from cornernet_runtime.bundle.spec import ModelSpec

    Value = str | int | bool | Sequence[int] | Sequence[str] | Mapping[str, "Value"] | Sequence[Mapping[str, "Value"]]

FREE = -1  # a side that may be any
FRONT_INSTANCES = 2  # while one prepares and decodes, the network works for the other
# For a batch to fill up: a GPU takes several pictures at nearly the cost of one. A CPU does not, so there none waits.
BATCH_WAIT_US = 2000


class Word(str):
    """A value that protobuf text has without quotes: the name of an enumeration's member."""

    __slots__ = ()


def network_config(name: str, manifest: Manifest) -> str:
    """Return the configuration of the network, which Triton runs by itself from the engine, else from the ONNX file.

    Input and outputs are those of the ONNX file (docs/onnx.md). Where it takes several batches, their dimension is
    Triton's own, else the first one of each shape.

    Args:
        name: Of the model in the repository.
        manifest: Of the bundle; an engine in it is used.
    """
    spec, engine = manifest.spec, manifest.engine
    batch = largest_batch(manifest) if spec.free_batch else 0
    rows, columns = spec.map_size if spec.fixed else (FREE, FREE)
    sides = spec.input_size if spec.fixed else (FREE, FREE)
    first = () if batch else (1,)
    config: dict[str, Value] = {
        "name": name,
        "backend": "onnxruntime" if engine is None else "tensorrt",
        "max_batch_size": batch,
        "input": [_tensor(INPUT_NAME, "TYPE_FP32", (*first, 3, *sides))],
        "output": [
            _tensor(output, "TYPE_FP32", (*first, channels, rows, columns))
            for output, channels in output_channels(spec).items()
        ],
        "instance_group": [_group(engine)],
    }
    if batch > 1:
        config["dynamic_batching"] = _batching(spec, engine)
    return to_text(config)


def front_config(name: str, network: str, manifest: Manifest) -> str:
    """Return the configuration of the model that clients call: ``cornernet_runtime.triton.TritonModel``.

    Args:
        name: Of the model in the repository.
        network: Name of the network's model.
        manifest: Of the bundle.
    """
    spec, batch = manifest.spec, largest_batch(manifest)
    parameters = {
        "network": network,
        "network_batch_smallest": str(smallest_batch(manifest)),
        "network_batch_largest": str(batch),
        "flip": "false",
        "scales": "1",
        "class_names": json.dumps(list(spec.class_names), ensure_ascii=False),  # for clients
    }
    config: dict[str, Value] = {
        "name": name,
        "backend": "python",
        "max_batch_size": batch,
        "input": [
            # Ragged: frames of several sizes go into one call, for the Python backend hands them over one by one.
            {**_tensor(FRAME, "TYPE_UINT8", (FREE, FREE, 3)), "optional": True, "allow_ragged_batch": True},
            {**_tensor(ENCODED, "TYPE_STRING", (1,)), "optional": True},
        ],
        "output": [
            _tensor(BOXES, "TYPE_FP32", (FREE, 4)),
            _tensor(SCORES, "TYPE_FP32", (FREE,)),
            _tensor(LABELS, "TYPE_INT64", (FREE,)),
            _tensor(COUNT, "TYPE_INT32", (1,)),
        ],
        "instance_group": [{"kind": Word("KIND_CPU"), "count": FRONT_INSTANCES}],
        "parameters": [{"key": key, "value": {"string_value": value}} for key, value in parameters.items()],
    }
    if batch > 1:
        config["dynamic_batching"] = {} if manifest.engine is None else {"max_queue_delay_microseconds": BATCH_WAIT_US}
    return to_text(config)


def largest_batch(manifest: Manifest) -> int:
    """Return the most pictures of one run of the network."""
    spec, engine = manifest.spec, manifest.engine
    if engine is not None:
        return max(profile.maximum[0] for profile in engine.profiles)
    return max(spec.batch[2], MAX_BATCH * spec.dynamic)


def smallest_batch(manifest: Manifest) -> int:
    """Return the fewest pictures of one run of the network: an ONNX file takes one, an engine what it was built for."""
    engine = manifest.engine
    return 1 if engine is None else max(profile.minimum[0] for profile in engine.profiles)


def to_text(message: Mapping[str, Value], indent: str = "") -> str:
    """Return a message as protobuf text, one field a line; a list of messages repeats its field."""
    lines = []
    for name, value in message.items():
        repeated = isinstance(value, list) and value and isinstance(value[0], dict)
        for item in value if repeated else [value]:  # type: ignore[union-attr] # a list, as the line before says
            if isinstance(item, dict):
                inside = to_text(item, f"{indent}  ")
                lines.append(f"{indent}{name} {{\n{inside}{indent}}}\n" if item else f"{indent}{name} {{ }}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(item)}\n")
    return "".join(lines)


def _scalar(value: object) -> str:
    if isinstance(value, Word):
        return value
    # JSON's way to write strings, numbers, booleans and lists of them is one of protobuf text's.
    return json.dumps(value, ensure_ascii=False)


def _tensor(name: str, kind: str, dims: Sequence[int]) -> dict[str, Value]:
    return {"name": name, "data_type": Word(kind), "dims": list(dims)}


def _group(engine: EngineRecord | None) -> dict[str, Value]:
    if engine is None:  # the ONNX file was verified on the CPU
        return {"kind": Word("KIND_CPU"), "count": 1}
    # Triton uses the first profile only, unless told of the others.
    profiles = [str(number) for number in range(len(engine.profiles))]
    return {"kind": Word("KIND_GPU"), "count": 1, **({"profile": profiles} if len(profiles) > 1 else {})}


def _batching(spec: ModelSpec, engine: EngineRecord | None) -> dict[str, Value]:
    usual = spec.batch[1]
    return {} if engine is None or usual == 1 else {"preferred_batch_size": [usual]}
