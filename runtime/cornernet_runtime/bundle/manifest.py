"""A bundle: a folder of standard files, and a side-car ``bundle.json`` that says what they are and how to use them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cornernet_runtime.bundle.engine_record import EngineRecord  # noqa: TC001 - its fields are read from JSON
from cornernet_runtime.bundle.records import RecordError, from_json, to_json
from cornernet_runtime.bundle.spec import SCHEMA_VERSION, ModelSpec, check_schema
from cornernet_runtime.errors import BundleError, SizeError
from cornernet_runtime.files import sha256, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_NAME = "bundle.json"
ONNX_NAME = "model.onnx"
ENGINE_NAME = "model.engine"


@dataclass(frozen=True, slots=True)
class OutputCheck:
    """One output tensor held against the same output one stage before.

    Attributes:
        stage: Which two forms were compared, as ``reference -> candidate``.
        source: What they were run on: ``picture`` or ``noise``.
        output: Name of the tensor.
        error: Largest absolute difference over the largest absolute value of the reference.
        tolerance: Largest error allowed.
    """

    stage: str
    source: str
    output: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


@dataclass(frozen=True, slots=True)
class DetectionCheck:
    """The detections of one input, or of several, compared with those of the stage before.

    Attributes:
        stage: Which two forms were compared, as ``reference -> candidate``.
        source: What they were run on.
        reference: Detections of the reference above the score that counts.
        matched: Of those, how many have a counterpart of the same class, nearly the same box and score.
        extra: Detections above that score without a counterpart in the reference, near ties not counted.
        required: Part of ``reference`` that must match or be a near tie; as many may be extra as may be missed.
        near_ties: Detections of the reference without a counterpart that rounding explains: a decision of decode or
            suppression fell the other way, on values closer together than the two forms' outputs.
        extra_near_ties: Detections without a counterpart in the reference that rounding explains.
    """

    stage: str
    source: str
    reference: int
    matched: int
    extra: int
    required: float
    near_ties: int = 0
    extra_near_ties: int = 0

    def __add__(self, other: DetectionCheck) -> DetectionCheck:
        """Return the counts of both, under the names and the requirement of this one."""
        counts = ("reference", "matched", "extra", "near_ties", "extra_near_ties")
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in counts})

    @property
    def passed(self) -> bool:
        """Whether enough matched and few enough are extra."""
        allowed = math.floor(self.reference * (1 - self.required) + 1e-9)  # 10 * (1 - 0.9) is a little below 1
        return self.reference - self.matched - self.near_ties <= allowed and self.extra <= allowed


@dataclass(frozen=True, slots=True)
class Verification:
    """What export compared, kept in the bundle.

    Attributes:
        outputs: Each output tensor of each stage.
        detections: All detections of each stage.
        problems: What is wrong with the model itself, in words.
    """

    outputs: tuple[OutputCheck, ...] = ()
    detections: tuple[DetectionCheck, ...] = ()
    problems: tuple[str, ...] = ()

    def __add__(self, other: Verification) -> Verification:
        """Return the checks of both, these first."""
        return Verification(
            self.outputs + other.outputs, self.detections + other.detections, self.problems + other.problems
        )

    @property
    def passed(self) -> bool:
        """Whether every check passed and there is no problem."""
        checked = all(check.passed for check in self.outputs) and all(check.passed for check in self.detections)
        return checked and not self.problems


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """What a bundle was exported from.

    Attributes:
        name: Of the file, without folders.
        sha256: Of its content.
    """

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Content of ``bundle.json`` below its schema version.

    Attributes:
        producer: Distribution and version that wrote the bundle.
        spec: How to use the model.
        files: SHA-256 of each file of the bundle, by name.
        verification: What was compared when it was made.
        engine: Where ``model.engine`` can run; None when the bundle has none.
        checkpoint: What it was exported from; None where that is not known.
    """

    producer: str
    spec: ModelSpec
    files: dict[str, str]
    verification: Verification
    engine: EngineRecord | None = None
    checkpoint: CheckpointFile | None = None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``bundle.json``; it comes last, so that a folder that has one is whole."""
    content = {"schema_version": SCHEMA_VERSION, **to_json(manifest)}
    write_atomically(folder / MANIFEST_NAME, json.dumps(content, indent=2) + "\n")


def read_manifest(folder: Path, *, check_engine: bool = True) -> Manifest:
    """Read ``bundle.json`` and check that the files it lists are there and unchanged.

    Args:
        folder: The bundle.
        check_engine: Whether the engine is among these files; whoever does not use it need not mind it.

    Raises:
        BundleError: No bundle, a newer schema, a field that does not hold, a missing or changed file.
    """
    path = folder / MANIFEST_NAME
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: no {MANIFEST_NAME} in it; cornernet-export makes bundles") from error
    except (OSError, RecursionError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read ({error}); export the bundle again") from error
    check_schema(data, str(path), BundleError)
    try:
        manifest = from_json(Manifest, {key: data[key] for key in data if key != "schema_version"})
    except (RecordError, SizeError) as error:
        raise BundleError(f"{path}: {error}; export the bundle again") from error
    if ONNX_NAME not in manifest.files:
        raise BundleError(f"{path}: it lists no {ONNX_NAME}; export the bundle again")
    if (manifest.engine is None) != (ENGINE_NAME not in manifest.files):
        raise BundleError(f"{path}: expected {ENGINE_NAME} and its record, or neither; export the bundle again")
    for name, digest in manifest.files.items():
        if name != ENGINE_NAME:
            _check_file(folder, name, digest, "export the bundle again")
        elif check_engine:
            _check_file(folder, name, digest, f"build it again: cornernet-export {folder} --engine")
    return manifest


def _check_file(folder: Path, name: str, digest: str, repair: str) -> None:
    path = folder / name
    if path.parent != folder or not path.is_file():
        raise BundleError(f"{folder}: {MANIFEST_NAME} lists {name}, which is not there; {repair}")
    try:
        found = sha256(path)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    if found != digest:
        raise BundleError(
            f"{path}: its hash is not the one in {MANIFEST_NAME}: the file was changed after export; {repair}",
        )
