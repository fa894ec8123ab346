"""The plugin of corner pooling as TensorRT sees it: where it is looked for, and its registration."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, Any

from cornernet_runtime import plugin
from cornernet_runtime.bundle.engine_record import PluginRecord
from cornernet_runtime.errors import PluginError
from cornernet_runtime.files import sha256
from cornernet_runtime.plugin import PLUGIN_VARIABLE, find_plugin, plugin_info

if TYPE_CHECKING:
    from pathlib import Path

NAMESPACE = "cornernet"
PROTOCOL = "1"  # the plugin_version of the ONNX nodes, not of the library
OPERATORS = ("TopLeftPool", "BottomRightPool")


def search_plugin(named: Path | None = None) -> Path | None:
    """Return the library that is named, else the one that ``find_plugin`` finds.

    Raises:
        PluginError: The one named, or the one that the variable names, is no file.
    """
    if named is not None:
        if not named.is_file():
            raise PluginError(f"--plugin: {named} is no file; name libcornernet_plugins.so")
        return named
    return find_plugin()


def no_plugin_message() -> str:
    """Return where ``search_plugin`` looked in vain, and how to get the library."""
    variable = os.environ.get(PLUGIN_VARIABLE)
    places = (
        "--plugin (not given)",
        f"{PLUGIN_VARIABLE} ({variable or 'not set'})",
        f"{plugin.PACKAGED_PLUGIN} (no such file)",
        f"{plugin.BUILT_PLUGIN} (no such file)",
    )
    return f"no plugin found; looked at {', '.join(places)}; build it in a checkout: {plugin.BUILD_COMMAND}"


def load_plugin(trt: Any, path: Path) -> PluginRecord:  # noqa: ANN401 - an extra
    """Register the operators of a library with TensorRT, once in a process.

    Raises:
        PluginError: It is not our library, does not load here, or TensorRT refuses it.
    """
    info = plugin_info(path)
    if info.tensorrt != int(trt.__version__.split(".")[0]):
        raise PluginError(
            f"{path}: built for TensorRT {info.tensorrt}, here is {trt.__version__}; build it for this version"
        )
    record = PluginRecord(info.version, sha256(path))
    registry = trt.get_plugin_registry()
    if _registered(registry):
        return record
    try:
        ctypes.CDLL(str(path))  # for its reason: TensorRT gives none
    except OSError as error:
        raise PluginError(f"{path}: does not load here: {error}") from error
    # No reference is kept: the library stays until the process ends.
    if registry.load_library(str(path)) is None or not _registered(registry):
        raise PluginError(
            f"{path}: TensorRT {trt.__version__} does not take it as a library of the plugins {', '.join(OPERATORS)}; "
            "build it again for this version"
        )
    return record


def same_plugin(wanted: PluginRecord, path: Path | None) -> str | None:
    """Return why a library is not the one that an engine was built with, or None if it is.

    Raises:
        PluginError: It is no library of ours.
    """
    if path is None:
        return f"it needs version {wanted.version} of the plugin: {no_plugin_message()}"
    found = plugin_info(path).version
    if found != wanted.version:
        return f"it was built with version {wanted.version} of the plugin; {path} is version {found}"
    return None


def _registered(registry: Any) -> bool:  # noqa: ANN401
    return all(registry.get_creator(name, PROTOCOL, NAMESPACE) is not None for name in OPERATORS)
