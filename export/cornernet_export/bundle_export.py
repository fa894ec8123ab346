"""From a checkpoint to a verified bundle, as one function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx

from cornernet_export.checkpoint import load_checkpoint
from cornernet_export.onnx_graph import build_onnx
from cornernet_export.torch_backend import TorchBackend
from cornernet_export.verify import verify
from cornernet_runtime.bundle import ONNX_NAME, Manifest, Verification, write_manifest
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import OutputError, VerificationError
from cornernet_runtime.files import new_folder, sha256
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EXTERNAL_DATA_LIMIT = 1_800_000_000  # bytes; protobuf ends at 2 GiB


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        checkpoint: The trained network.
        output: Folder to make.
        size: Height and width of the input, pixels; None takes the size that the checkpoint names.
        force: Whether an existing output folder is replaced.
    """

    checkpoint: Path
    output: Path
    size: tuple[int, int] | None = None
    force: bool = False


def _say_nothing(_: object) -> None:
    pass


def export_bundle(
    request: ExportRequest,
    on_stage: Callable[[str], None] = _say_nothing,
    on_verified: Callable[[Verification], None] = _say_nothing,
) -> Manifest:
    """Export, verify, and write the bundle; the folder appears only when all of it holds.

    Args:
        request: What to do.
        on_stage: Told the name of each stage as it begins.
        on_verified: Told what was compared, before a failure is raised.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        SizeError: The size is off the network's modulus.
        OutputError: The folder exists and ``force`` is off, or it cannot be written.
        VerificationError: The export differs from the checkpoint by more than the tolerance.
    """
    with new_folder(request.output, replace=request.force) as folder:
        on_stage("loading the checkpoint")
        checkpoint = load_checkpoint(request.checkpoint)
        size = request.size or checkpoint.spec.input_size
        spec = replace(checkpoint.spec, input_size=size, largest_size=size)
        on_stage("exporting to ONNX")
        _save(build_onnx(checkpoint.model, spec), folder / ONNX_NAME)
        on_stage("verifying ONNX Runtime against PyTorch")
        reference = Detector(TorchBackend(checkpoint.model), spec)
        with Detector.open(folder / ONNX_NAME) as exported:
            verification = verify(reference, exported, "PyTorch -> ONNX Runtime")
        on_verified(verification)
        if not verification.passed:
            raise VerificationError(
                f"{request.checkpoint}: the export differs from the checkpoint by more than the tolerance; "
                "nothing was written",
            )
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        manifest = Manifest(f"cornernet-trt {__version__}", spec, files, verification)
        write_manifest(folder, manifest)
    return manifest


def _save(model: onnx.ModelProto, path: Path) -> None:
    # Not ByteSize(): it serialises, which copies every weight and fails where protobuf does.
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EXTERNAL_DATA_LIMIT
    try:
        onnx.save_model(model, path, save_as_external_data=external, location=f"{path.name}.data")
    except OSError as error:
        raise OutputError(f"cannot write {path.name}: {error.strerror or error}") from error
