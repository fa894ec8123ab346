"""The library of TensorRT plugins: where it is, and of which version."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

from cornernet_runtime.errors import PluginError

PLUGIN_VARIABLE = "CORNERNET_PLUGIN"
PACKAGED_PLUGIN = Path(__file__).with_name("lib") / "libcornernet_plugins.so"  # in a wheel made by `make wheel`

_VERSION = re.compile(rb"cornernet_plugins version ([0-9][0-9A-Za-z.+-]*)\0")


def find_plugin() -> Path | None:
    """Return the library that ``CORNERNET_PLUGIN`` names, else the one of this installation, else None.

    Raises:
        PluginError: The variable names no file.
    """
    named = os.environ.get(PLUGIN_VARIABLE)
    if not named:
        return PACKAGED_PLUGIN if PACKAGED_PLUGIN.is_file() else None
    if not Path(named).is_file():
        raise PluginError(f"{PLUGIN_VARIABLE} names no file: {named}; name libcornernet_plugins.so, or unset it")
    return Path(named)


def plugin_version(path: Path) -> str:
    """Return the version of a library of this project, without loading it: that needs neither TensorRT nor a GPU.

    Raises:
        PluginError: It cannot be read, or is no such library.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            found = _VERSION.search(data)
            version = found[1].decode() if found else None
    except (OSError, ValueError) as error:  # ValueError: empty
        raise PluginError(f"{path}: cannot be read as a library of plugins: {error}") from error
    if version is None:
        raise PluginError(f"{path}: expected libcornernet_plugins.so of this project, found no version of it inside")
    return version
