"""A program that streams, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from places import ROOT, python_path


def start(code):
    folders = [ROOT / name for name in ("runtime", "export", "training", "benchmarks")]
    environment = {**os.environ, "PYTHONPATH": python_path(*folders)}
    return subprocess.Popen(  # noqa: S603 - our own code
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
