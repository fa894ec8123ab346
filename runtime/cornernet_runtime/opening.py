"""From a path to a network that is ready to run, and the pipeline around one on a GPU."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.backends.base import DeviceBackend
from cornernet_runtime.bundle.manifest import ENGINE_NAME, ONNX_NAME, read_manifest
from cornernet_runtime.errors import BackendError, BundleError, CornerNetWarning, PluginError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cornernet_runtime.backends import Backend
    from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
    from cornernet_runtime.backends.openvino import OpenVinoBackend
    from cornernet_runtime.bundle.manifest import Manifest
    from cornernet_runtime.bundle.spec import ModelSpec
    from cornernet_runtime.pipeline import GpuPipeline

BACKENDS = ("tensorrt", "onnxruntime", "openvino", "openvino-bf16")


def check_backend(name: str | None) -> None:
    """Raise BackendError for a name that no backend has; None is the best one."""
    if name not in (None, *BACKENDS):
        raise BackendError(f"no backend is called {name!r}; there are {', '.join(BACKENDS)}")


def open_network(
    path: str | Path, backend: str | None = None, *, allow_engine_code: bool = False, threads: int | None = None
) -> tuple[Backend, ModelSpec]:
    """Return the network of a bundle folder or an ``.onnx`` file, and how to use it; as ``Detector.open``.

    Raises:
        BundleError: ``path`` is neither, or the bundle is broken or newer than this version.
        ModelError: The model file cannot be loaded, or is not a CornerNet of ours.
        BackendError: The backend is unknown or not installed, or the engine cannot run here and was asked for.
        PluginError: ``CORNERNET_PLUGIN`` names something else than our plugin, and the engine was asked for.
    """
    check_backend(backend)
    path = Path(path)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    if is_folder:
        manifest = read_manifest(path, check_engine=backend in (None, "tensorrt"))
        network = _open_bundle(path, manifest, backend, allow_code=allow_engine_code, threads=threads)
        return network, manifest.spec
    if path.suffix != ".onnx":
        problem = "is no bundle folder or .onnx file" if exists else "does not exist"
        raise BundleError(f"{path} {problem}; cornernet-export makes bundles from checkpoints")
    if backend == "tensorrt":
        raise BackendError(f"{path}: TensorRT runs the engine of a bundle; open the folder that holds it")
    file = _open_on_cpu(path, None, backend, threads)
    return file, file.spec


def _open_bundle(
    folder: Path, manifest: Manifest, backend: str | None, *, allow_code: bool, threads: int | None
) -> Backend:
    """Return the engine of a bundle if it can run here, else its ONNX file, unless one of them is asked for."""
    record = manifest.engine
    if record is None and backend == "tensorrt":
        raise BackendError(f"{folder} has no engine; build it: cornernet-export {folder} --engine")
    if record is not None and backend in (None, "tensorrt"):
        from cornernet_runtime.backends.tensorrt import TensorRTBackend  # noqa: PLC0415 - only when used

        try:
            return TensorRTBackend(folder / ENGINE_NAME, manifest.spec, record, allow_code=allow_code)
        except (BackendError, PluginError) as error:
            if backend == "tensorrt":
                raise
            warnings.warn(f"{error}; running {ONNX_NAME} on the CPU instead", CornerNetWarning, stacklevel=4)
    return _open_on_cpu(folder / ONNX_NAME, manifest.spec, backend, threads)


def _open_on_cpu(
    path: Path, spec: ModelSpec | None, backend: str | None, threads: int | None
) -> OnnxRuntimeBackend | OpenVinoBackend:
    """Return an ONNX file in OpenVINO if that is asked for, else in ONNX Runtime."""
    if backend in ("openvino", "openvino-bf16"):
        from cornernet_runtime.backends.openvino import OpenVinoBackend  # noqa: PLC0415 - only when used

        return OpenVinoBackend(path, spec, threads, "bf16" if backend == "openvino-bf16" else "fp32")
    from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend  # noqa: PLC0415 - only when used

    return OnnxRuntimeBackend(path, spec, threads)


def pipeline_around(backend: Backend, spec: ModelSpec, *, flip: bool, scales: Sequence[float]) -> GpuPipeline | None:
    """Return the pipeline around a network on a GPU; None around others, and where the kernels cannot do it."""
    if not isinstance(backend, DeviceBackend):
        return None
    from cornernet_runtime.pipeline import GpuPipeline  # noqa: PLC0415 - only when used

    try:
        return GpuPipeline(backend.device, backend.network, spec, flip=flip, scales=scales)
    except BackendError as error:
        warnings.warn(
            f"{error}; frames are prepared and corners decoded on the CPU instead", CornerNetWarning, stacklevel=4
        )
        return None
