"""A Triton model repository of a bundle: the network, and around it the Detector as a Python model."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cornernet_export.triton.config import front_config, network_config
from cornernet_runtime.backends.tensorrt_plugin import same_plugin, search_plugin
from cornernet_runtime.bundle.manifest import ENGINE_NAME, MANIFEST_NAME, ONNX_NAME, read_manifest
from cornernet_runtime.errors import BundleError, OutputError, PluginError
from cornernet_runtime.files import new_folder, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_runtime.bundle.manifest import Manifest

CONFIG_NAME, MODEL_NAME, PLAN_NAME = "config.pbtxt", "model.py", "model.plan"
PLUGIN_NAME = "libcornernet_plugins.so"
NETWORK_SUFFIX = "_network"
VERSION = "1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_MODEL = '''"""Frames to boxes around the model {network}: written by cornernet-export, explained in docs/triton.md."""

import os
import sys

# A larger picture is refused, not decoded. OpenCV reads this as it is loaded, which the import below does.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "100000000")

try:
    from cornernet_runtime.triton import TritonModel as TritonPythonModel
except ImportError as error:
    raise ImportError(
        f"cornernet_runtime is not installed in the Python {{sys.version.split()[0]}} that Triton runs ({{error}}); "
        "install it there, or put its folder on PYTHONPATH: docs/triton.md"
    ) from error

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True, slots=True)
class TritonRequest:
    """Which bundle becomes a repository, and where.

    Attributes:
        bundle: The bundle; an engine in it is used, else the ONNX file.
        output: Folder of the repository.
        plugin: Library of the plugins that the engine was built with; None looks at the usual places.
        force: Whether a repository that was made before is replaced.
    """

    bundle: Path
    output: Path
    plugin: Path | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class TritonRepository:
    """What was written.

    Attributes:
        folder: The repository.
        model: Name of the model that clients call.
        network: Name of the model that it calls.
        manifest: Of the bundle.
        plugin: The library of plugins in the repository; None when none is needed, or none was found.
        problem: What the repository needs and does not hold, in words; None when it is whole.
    """

    folder: Path
    model: str
    network: str
    manifest: Manifest
    plugin: Path | None
    problem: str | None

    @property
    def needs(self) -> str:
        """What runs the network, in words; a plan is copied wherever it can run."""
        engine = self.manifest.engine
        if engine is None:
            return "ONNX Runtime on the CPU"
        version = f"{engine.tensorrt}{' or later' if engine.portable else ' exactly'}"
        capability = (
            "8.0 or later"
            if engine.hardware_compatibility == "ampere_plus"
            else (f"{engine.compute_capability} ({engine.gpu})")
        )
        return f"TensorRT {version} and a GPU of compute capability {capability}"

    @property
    def command(self) -> str:
        """The command that starts Triton with it."""
        engine = self.manifest.engine
        command = f"tritonserver --model-repository={self.folder.resolve()}"
        if engine is not None and engine.portable:
            return f"{command} --backend-config=tensorrt,version-compatible=true"
        if engine is None or engine.plugin is None:
            return command
        library = PLUGIN_NAME if self.plugin is None else self.plugin.resolve()
        return f"CORNERNET_REGISTER_PLUGINS=1 {command} --backend-config=tensorrt,plugins={library}"


def write_repository(request: TritonRequest) -> TritonRepository:
    """Write the repository; the folder appears only when it is whole.

    The model that clients call has the name of the bundle's folder, the network that name and ``_network``.

    Raises:
        BundleError: The folder is no bundle, or a broken or newer one, or its name is none for a model.
        OutputError: The output exists and ``force`` is off, it is no repository of ours, or it cannot be written.
        PluginError: What is named as plugin is not ours.
    """
    check_repository(request)
    manifest = read_manifest(request.bundle)
    model = model_name(request.bundle)
    network = f"{model}{NETWORK_SUFFIX}"
    library, problem = _plugin(manifest, request.plugin)
    with new_folder(request.output, replace=request.force) as folder:
        front, back = folder / model / VERSION, folder / network / VERSION
        for version in (front, back):
            version.mkdir(parents=True)
        if manifest.engine is None:
            for name in manifest.files:
                if name.startswith(ONNX_NAME):  # weights may lie beside it
                    shutil.copyfile(request.bundle / name, back / name)
        else:
            shutil.copyfile(request.bundle / ENGINE_NAME, back / PLAN_NAME)
        if library is not None:
            shutil.copyfile(library, back.parent / PLUGIN_NAME)
        write_atomically(back.parent / CONFIG_NAME, network_config(network, manifest))
        shutil.copyfile(request.bundle / MANIFEST_NAME, front / MANIFEST_NAME)
        write_atomically(front / MODEL_NAME, _MODEL.format(network=network))
        write_atomically(front.parent / CONFIG_NAME, front_config(model, network, manifest))
    copied = None if library is None else request.output / network / PLUGIN_NAME
    return TritonRepository(request.output, model, network, manifest, copied, problem)


def check_repository(request: TritonRequest) -> None:
    """Raise what ``write_repository`` would of the output and of the bundle's name, before minutes of work."""
    model_name(request.bundle)
    target = request.output.resolve()
    try:
        found = sorted(item.name for item in target.iterdir()) if target.is_dir() else []
    except OSError as error:
        raise OutputError(f"cannot write {request.output}: {error.strerror or error}") from error
    if not found:
        return
    if not request.force:
        raise OutputError(f"{request.output} exists: choose another folder, or add --force to replace it")
    ours = len(found) == 2 and found[1] == f"{found[0]}{NETWORK_SUFFIX}"
    if not (ours and (target / found[0] / VERSION / MANIFEST_NAME).is_file()):
        raise OutputError(
            f"{request.output} is no Triton repository that cornernet-export wrote, so --force does not replace it"
        )


def model_name(bundle: Path) -> str:
    """Return the model's name, that of the bundle's folder.

    Raises:
        BundleError: Triton's addresses and folders cannot have it.
    """
    name = bundle.resolve().name
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"{bundle}: its folder's name becomes the model's: expected up to 100 letters, digits, '.', '_' and '-', "
            f"the first a letter or digit, got {name!r}; rename the folder"
        )
    return name


def _plugin(manifest: Manifest, named: Path | None) -> tuple[Path | None, str | None]:
    """Return the library that an engine needs, or why there is none."""
    if manifest.engine is None or manifest.engine.plugin is None or manifest.engine.portable:
        return None, None
    library = search_plugin(named)
    problem = same_plugin(manifest.engine.plugin, library)
    if problem is None:
        return library, None
    if named is not None:
        raise PluginError(f"--plugin: {problem}")
    return None, f"{PLUGIN_NAME} is not in it: {problem}"
