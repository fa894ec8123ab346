"""From a checkpoint to a verified bundle, as one function."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from cornernet_export.checkpoint import load_checkpoint, save_checkpoint
from cornernet_export.half_range import largest_activations, largest_weights, overflow_of
from cornernet_export.int8.export import STAGE, calibrate, calibration_pictures, to_int8
from cornernet_export.model.rewrite import cut_stacks, emulate_half, fold_batch_norms, to_half
from cornernet_export.onnx_graph import build_onnx
from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_export.verification.matching import FP16, FP32, INT8
from cornernet_export.verification.verify import input_of, read_some, sample_picture, verify
from cornernet_runtime.bundle.manifest import (
    MANIFEST_NAME,
    ONNX_NAME,
    CheckpointFile,
    Manifest,
    Verification,
    write_manifest,
)
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import OutputError, SizeError, VerificationError
from cornernet_runtime.files import new_folder, sha256
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import Batch, Int8Target, ModelSpec, Precision, Size

CHECKPOINT_NAME = "checkpoint.safetensors"
DYNAMIC_LARGEST = (1023, 1023)  # COCO's pictures, 640 pixels long, at the paper's largest scale of 1.5
_ADVICE = {"int8": "; calibrate on more pictures like those in use, or add --force to keep it"}
EXTERNAL_DATA_LIMIT = 1_800_000_000  # bytes; protobuf ends at 2 GiB


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, and how.

    Attributes:
        checkpoint: The trained network.
        output: Folder to make.
        sizes: Heights and widths of the input, pixels; none takes the size that the checkpoint names. With ``dynamic``
            together the largest: by default 1023x1023.
        batch: Smallest, usual and largest batch; a model with several takes any.
        dynamic: Whether the model takes any batch, height and width up to the largest, and frames at their own size.
        arch: Architecture to expect of the checkpoint; None takes what it shows.
        class_names: Names in place of the checkpoint's; None keeps them.
        stacks: Hourglasses to keep; None keeps all.
        precision: ``fp32``, ``fp16`` or ``int8``.
        pictures: Files or folders of pictures to verify on, and to look for float16 overflow on, of which 32 are taken;
            none takes the one that comes with the package. INT8 is calibrated on up to 256 of them.
        target: Whom an INT8 model is for.
        force: Whether an existing output folder is replaced, and a float16 or INT8 model kept that overflows or is off.
    """

    checkpoint: Path
    output: Path
    sizes: tuple[Size, ...] = ()
    batch: Batch = (1, 1, 1)
    dynamic: bool = False
    arch: str | None = None
    class_names: tuple[str, ...] | None = None
    stacks: int | None = None
    precision: Precision = "fp32"
    pictures: tuple[str, ...] = ()
    target: Int8Target = "cpu"
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
        FrameError: A picture cannot be read, or INT8 has none to be calibrated on.
        ModelError: The model has fewer stacks than asked for.
        SizeError: A size is off the network's modulus, or named twice.
        OutputError: The folder exists and ``force`` is off or it is no bundle, it holds the checkpoint, or it cannot be
            written.
        VerificationError: The export differs from the checkpoint by more than the tolerance, or float16 overflows.
    """
    _check_output(request)
    calibration = calibration_pictures(request.pictures) if request.precision == "int8" else []
    with new_folder(request.output, replace=request.force) as folder:
        frames = read_some(request.pictures) if request.pictures else [sample_picture()]
        on_stage("loading the checkpoint")
        checkpoint = load_checkpoint(request.checkpoint, arch=request.arch, class_names=request.class_names)
        model = checkpoint.model if request.stacks is None else cut_stacks(checkpoint.model, request.stacks)
        spec = _deployed_spec(checkpoint.spec, request)
        reference, verification, tolerance = Detector(TorchBackend(model), spec), Verification(), FP32
        deployed, name = fold_batch_norms(model), "PyTorch"
        if request.precision == "fp16":
            on_stage("comparing float16 with float32 in PyTorch")
            inputs = (input_of(reference, frame) for frame in frames)
            overflow = overflow_of([*largest_weights(deployed), *largest_activations(deployed, inputs)])
            if overflow and not request.force:
                raise VerificationError(
                    f"{overflow}; export in fp32, or add --force to keep the fp16 bundle all the same"
                )
            verification += Verification(problems=(overflow,) if overflow else ())
            deployed, tolerance = to_half(deployed), FP16
            half = Detector(TorchBackend(emulate_half(deployed)), spec)
            verification += verify(reference, half, "PyTorch fp32 -> PyTorch fp16", tolerance, frames)
            reference, name = half, "PyTorch fp16"
        on_stage("exporting to ONNX")
        save_onnx(build_onnx(deployed, spec), folder / ONNX_NAME)
        on_stage("verifying ONNX Runtime against PyTorch")
        with Detector.open(folder / ONNX_NAME) as exported:
            verification += verify(reference, exported, f"{name} -> ONNX Runtime", tolerance, frames)
        forgivable = request.precision == "fp16" or (request.precision == "int8" and verification.passed)
        if request.precision == "int8" and verification.passed:
            verification += _quantise(folder / ONNX_NAME, request.target, calibration, frames, on_stage)
            spec = replace(spec, precision="int8", int8_target=request.target)
        on_verified(verification)
        if not verification.passed and not (request.force and forgivable):
            raise VerificationError(
                f"{request.checkpoint}: the export differs from the checkpoint by more than the tolerance; "
                f"nothing was written{_ADVICE.get(request.precision, '')}",
            )
        if request.checkpoint.suffix != ".safetensors":
            save_checkpoint(folder / CHECKPOINT_NAME, checkpoint.model, checkpoint.spec)
        files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
        origin = CheckpointFile(request.checkpoint.name, sha256(request.checkpoint))
        manifest = Manifest(f"cornernet-trt {__version__}", spec, files, verification, checkpoint=origin)
        write_manifest(folder, manifest)
    return manifest


def _quantise(
    path: Path,
    target: Int8Target,
    calibration: Sequence[Path],
    frames: Sequence[NDArray[np.uint8]],
    on_stage: Callable[[str], None],
) -> Verification:
    """Replace the float32 model at ``path``, which was verified, by an INT8 one; return how they compare."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".float32.") as folder:
        for file in path.parent.glob(f"{path.name}*"):
            file.rename(Path(folder) / file.name)
        model = onnx.load(Path(folder) / path.name)
        with Detector.open(Path(folder) / path.name) as exact:
            ranges = calibrate(model, target, exact, calibration, on_stage)
            save_onnx(to_int8(model, ranges, exact, target), path)
            del model
            on_stage("verifying int8 against float32")
            with Detector.open(path) as quantised:
                return verify(exact, quantised, STAGE, INT8, frames, noise=False)


