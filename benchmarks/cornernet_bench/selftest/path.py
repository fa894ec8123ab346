"""The self-test's last layer: frames through the best network that runs here, held against the stage before it.

On a GPU that is an engine or, without TensorRT, PyTorch in float16; without a GPU it is ONNX Runtime on the CPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from contextlib import ExitStack
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_bench.kernels.check import REQUIRE_GPU
from cornernet_bench.model_names import CHECKPOINTS
from cornernet_bench.models.open import open_model
from cornernet_bench.selftest.contest import Contest, compare, measure
from cornernet_bench.selftest.report import Finding
from cornernet_runtime.bundle.manifest import ONNX_NAME, Manifest, Verification, read_manifest, write_manifest
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import BackendError, CornerNetError, CornerNetWarning, PluginError
from cornernet_runtime.files import sha256
from cornernet_runtime.machine import ProbeError, find_gpus, one_line
from cornernet_runtime.version import __version__
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cornernet_bench.selftest.notes import Notes
    from cornernet_bench.selftest.report import Request
    from cornernet_runtime.bundle.spec import Precision

SHIPPED = Path("models") / "cornernet-tiny" / "cornernet-tiny.safetensors"
CHECKPOINT_OF_BUNDLE = "checkpoint.safetensors"  # in a bundle of a published one
SCENES_SEED = 4242  # the shipped model has not seen it
OF_EXPORT = ("torch", "onnx", "onnxscript", "safetensors", "onnxruntime")
OF_ENGINE = ("onnx", "onnxruntime", "cuda.core")
OF_OWN_ENGINE = ("onnxruntime", "cuda.core")
DISTRIBUTIONS = {"cuda.core": '"cuda-core[cu13]"'}  # where the name is another than the package's


class NothingToRunError(Exception):
    """This machine cannot run the path; the message says what it lacks."""


def whole_path(request: Request, notes: Notes) -> Finding:
    """L6: build what runs best here in a temporary folder, compare it with the stage before, time it."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        told = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always", CornerNetWarning)
        try:
            contest = _contest(_model(request), Path(name), stack, notes)
        except NothingToRunError as error:
            required = os.environ.get(REQUIRE_GPU) == "1"
            return Finding("failed", f"{REQUIRE_GPU}=1, but {error}") if required else Finding("skipped", str(error))
        notes.keep(network=contest.network, held_against=contest.against)
        images, annotations = _pictures(request, Path(name) / "scenes", notes)
        problems, uncompared = compare(contest, images, annotations, notes)
        if contest.gpu and contest.candidate.pipeline is None:
            problems.append("nothing but the network ran on the GPU")
        if request.frames:
            problems += measure(contest, images, request.frames, notes)
        remarks = [one_line(str(one.message)) for one in told if issubclass(one.category, CornerNetWarning)]
        notes.keep(warnings=remarks)
    undone = [*contest.undone, *uncompared]
    if problems:
        return Finding("failed", f"{contest.network}: {'; '.join([*problems, *undone, *remarks])}")
    if uncompared and not request.frames:
        return Finding("skipped", "; ".join([*undone, *remarks]))
    said = f"{contest.network}: {_summary(notes)}"
    return Finding("partly" if undone else "passed", "; ".join([said, *undone, *remarks]))


def _summary(notes: Notes) -> str:
    """Return what was compared and measured, which is one of them at least."""
    figures, said = notes.figures, []
    if figures.get("detections_reference"):
        count = count_of(figures["detections_reference"], "detection")
        said.append(f"{figures['detections_matched']} of {count} matched those of {figures['held_against']}")
        if ties := figures["detections_near_ties"] + figures["detections_extra_near_ties"]:
            said.append(f"{ties} more differ by near ties only")
        if "ap_skipped" in figures:
            said.append(f"AP was not compared ({figures['ap_skipped']})")
    if "ap" in figures:
        said.append(f"AP {figures['ap']:.2f}, {figures['ap_reference']:.2f} before")
    if "p50_ms" in figures:
        said.append(f"p50 {figures['p50_ms']:.1f}, p99 {figures['p99_ms']:.1f} ms a frame")
    return ", ".join(said)


