"""Checkpoints: ours, written and read here, and the published ones, which ``published`` reads.

Ours is one safetensors file whose header says which network it is and how to use it.

Safetensors holds plain arrays, so nothing in such a file can be executed. The header has two texts, both JSON:
``cornernet_config`` (the shape of the network) and ``cornernet_spec`` (class names, geometry, normalisation, decode).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from cornernet_export.model import CornerNet, CornerNetConfig
from cornernet_export.published import load_published
from cornernet_runtime.bundle.records import RecordError, from_json, to_json
from cornernet_runtime.bundle.spec import SCHEMA_VERSION, ModelSpec, check_schema, spec_from_text, spec_to_text
from cornernet_runtime.errors import CheckpointError, ModelError
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

CONFIG_KEY = "cornernet_config"
SPEC_KEY = "cornernet_spec"
SHOWN_DIFFERENCES = 10
_NOT_STORED = ".num_batches_tracked"  # counted by PyTorch's BN, used by nothing here


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network with its weights, in inference mode on the CPU, and what has to travel with it."""

    model: CornerNet
    spec: ModelSpec


def save_checkpoint(path: Path, model: CornerNet, spec: ModelSpec) -> None:
    """Write the checkpoint under a temporary name and rename it.

    Raises:
        OutputError: The file cannot be written.
    """
    config = json.dumps({"schema_version": SCHEMA_VERSION, "config": to_json(model.config)})
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in _stored(model).items()}
    write_atomically(path, _in_order(save(tensors, {CONFIG_KEY: config, SPEC_KEY: spec_to_text(spec)})))


def load_checkpoint(path: Path, *, arch: str | None = None, class_names: Sequence[str] | None = None) -> Checkpoint:
    """Read a checkpoint, ours or a published one, and check it wholly: what it says, every name, every shape.

    Args:
        path: A ``.safetensors`` file is ours; anything else is taken for a published one.
        arch: The architecture to expect; by default what the file shows.
        class_names: Names of the classes, in order, in place of the file's.

    Raises:
        CheckpointError: Missing, truncated, foreign, of a newer schema, of another architecture, its names and tensors
            disagree, or the class names are not as many as its classes, or not distinct.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise CheckpointError(f"{path}: {problem}; give the path of a checkpoint")
    ours = path.suffix == ".safetensors"
    config, spec, tensors = _read_ours(path) if ours else load_published(path, arch)
    if arch is not None and config.name != arch:
        raise CheckpointError(f"{path}: it is a {config.name}, not a {arch}; leave --arch away")
    if class_names is not None:
        spec = _rename_classes(spec, class_names, str(path))
    with torch.device("meta"):  # a header may ask for more memory than there is
        model = CornerNet(config)
    differences = compare_tensors(_stored(model), tensors)
    if differences:
        raise CheckpointError(_difference_table(f"{path}: its tensors are not those of a {config.name}", differences))
    model = CornerNet(config)
    model.load_state_dict(tensors, strict=False)
    return Checkpoint(model.eval(), spec)


def compare_tensors(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]
) -> list[tuple[str, str, str]]:
    """Return (name, expected, found) of each tensor that is missing, unexpected, or of another shape or type."""

    def describe(tensors: Mapping[str, torch.Tensor], name: str) -> str:
        if name not in tensors:
            return "-"
        return f"{str(tensors[name].dtype).removeprefix('torch.')} {list(tensors[name].shape)}"

    names = [*expected, *(name for name in found if name not in expected)]
    rows = [(name, describe(expected, name), describe(found, name)) for name in names]
    return [row for row in rows if row[1] != row[2]]


def _read_ours(path: Path) -> tuple[CornerNetConfig, ModelSpec, dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            config, spec = _read_header(file.metadata() or {}, str(path))
            return config, spec, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({error}); it may be truncated: fetch or train it again",
        ) from error


def _rename_classes(spec: ModelSpec, names: Sequence[str], source: str) -> ModelSpec:
    if len(names) != len(spec.class_names):
        raise CheckpointError(
            f"{source}: it has {len(spec.class_names)} classes, {len(names)} names were given with --classes"
        )
    try:
        return replace(spec, class_names=tuple(names))
    except RecordError as error:
        raise CheckpointError(f"{source}: {error}") from error


def _read_header(header: Mapping[str, str], source: str) -> tuple[CornerNetConfig, ModelSpec]:
    if CONFIG_KEY not in header or SPEC_KEY not in header:
        raise CheckpointError(
            f"{source}: a safetensors file, but not a cornernet-trt checkpoint: its header lacks "
            f"{CONFIG_KEY} and {SPEC_KEY}; cornernet-train writes them",
        )
    try:
        data = json.loads(header[CONFIG_KEY])
        check_schema(data, source, CheckpointError)
        config = from_json(CornerNetConfig, data.get("config"), "config")
        spec = spec_from_text(header[SPEC_KEY], source)
    except (RecursionError, ValueError) as error:
        raise CheckpointError(f"{source}: its header does not hold: {error}") from error
    except CheckpointError:
        raise
    except ModelError as error:
        raise CheckpointError(str(error)) from error
    said = (len(spec.class_names), spec.stride, spec.modulus)
    if said != (config.classes, config.stride, config.modulus):
        raise CheckpointError(
            f"{source}: header disagrees with itself: classes, stride, modulus are {said} in the spec, "
            f"{(config.classes, config.stride, config.modulus)} in the config",
        )
    return config, spec


def _in_order(data: bytes) -> bytes:
    """Sort the texts of the header, which safetensors writes in random order: equal networks make equal files."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + data[end:]


def _stored(model: CornerNet) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.endswith(_NOT_STORED)}


def _difference_table(title: str, differences: list[tuple[str, str, str]]) -> str:
    rows = [("tensor", "expected", "found"), *differences[:SHOWN_DIFFERENCES]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    more = len(differences) - SHOWN_DIFFERENCES
    tail = [f"... and {more} more"] if more > 0 else []
    return "\n".join([f"{title}; {len(differences)} places differ:", *lines, *tail])
