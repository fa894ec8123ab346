"""``cornernet-bench latency`` around an engine, on doubles of TensorRT and of a GPU: its stages are the GPU's."""

from __future__ import annotations

import json

import pytest
from cases.report_schema import problems
from doubles.checked import Checked

from cornernet_bench.cli import main
from cornernet_bench.latency.baseline_run import open_baseline
from cornernet_bench.latency.request import LatencyRequest
from cornernet_bench.models.open import open_detector
from cornernet_bench.models.subject import Subject
from cornernet_export.engine.add import EngineRequest, add_engine
from cornernet_runtime.errors import BackendError


@pytest.fixture
def engine(tensorrt, bundle, plugin_library, monkeypatch):
    """A bundle with an engine, in a process that has not read it yet."""
    monkeypatch.setenv("CORNERNET_PLUGIN", str(plugin_library))
    add_engine(EngineRequest(bundle))
    tensorrt.registered.clear()
    return bundle


@pytest.mark.slow
def test_an_engine_is_timed_by_the_gpu_and_from_end_to_end_apart(engine, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(Checked, "__sub__", lambda *_: 1.5, raising=False)  # of two events: the doubles know no time
    arguments = ["--iterations", "2", "--warm-up", "1", "--frame", "60x90", "--batch", "1,2"]
    assert main(["latency", str(engine), *arguments, "--json", str(tmp_path / "a.json")]) == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert problems(report, "latency") == []
    assert report["model"]["backend"] == "tensorrt"
    for result in report["results"]:
        measured = result["model"]
        assert measured["clock"] == "gpu_events"
        names = ["upload", "preprocess", "network", "decode", "soft_nms", "download"]
        assert list(measured["stages"]) == names
        assert {stage["p50_ms"] for stage in measured["stages"].values()} == {1.5 * result["batch"]}  # one frame a run
        assert measured["gpu_compute"]["p50_ms"] == 6 * result["batch"]  # no copies
        assert measured["gpu_compute"]["count"] == measured["end_to_end"]["count"] == 2
    said = capfd.readouterr().out
    assert "GPU compute" in said
    assert "the rows above it are times of the GPU, from runs of their own" in said


def test_a_size_keeps_the_pipeline_around_an_engine(engine):
    with open_detector(Subject(engine, size=(63, 95), flip=True)) as detector:
        assert detector.pipeline is not None
        assert detector.spec.sizes == ((63, 95),)


def test_the_baseline_of_an_engine_needs_a_gpu_in_pytorch(engine):
    request = LatencyRequest(Subject(engine), baseline=True)
    with open_detector(request.subject) as detector, pytest.raises(BackendError, match="this PyTorch knows no GPU"):
        open_baseline(request, detector, [])


def test_threads_are_not_for_an_engine(engine):
    with pytest.raises(
        BackendError, match=r"^--threads is for the CPU, and tensorrt runs on the GPU: name a --backend"
    ):
        open_detector(Subject(engine, threads=1))
    with open_detector(Subject(engine, threads=1, backend="onnxruntime")) as detector:
        assert detector.backend.name == "onnxruntime"
