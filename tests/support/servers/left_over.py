"""What a stream must not leave behind."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path


def threads_and_files():
    """Return how many threads there are, and how many open files where the system tells."""
    gc.collect()
    folder = Path("/proc/self/fd")
    return threading.active_count(), len(os.listdir(folder)) if folder.exists() else 0  # noqa: PTH208 - counted only
