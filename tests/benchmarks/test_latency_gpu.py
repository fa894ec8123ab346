"""``cornernet-bench latency`` around an engine, on doubles of TensorRT and of a GPU."""

from __future__ import annotations

import pytest

from cornernet_bench.latency_report import LatencyRequest
from cornernet_bench.latency_subjects import open_baseline, open_detector
from cornernet_export.engine import EngineRequest, add_engine
from cornernet_runtime.errors import BackendError


@pytest.fixture
def engine(tensorrt, bundle, plugin_library, monkeypatch):
    """A bundle with an engine, in a process that has not read it yet."""
    monkeypatch.setenv("CORNERNET_PLUGIN", str(plugin_library))
    add_engine(EngineRequest(bundle))
    tensorrt.registered.clear()
    return bundle


def test_the_baseline_of_an_engine_needs_a_gpu_in_pytorch(engine):
    request = LatencyRequest(engine, baseline=True)
    with open_detector(request) as detector, pytest.raises(BackendError, match="this PyTorch knows no GPU"):
        open_baseline(request, detector, [])


def test_threads_are_not_for_an_engine(engine):
    with pytest.raises(BackendError, match="runs its engine; add --backend onnxruntime"):
        open_detector(LatencyRequest(engine, threads=1))
    with open_detector(LatencyRequest(engine, threads=1, backend="onnxruntime")) as detector:
        assert detector.backend.name == "onnxruntime"
