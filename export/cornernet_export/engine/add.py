"""The engine of a bundle: built, verified against ONNX Runtime, and only then part of the bundle."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_export.engine.build import BuiltEngine, EngineOptions, build_engine, why_no_engine
from cornernet_export.verification.matching import FP16, INT8, Tolerance
from cornernet_export.verification.verify import read_some, sample_picture, verify
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.backends.tensorrt import TensorRTBackend
from cornernet_runtime.bundle.manifest import ENGINE_NAME, ONNX_NAME, Verification, read_manifest, write_manifest
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import EngineError, OutputError, VerificationError
from cornernet_runtime.files import sha256, write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.engine_record import EngineRecord
    from cornernet_runtime.bundle.manifest import Manifest
    from cornernet_runtime.bundle.spec import ModelSpec

STAGE = "ONNX Runtime -> TensorRT"
# A GPU sums in yet another order, and may transform convolutions (Winograd), which costs a digit or two.
ENGINE_FP32 = Tolerance(output=1e-3, score=2e-3, iou=0.98, matched=0.98, tie=1e-3)


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """Which bundle gets an engine, and how.

    Attributes:
        bundle: Folder with the ONNX file; an engine in it is replaced.
        options: How to build.
        pictures: Files or folders of pictures to verify on, of which 32 are taken; none takes the one that comes with
            the package.
    """

    bundle: Path
    options: EngineOptions = field(default_factory=EngineOptions)
    pictures: tuple[str, ...] = ()


def _say_nothing(_: object) -> None:
    pass


def add_engine(
    request: EngineRequest,
    on_stage: Callable[[str], None] = _say_nothing,
    on_verified: Callable[[Verification], None] = _say_nothing,
) -> Manifest:
    """Build the engine of a bundle, reopen and verify it, and add it to the bundle.

    The bundle is whole at every moment: until all holds it is what it was, and a new engine counts when the side-car,
    written last, names it.

    Args:
        request: What to do.
        on_stage: Told what is being done.
        on_verified: Told what was compared, before a failure is raised.

    Raises:
        BundleError: The folder is no bundle, or a broken one.
        EngineError: No engine can be built here, or not as asked.
        FrameError: A picture cannot be read.
        OutputError: The folder cannot be written.
        PluginError: What is named as plugin is not ours, or does not fit.
        VerificationError: The engine differs from ONNX Runtime by more than the tolerance.
        KeyboardInterrupt: The user interrupted.
    """
    manifest = read_manifest(request.bundle, check_engine=False)  # a damaged engine is replaced
    if manifest.spec.int8_target == "cpu":
        raise EngineError(f"{request.bundle} is int8 for a CPU; for an engine export it with --target tensorrt")
    frames = read_some(request.pictures) if request.pictures else [sample_picture()]
    missing = why_no_engine()
    if missing is not None:
        raise EngineError(
            f"no TensorRT engine can be built here: {missing}; {request.bundle} holds the ONNX model, and where "
            f"there are TensorRT and a GPU this adds the engine: {request.options.command(request.bundle)}"
        )
    built = build_engine(request.bundle / ONNX_NAME, manifest.spec, request.options, on_stage)
    try:
        with tempfile.TemporaryDirectory(dir=request.bundle, prefix=f".{ENGINE_NAME}.") as folder:
            plan = Path(folder) / ENGINE_NAME
            write_atomically(plan, built.plan)
            on_stage("verifying TensorRT against ONNX Runtime")
            backend = TensorRTBackend(
                plan,
                manifest.spec,
                built.record,
                allow_code=built.record.portable,
                plugin=request.options.plugin,
            )
            verification = _verify(request.bundle / ONNX_NAME, backend, manifest.spec, built.record, frames)
            on_verified(verification)
            if not verification.passed and not request.options.keep_failed:
                raise VerificationError(
                    f"{request.bundle}: the engine differs from ONNX Runtime by more than the tolerance, so it was "
                    "not kept"
                )
            return _install(request.bundle, plan, built, manifest, verification)
    except OSError as error:
        raise OutputError(f"cannot write {request.bundle}: {error.strerror or error}") from error


def _verify(
    model: Path,
    engine: TensorRTBackend,
    spec: ModelSpec,
    record: EngineRecord,
    frames: Sequence[NDArray[np.uint8]],
) -> Verification:
    """Compare the engine with the ONNX file at its sizes and its largest batch, and let go of it."""
    # In INT8, values next to a rounding's edge fall to either side, as between INT8 and float32.
    tolerance = {"fp32": FP16 if record.tf32 else ENGINE_FP32, "fp16": FP16, "int8": INT8}[spec.precision]
    noise = tolerance != INT8
    with Detector(OnnxRuntimeBackend(model, spec), spec) as reference, Detector(engine, spec) as candidate:
        return verify(reference, candidate, STAGE, tolerance, frames, largest_batch=spec.batch[2], noise=noise)


def _install(bundle: Path, plan: Path, built: BuiltEngine, manifest: Manifest, verification: Verification) -> Manifest:
    """Make the plan that of the bundle; killed at any point, this leaves a bundle that opens."""
    files = {name: digest for name, digest in manifest.files.items() if name != ENGINE_NAME}
    before = Verification(
        tuple(check for check in manifest.verification.outputs if check.stage != STAGE),
        tuple(check for check in manifest.verification.detections if check.stage != STAGE),
        manifest.verification.problems,
    )
    if manifest.engine is not None:
        write_manifest(bundle, replace(manifest, engine=None, files=files, verification=before))
    digest = sha256(plan)
    plan.replace(bundle / ENGINE_NAME)
    done = replace(
        manifest,
        engine=built.record,
        files=dict(sorted({**files, ENGINE_NAME: digest}.items())),
        verification=before + verification,
    )
    write_manifest(bundle, done)
    return done
