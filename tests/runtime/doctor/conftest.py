"""Machines that a test of the doctor makes up: programs, packages and libraries that are there or not."""

import ctypes
import importlib.metadata
import importlib.util
import sys

import pytest

from cornernet_runtime import plugin


@pytest.fixture(autouse=True)
def programs(tmp_path, monkeypatch):
    """The only folder on PATH: empty, so that a test decides which programs there are; no GPU driver, no TensorRT."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CORNERNET_PLUGIN", raising=False)
    for place in ("PACKAGED_PLUGIN", "BUILT_PLUGIN"):  # one may have been built here
        monkeypatch.setattr(plugin, place, tmp_path / "none.so")
    monkeypatch.setattr(ctypes, "CDLL", refuse_library)
    for module in ("tensorrt", "tensorrt_lean_bindings"):
        monkeypatch.setitem(sys.modules, module, None)  # what Python takes as: cannot be imported
    return folder


@pytest.fixture
def hide(monkeypatch):
    """Make these packages look as if they were not installed."""
    version, find_spec = importlib.metadata.version, importlib.util.find_spec

    def hide_distributions(*names):
        def version_of_others(name):
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.metadata, "version", version_of_others)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else find_spec(name))

    return hide_distributions


def refuse_library(name):
    raise OSError(f"{name}: cannot open shared object file")
