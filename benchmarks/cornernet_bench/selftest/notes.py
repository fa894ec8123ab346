"""What a layer of the self-test tells while it works."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cornernet_bench.selftest.report import PROGRESS, Finding
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path


class Notes:
    """What a layer tells while it works, so that it is known if the layer crashes.

    Args:
        file: Where the process that started this one looks.
    """

    def __init__(self, file: Path) -> None:
        self.figures: dict[str, Any] = {}
        self._file = file

    def say(self, line: str) -> None:
        """Print a line of progress."""
        print(f"{PROGRESS}{line}", flush=True)  # noqa: T201 - read by the other process

    def keep(self, **figures: Any) -> None:  # noqa: ANN401 - JSON is any of six types
        """Add figures, as JSON."""
        self.figures |= figures
        self.write(Finding(None, "", self.figures))

    def write(self, finding: Finding) -> None:
        """Replace what is known of the layer."""
        write_atomically(self._file, json.dumps(to_json(finding)))
