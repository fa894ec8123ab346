"""The export left out, or not to be reached, and an output folder that exists."""

from __future__ import annotations

import onnx
import pytest

from cornernet_export import bundle_export


@pytest.fixture
def quick(monkeypatch, bundle_path):
    """Spare the seconds that torch.onnx.export takes where the graph is not what is tested; returns the sizes asked."""
    sizes = []

    def build(_model, spec):
        sizes.append(spec.input_size)
        return onnx.load(bundle_path / "model.onnx")

    monkeypatch.setattr(bundle_export, "build_onnx", build)
    return sizes


@pytest.fixture
def no_export(monkeypatch):
    """Fail where a command goes as far as exporting."""

    def build(_model, _spec):
        pytest.fail("the export began before its arguments were checked")

    monkeypatch.setattr(bundle_export, "build_onnx", build)
