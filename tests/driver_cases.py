"""Test cases that run in a process of their own, in which the driver is that of tests/kernels/fake_driver.c."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
import traceback

import pytest
from host_cuda import ROOT


def cases_of(namespace):
    """Return the functions of a module, given its ``globals()``, whose names read as sentences."""
    return {
        name: value
        for name, value in namespace.items()
        if inspect.isfunction(value) and value.__module__ == namespace["__name__"] and name.count("_") > 1
    }


def run_cases(cases, report):
    """Run cases, and write the traceback of each, or null where all was well, to a JSON file."""
    outcomes = dict.fromkeys(cases)
    for name, case in cases.items():
        start = time.perf_counter()
        try:
            case()
        except (Exception, pytest.fail.Exception):  # noqa: BLE001 - reported
            outcomes[name] = traceback.format_exc()
        sys.stderr.write(f"{time.perf_counter() - start:.1f} s {name}\n")
    report.write_text(json.dumps(outcomes), encoding="utf-8")


def outcomes_of(module, driver, cache, folder):
    """Run ``python -m module FILE`` with the driver in a folder, and return what the file says then."""
    folders = [ROOT / name for name in ("runtime", "export", "benchmarks", "training", "tests")]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str(driver),
        "FAKE_ORDER": "-1",  # work is done as late as may be
        "CORNERNET_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
    }
    report = folder / "report.json"
    command = [sys.executable, "-m", module, str(report)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    sys.stderr.write(done.stderr)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(report.read_text())