def _model(request: Request) -> Path:
    if request.model is not None:
        return Path(request.model)
    if (shipped := Path(request.checkout) / SHIPPED).is_file():
        return shipped
    raise NothingToRunError("no model is here: the shipped one is part of a checkout only; name one with --model")


def _contest(model: Path, folder: Path, stack: ExitStack, notes: Notes) -> Contest:
    """Return the best network that can run here, and what it is held against, opened until the stack ends.

    Raises:
        CornerNetError: The model cannot be used, or what should run does not.
        NothingToRunError: Something is not installed.
    """
    try:
        gpus = find_gpus()
    except ProbeError as error:
        raise CornerNetError(f"the GPU does not answer: {error}") from error
    if not gpus:
        if os.environ.get(REQUIRE_GPU) == "1":
            raise NothingToRunError("there is no GPU")
        return _on_the_cpu(model, folder, stack, notes)
    if _installed("tensorrt"):
        return _in_tensorrt(model, folder, stack, notes)
    return _in_torch(model, stack)


def _in_tensorrt(model: Path, folder: Path, stack: ExitStack, notes: Notes) -> Contest:
    """Return the engine of a bundle if it has one that can run here, else one that is built aside."""
    undone: tuple[str, ...] = ()
    if _has_engine(model):
        _need(OF_OWN_ENGINE, "an engine")
        try:
            return _own_engine(model, stack, notes)
        except (BackendError, PluginError) as error:
            undone = (f"the bundle's own engine was not used, another was built: {error}",)
    _need(OF_ENGINE, "an engine")
    from cornernet_export.engine.add import EngineRequest, add_engine  # noqa: PLC0415 - an extra

    trained = model.suffix in CHECKPOINTS
    bundle = _bundle(model, folder / "bundle", notes, "fp16")
    manifest = add_engine(
        EngineRequest(bundle),
        on_stage=_changes(notes.say),
        on_verified=lambda verification: notes.keep(verification=to_json(verification)),
    )
    candidate = stack.enter_context(Detector.open(bundle, "tensorrt"))
    reference = open_model(model) if trained else Detector.open(bundle, "onnxruntime")
    stack.enter_context(reference)
    if manifest.engine is None:
        raise AssertionError("add_engine returned a bundle without an engine")
    notes.keep(engine=to_json(manifest.engine))
    network = f"TensorRT {manifest.engine.tensorrt}, {manifest.spec.precision}, on {manifest.engine.gpu}"
    against = "PyTorch" if trained else "ONNX Runtime"
    half = manifest.spec.precision != "fp32"
    return Contest(network, candidate, reference, against, half=half, gpu=True, undone=undone)


def _own_engine(model: Path, stack: ExitStack, notes: Notes) -> Contest:
    """Return a bundle's engine as it is.

    Raises:
        BackendError: It cannot run here.
        PluginError: Its plugin is not here.
    """
    candidate = stack.enter_context(Detector.open(model, "tensorrt"))
    reference = stack.enter_context(Detector.open(model, "onnxruntime"))
    manifest = read_manifest(model)
    notes.keep(engine=to_json(manifest.engine), verification=to_json(manifest.verification))
    network = f"the bundle's own engine, {manifest.spec.precision}"
    return Contest(network, candidate, reference, "ONNX Runtime", half=manifest.spec.precision != "fp32", gpu=True)


def _has_engine(model: Path) -> bool:
    return model.is_dir() and read_manifest(model, check_engine=False).engine is not None


def _in_torch(model: Path, stack: ExitStack) -> Contest:
    """Return PyTorch on the GPU in float16, for where there is no TensorRT."""
    lead = "TensorRT is not installed: pip install tensorrt; and in its place "
    if model.suffix not in CHECKPOINTS:
        raise NothingToRunError(f"{lead}PyTorch runs a checkpoint only ({', '.join(CHECKPOINTS)}), got {model.name}")
    _need(("torch", "safetensors", "cuda.core"), f"{lead}PyTorch on the GPU")
    import torch  # noqa: PLC0415 - an extra

    if not torch.cuda.is_available():
        raise NothingToRunError(f"{lead}PyTorch {torch.__version__} has no use of the GPU: install its build for CUDA")
    candidate = stack.enter_context(open_model(model, "torch-cuda"))
    reference = stack.enter_context(open_model(model))
    network = f"PyTorch {torch.__version__}, fp16, on the GPU"
    return Contest(network, candidate, reference, "PyTorch on the CPU", half=True, gpu=True)


