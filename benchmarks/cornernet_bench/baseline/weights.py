"""The network of the published pipeline: the weights of what it is compared with, or random ones of its shape."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from cornernet_bench.model_names import CHECKPOINTS
from cornernet_export.bundle_export import CHECKPOINT_NAME
from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.model import PRESETS, CornerNet, preset
from cornernet_runtime.bundle.manifest import read_manifest
from cornernet_runtime.errors import CheckpointError, CornerNetWarning
from cornernet_runtime.files import sha256

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_runtime.bundle.spec import ModelSpec


def published_weights(named: Path | None, model: Path, spec: ModelSpec) -> tuple[CornerNet, str]:
    """Return a network of a model's classes and stride, and where its weights come from.

    Args:
        named: A checkpoint to take, if one was named.
        model: What is measured: taken where it is a checkpoint, or a bundle that holds one.
        spec: Of the model. Without a checkpoint its architecture, by name, gets random weights.

    Warns with a ``CornerNetWarning`` of a named checkpoint that is not what a bundle was exported from.

    Raises:
        CheckpointError: The checkpoint cannot be used or has other classes, or there is none and the architecture has
            no name of ours.
    """
    own = model if model.suffix in CHECKPOINTS else model / CHECKPOINT_NAME
    path = named or (own if own.is_file() else None)
    origin = read_manifest(model, check_engine=False).checkpoint if model.is_dir() else None
    if path is None:
        exported = f", which was exported from {origin.name}," if origin else ""
        if spec.name not in PRESETS:
            raise CheckpointError(
                f"--baseline: {model}{exported} holds no weights for PyTorch, and {spec.name} is none of "
                f"{', '.join(PRESETS)}; name what it was exported from with --baseline-checkpoint FILE"
            )
        network = CornerNet(preset(spec.name, classes=len(spec.class_names)))
        not_own = f" (not those of {origin.name}, which it was exported from)" if origin else ""
        return network, f"random weights of {spec.name}{not_own}"
    checkpoint = load_checkpoint(path)
    found, expected = ((len(one.class_names), one.stride, one.modulus) for one in (checkpoint.spec, spec))
    if found != expected:
        raise CheckpointError(
            f"--baseline: classes, stride and modulus of {path} are {found}, those of {model} {expected}; name what it "
            "was exported from with --baseline-checkpoint FILE"
        )
    if named and origin and sha256(named) != origin.sha256:
        warnings.warn(
            f"{named} is not the {origin.name} that {model} was exported from: its weights are others",
            CornerNetWarning,
            stacklevel=2,
        )
    return checkpoint.model, str(path)
