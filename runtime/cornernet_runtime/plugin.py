"""The library of TensorRT plugins: where it is, and of which version."""

from __future__ import annotations

import mmap
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cornernet_runtime.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Iterable

PLUGIN_VARIABLE = "CORNERNET_PLUGIN"
PACKAGED_PLUGIN = Path(__file__).with_name("lib") / "libcornernet_plugins.so"  # in a wheel made by `make wheel`
BUILT_PLUGIN = Path(__file__).resolve().parents[2] / "build" / "release" / "plugins" / PACKAGED_PLUGIN.name
BUILD_COMMAND = "cmake --preset release && cmake --build --preset release"

_MARK = re.compile(rb"cornernet_plugins version ([0-9][0-9A-Za-z.+-]*) for TensorRT ([0-9]+)\0")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """What a library of plugins says of itself.

    Attributes:
        version: Of this project, when the library was built.
        tensorrt: The major version of TensorRT that it was built for, and that can load it.
    """

    version: str
    tensorrt: int


def find_plugin(places: Iterable[Path] | None = None) -> Path | None:
    """Return the library that ``CORNERNET_PLUGIN`` names, else the first of ``places`` that is there, else None.

    Args:
        places: Where to look; by default in this installation, then in this checkout.

    Raises:
        PluginError: The variable names no file.
    """
    named = os.environ.get(PLUGIN_VARIABLE)
    if not named:
        places = (PACKAGED_PLUGIN, BUILT_PLUGIN) if places is None else places
        return next((path for path in places if path.is_file()), None)
    if not Path(named).is_file():
        raise PluginError(f"{PLUGIN_VARIABLE} names no file: {named}; expected libcornernet_plugins.so")
    return Path(named)


def plugin_info(path: Path) -> PluginInfo:
    """Return what a library says of itself, without loading it: that needs neither TensorRT nor a GPU.

    Raises:
        PluginError: It cannot be read, or is no library of this project.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _MARK.search(data)
            info = PluginInfo(found[1].decode(), int(found[2])) if found else None
    except (OSError, ValueError) as error:  # ValueError: empty
        raise PluginError(f"{path}: cannot be read as a library of plugins: {error}") from error
    if info is None:
        raise PluginError(f"{path}: expected libcornernet_plugins.so of this project, found no version of it inside")
    return info
