"""What a model is without running it: how to use it, and a hash by which all machines know that theirs is the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.bundle.manifest import ENGINE_NAME, read_manifest
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BundleError, ClusterError
from cornernet_runtime.files import sha256

if TYPE_CHECKING:
    from cornernet_runtime.bundle.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model as a run knows it.

    Attributes:
        spec: How to use it.
        sha256: Of what decides the results: the spec and the files of the bundle, or the ``.onnx`` file. An engine is
            left out, for each kind of GPU has its own.
    """

    spec: ModelSpec
    sha256: str


def identify(path: str) -> ModelIdentity:
    """Read what a bundle folder or an ``.onnx`` file says of itself.

    Raises:
        BundleError: It is neither, or the bundle is broken or newer than this version.
        ModelError: The ``.onnx`` file cannot be loaded, or is not a CornerNet of ours.
    """
    model = Path(path)
    if model.suffix == ".onnx" and model.is_file():
        with Detector.open(model, "onnxruntime", threads=1) as detector:
            spec = detector.spec
        beside = model.with_name(f"{model.name}.data")  # large weights
        return ModelIdentity(spec, "".join(sha256(file) for file in (model, beside) if file.exists()))
    if not model.is_dir():
        raise BundleError(f"{path} is no bundle folder or .onnx file; cornernet-export makes bundles from checkpoints")
    manifest = read_manifest(model, check_engine=False)
    files = {name: digest for name, digest in sorted(manifest.files.items()) if name != ENGINE_NAME}
    content = json.dumps([to_json(manifest.spec), files], sort_keys=True)
    return ModelIdentity(manifest.spec, hashlib.sha256(content.encode()).hexdigest())


def check_identity(path: str, sha256: str) -> None:
    """Raise ClusterError unless the model here is that of the machine of the command, whose hash is given.

    Raises:
        ClusterError: It is another one.
        CornerNetError: As for ``identify``.
    """
    found = identify(path).sha256
    if found != sha256:
        raise ClusterError(
            f"{path} is another model here (SHA-256 {found[:12]}...) than on the machine of this command "
            f"({sha256[:12]}...); copy the same bundle to every machine, or keep it on a shared disk"
        )