def _deployed_spec(trained: ModelSpec, request: ExportRequest) -> ModelSpec:
    """Return the spec of the exported model: the trained one's, at the sizes that were asked for."""
    precision: Precision = "fp16" if request.precision == "fp16" else "fp32"  # which INT8 is made of
    sizes = request.sizes or ((DYNAMIC_LARGEST, trained.input_size) if request.dynamic else (trained.input_size,))
    if len(set(request.sizes)) < len(request.sizes):
        raise SizeError(f"sizes: expected distinct ones, got {', '.join(f'{h}x{w}' for h, w in sizes)}")
    largest = max(height for height, _ in sizes), max(width for _, width in sizes)
    if request.dynamic:
        usual = min(trained.input_size[0], largest[0]), min(trained.input_size[1], largest[1])
        return replace(
            trained,
            input_size=usual,
            other_sizes=(),
            largest_size=largest,
            dynamic=True,
            batch=request.batch,
            geometry="native",
            precision=precision,
        )
    return replace(
        trained,
        input_size=sizes[0],
        other_sizes=sizes[1:],
        largest_size=largest,
        dynamic=False,
        batch=request.batch,
        geometry="fit",
        precision=precision,
    )


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


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write a model, its weights into a second file where they exceed what one can hold."""
    # Not ByteSize(): it serialises, which copies every weight and fails where protobuf does.
    external = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EXTERNAL_DATA_LIMIT
    try:
        onnx.save_model(model, path, save_as_external_data=external, location=f"{path.name}.data")
    except OSError as error:
        raise OutputError(f"cannot write {path.name}: {error.strerror or error}") from error
