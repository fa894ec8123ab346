"""From a checkpoint to a verified bundle, as one function."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx

from cornernet_export.checkpoint import load_checkpoint, save_checkpoint
from cornernet_export.half_range import check_half_range, largest_activations
from cornernet_export.model.rewrite import cut_stacks, fold_batch_norms, to_half
from cornernet_export.onnx_graph import build_onnx
from cornernet_export.torch_backend import TorchBackend
from cornernet_export.verify import FP16, FP32, input_of, sample_picture, verify
from cornernet_runtime.bundle import MANIFEST_NAME, ONNX_NAME, Manifest, Verification, write_manifest
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import OutputError, VerificationError
from cornernet_runtime.files import new_folder, sha256
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cornernet_runtime.spec import Precision

CHECKPOINT_NAME = "checkpoint.safetensors"
EXTERNAL_DATA_LIMIT = 1_800_000_000  # bytes; protobuf ends at 2 GiB


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        checkpoint: The trained network.
        output: Folder to make.
        size: Height and width of the input, pixels; None takes the size that the checkpoint names.
        arch: Architecture to expect of the checkpoint; None takes what it shows.
        class_names: Names in place of the checkpoint's; None keeps them.
        stacks: Hourglasses to keep; None keeps all.
        precision: ``fp32`` or ``fp16``.
        force: Whether an existing output folder is replaced.
    """

    checkpoint: Path
    output: Path
    size: tuple[int, int] | None = None
    arch: str | None = None
    class_names: tuple[str, ...] | None = None
    stacks: int | None = None
    precision: Precision = "fp32"
    force: bool = False


def _say_nothing(_: object) -> None:
    pass


def export_bundle(
    request: ExportRequest,
    on_stage: Callable[[str], None] = _say_nothing,
    on_verified: Callable[[Verification], None] = _say_nothing,
) -> Manifest:
    """Export, verify, and write the bundle; the folder appears only when all of it holds.

    A published checkpoint is also written in our own format, as ``checkpoint.safetensors`` in the bundle.

    Args:
        request: What to do.
        on_stage: Told the name of each stage as it begins.
        on_verified: Told what was compared, before a failure is raised.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        ModelError: The model has fewer stacks than asked for.
        SizeError: The size is off the network's modulus.
        OutputError: The folder exists and ``force`` is off or it is no bundle, it holds the checkpoint, or it cannot be
            written.
        VerificationError: The export differs from the checkpoint by more than the tolerance, or float16 overflows.
    """
    _check_output(request)
    with new_folder(request.output, replace=request.force) as folder:
        on_stage("loading the checkpoint")
        checkpoint = load_checkpoint(request.checkpoint, arch=request.arch, class_names=request.class_names)
        model = checkpoint.model if request.stacks is None else cut_stacks(checkpoint.model, request.stacks)
        size = request.size or checkpoint.spec.input_size
        spec = replace(checkpoint.spec, input_size=size, largest_size=size, precision=request.precision)
        reference, verification, tolerance = Detector(TorchBackend(model), spec), Verification(), FP32
        deployed, name = fold_batch_norms(model), "PyTorch"
        if request.precision == "fp16":
            on_stage("comparing float16 with float32 in PyTorch")
            if not request.force:
                check_half_range(largest_activations(deployed, [input_of(reference, sample_picture())]))
            deployed, tolerance = to_half(deployed), FP16
            half = Detector(TorchBackend(deployed), spec)
            verification += verify(reference, half, "PyTorch fp32 -> PyTorch fp16", tolerance)
            reference, name = half, "PyTorch fp16"
        on_stage("exporting to ONNX")
        _save(build_onnx(deployed, spec), folder / ONNX_NAME)
        on_stage("verifying ONNX Runtime against PyTorch")
        with Detector.open(folder / ONNX_NAME) as exported:
            verification += verify(reference, exported, f"{name} -> ONNX Runtime", tolerance)
        on_verified(verification)
        if not verification.passed:
            raise VerificationError(
                f"{request.checkpoint}: the export differs from the checkpoint by more than the tolerance; "
                "nothing was written",
            )
        if request.checkpoint.suffix != ".safetensors":
            save_checkpoint(folder / CHECKPOINT_NAME, checkpoint.model, checkpoint.spec)
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        manifest = Manifest(f"cornernet-trt {__version__}", spec, files, verification)
        write_manifest(folder, manifest)
    return manifest


def _check_output(request: ExportRequest) -> None:
    """Raise OutputError where replacing the output folder would take more than a bundle with it."""
    target = request.output.resolve()
    if target in request.checkpoint.resolve().parents:
        raise OutputError(f"{request.output} holds the checkpoint itself: choose another --output folder")
    try:
        holds_other = target.is_dir() and any(target.iterdir()) and not (target / MANIFEST_NAME).is_file()
    except OSError as error:
        raise OutputError(f"cannot write {request.output}: {error.strerror or error}") from error
    if request.force and holds_other:
        raise OutputError(f"{request.output} is no bundle (it has no {MANIFEST_NAME}), so --force does not replace it")


def _save(model: onnx.ModelProto, path: Path) -> None:
    # Not ByteSize(): it serialises, which copies every weight and fails where protobuf does.
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EXTERNAL_DATA_LIMIT
    try:
        onnx.save_model(model, path, save_as_external_data=external, location=f"{path.name}.data")
    except OSError as error:
        raise OutputError(f"cannot write {path.name}: {error.strerror or error}") from error
