"""Runs cases of the GPU pipeline in a process of its own, over the driver that is none.

``python -m cases.pipeline_run FILE MODULE`` runs the cases of a module and writes what went wrong, by the name of the
case, as JSON. NVIDIA's bindings and cuda.core are the real ones, and kernels run on the CPU.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch


def cases_of(module):
    """Return the functions of a module whose names say what holds, three words or more, by name."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name.count("_") > 1
    }


def run_all(module):
    """Return the traceback of each case, or None where all was well."""
    outcomes = {}
    for name, case in cases_of(module).items():
        start = time.perf_counter()
        outcomes[name] = None
        try:
            case()
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - reported
            outcomes[name] = traceback.format_exc()
        sys.stderr.write(f"{time.perf_counter() - start:.1f} s {name}\n")
    return outcomes


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = run_all(importlib.import_module(sys.argv[2]))
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")