def _on_the_cpu(model: Path, folder: Path, stack: ExitStack, notes: Notes) -> Contest:
    """Return ONNX Runtime, and the checkpoint in PyTorch where there is one, or else the same file in OpenVINO."""
    _need(("onnxruntime",), "a model on the CPU")
    trained = model if model.suffix in CHECKPOINTS else model / CHECKPOINT_OF_BUNDLE
    here = _bundle(model, folder / "bundle", notes) if model == trained else model
    candidate = stack.enter_context(Detector.open(here, "onnxruntime"))
    half = candidate.spec.precision != "fp32"
    reference, against = None, f"no checkpoint is known: put it into the bundle as {CHECKPOINT_OF_BUNDLE}"
    if trained.is_file() and _installed("torch"):
        reference, against = open_model(trained, "torch-fp16" if half else None), "PyTorch"
    elif candidate.spec.precision != "int8":  # whose rounding differs from one library to another
        if _installed("openvino"):
            reference, against = Detector.open(here, "openvino"), "OpenVINO"
        else:
            against += "; or pip install openvino, which runs the same file"
    if reference is not None:
        stack.enter_context(reference)
    undone = ("the bundle's engine was not used: there is no GPU",) if _has_engine(model) else ()
    network = f"ONNX Runtime on the CPU, {candidate.spec.precision}"
    return Contest(network, candidate, reference, against, half=half, undone=undone)


def _bundle(model: Path, bundle: Path, notes: Notes, precision: Precision = "fp32") -> Path:
    """Make a bundle of a checkpoint, in a precision, of an ONNX file, or a copy of a bundle, which may be changed."""
    if model.suffix in CHECKPOINTS:
        _need(OF_EXPORT, "exporting a checkpoint")
        from cornernet_export.bundle_export import ExportRequest, export_bundle  # noqa: PLC0415 - imports torch

        export_bundle(ExportRequest(model, bundle, precision=precision), on_stage=notes.say)
        return bundle
    with Detector.open(model, "onnxruntime") as opened:  # says what is wrong with it
        spec = opened.spec
    if model.is_dir():
        return Path(shutil.copytree(model, bundle))
    bundle.mkdir()
    shutil.copy(model, bundle / ONNX_NAME)
    weights = Path(f"{model}.data")  # beside a large model, which names it
    if weights.is_file():
        shutil.copy(weights, bundle)
    files = {file.name: sha256(file) for file in sorted(bundle.iterdir())}
    write_manifest(bundle, Manifest(f"cornernet-trt {__version__}", spec, files, Verification()))
    return bundle


def _pictures(request: Request, folder: Path, notes: Notes) -> tuple[Path, Path | None]:
    """Return a folder of pictures, and the annotations of those that were drawn."""
    if request.images is not None:
        return Path(request.images), None
    notes.say(f"drawing {request.scenes} scenes")
    command = [sys.executable, "-m", "cornernet_train.cli", "shapes", "--output", str(folder)]
    command += ["--images", str(request.scenes), "--seed", str(SCENES_SEED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise CornerNetError(f"cornernet-train shapes: {one_line(done.stderr)}")
    return folder / "images", folder / "annotations.json"


def _installed(package: str) -> bool:
    if package in sys.modules:
        return True
    whole = package.rpartition(".")[0]  # PyTorch for CUDA brings another part of ``cuda``
    return (not whole or _installed(whole)) and util.find_spec(package) is not None


def _need(packages: tuple[str, ...], purpose: str) -> None:
    lacking = [package for package in packages if not _installed(package)]
    if lacking:
        names = " ".join(DISTRIBUTIONS.get(package, package) for package in lacking)
        raise NothingToRunError(f"{purpose} needs what is not installed: pip install {names}")


def _changes(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return ``say`` without lines that differ from the one before by the time only."""
    last = ""

    def changed(line: str) -> None:
        nonlocal last
        phase = line.rpartition(", ")[0] or line
        if phase != last:
            last = phase
            say(phase)

    return changed
