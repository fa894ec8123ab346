"""Put the library of TensorRT plugins into a wheel when CORNERNET_WHEEL_PLUGIN names it, as `make wheel` does.

Without the variable a wheel is pure Python, and no compiler is needed to install this project.
"""

import os
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "CORNERNET_WHEEL_PLUGIN"


class PluginHook(BuildHookInterface):
    """Called by hatchling for each wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the library and name the platform, for a wheel that is no editable one."""
        named = os.environ.get(VARIABLE)
        if not named or version != "standard":
            return
        library = Path(self.root, named)
        if not library.is_file():
            raise FileNotFoundError(f"{VARIABLE} names no file: {library}; build it with: make wheel")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["force_include"][str(library)] = "cornernet_runtime/lib/libcornernet_plugins.so"
