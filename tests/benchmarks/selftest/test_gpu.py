"""The self-test's L6 on a GPU: which network it takes there. Doubles of TensorRT, and a driver on the CPU, stand in."""

import json
import os
import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from cases.selftest import _gpus, _images, _notes, assert_matched, documented, request  # noqa: F401 - fixtures

from cornernet_bench.models.open import open_model
from cornernet_bench.selftest import path as selftest_path
from cornernet_bench.selftest.report import Request
from cornernet_bench.selftest.run import run_layer
from cornernet_bench.selftest.worker import find
from cornernet_export.engine.add import EngineRequest, add_engine
from cornernet_runtime.errors import CornerNetWarning, KernelError
from cornernet_runtime.kernels import device
from cornernet_runtime.machine import Gpu
from cornernet_runtime.pipeline import GpuPipeline
from cornernet_runtime.pipeline.gpu import STAGES

A_GPU = Gpu("a GPU", "9.0", "610.1", 1000)


# TensorRT, whose doubles have ONNX Runtime inside.


@pytest.fixture
def on_doubles(tensorrt, gpus, monkeypatch):
    """TensorRT on a GPU, which doubles stand for; they cannot tell times."""
    gpus.append(A_GPU)
    monkeypatch.setattr(GpuPipeline, "time_stages", lambda _pipeline, _frames: dict.fromkeys(STAGES, 0.25))
    return tensorrt


@pytest.mark.slow
@pytest.mark.usefixtures("on_doubles")
@pytest.mark.parametrize("kind", ["bundle", "onnx"])
def test_with_tensorrt_an_engine_is_built_aside_and_held_against_onnx_runtime(bundle, images, notes, kind):
    model = {"bundle": bundle, "onnx": bundle / "model.onnx"}[kind]
    before = {path: path.read_bytes() for path in bundle.iterdir()}
    found = find("L6", request(model, images), notes)
    assert found.state == "passed", found
    figures = found.figures
    assert re.fullmatch(r"TensorRT 11\.[\d.]+, fp32, on .+", figures["network"])
    assert_matched(figures, more_than=10)
    assert figures["stages_ms"] == dict.fromkeys(STAGES, 0.25)
    assert {check["stage"] for check in figures["verification"]["outputs"]} == {"ONNX Runtime -> TensorRT"}
    assert figures["engine"]["compute_capability"]
    assert figures["gpu_memory_after_mib"] == figures["gpu_memory_before_mib"]
    assert set(figures) <= documented() | set(STAGES)
    assert {path: path.read_bytes() for path in bundle.iterdir()} == before


@pytest.fixture
def own_engine(on_doubles, bundle):  # noqa: ARG001 - builds it
    """A bundle with an engine of this machine."""
    with pytest.warns(CornerNetWarning, match="no plugin found"):
        add_engine(EngineRequest(bundle))
    return bundle


def test_a_bundles_own_engine_is_what_is_tested(own_engine, on_doubles, images, notes):
    built = (own_engine / "model.engine").read_bytes()
    on_doubles.build_errors = ["no engine is to be built"]
    found = find("L6", request(own_engine, images), notes)
    assert found.state == "passed", found
    assert found.figures["network"] == "the bundle's own engine, fp32"
    assert found.figures["held_against"] == "ONNX Runtime"
    assert_matched(found.figures, more_than=10)
    assert found.figures["engine"]["compute_capability"]
    assert (own_engine / "model.engine").read_bytes() == built


def test_a_bundles_own_engine_that_is_off_is_a_failure(own_engine, on_doubles, images, notes):
    on_doubles.error = 0.5
    found = find("L6", request(own_engine, images, frames=0), notes)
    assert found.state == "failed"
    assert found.said.startswith("the bundle's own engine, fp32: ")


def test_an_engine_of_another_gpu_is_said_to_be_unused_and_another_is_built(own_engine, images, notes):
    file = own_engine / "bundle.json"
    content = json.loads(file.read_text())
    content["engine"]["compute_capability"] = "7.5"
    file.write_text(json.dumps(content))
    found = find("L6", request(own_engine, images), notes)
    assert found.state == "partly"
    assert re.match(r"TensorRT 11\.[\d.]+, fp32, on ", found.said)
    assert "the bundle's own engine was not used, another was built: " in found.said
    assert "7.5" in found.said
    assert found.figures["detections_matched"] > 10


@pytest.mark.slow
def test_with_tensorrt_a_checkpoint_becomes_a_float16_engine_held_against_pytorch(on_doubles, notes):
    on_doubles.half = True
    found = find("L6", Request(scenes=2, frames=2), notes)
    assert found.state == "passed", found
    assert re.fullmatch(r"TensorRT 11\.[\d.]+, fp16, on .+", found.figures["network"])
    assert found.figures["engine"]["precisions"]["FP16"] > 0
    assert found.figures["detections_reference"] > 20
    assert found.figures["ap_difference"] == pytest.approx(0, abs=0.2)


def test_an_engine_that_is_off_is_a_failure(on_doubles, bundle, images, notes):
    on_doubles.error = 0.1
    found = find("L6", request(bundle, images), notes)
    assert found.state == "failed"
    assert "the engine differs from ONNX Runtime by more than the tolerance" in found.said
    assert max(check["error"] for check in found.figures["verification"]["outputs"]) == pytest.approx(0.1, rel=0.1)


@pytest.mark.usefixtures("on_doubles")
def test_a_gpu_that_runs_the_network_only_is_a_failure(bundle, images, notes, monkeypatch):
    def fail(*_arguments):
        raise KernelError("NVRTC is not installed")

    monkeypatch.setattr(device, "load_program", fail)
    found = find("L6", request(bundle, images), notes)
    assert found.state == "failed"
    assert "nothing but the network ran on the GPU; " in found.said
    assert "NVRTC is not installed; frames are prepared" in found.said


def test_an_engine_that_cannot_be_built_is_a_failure(on_doubles, bundle, images, notes):
    on_doubles.build_errors = ["no memory for the engine"]
    found = find("L6", request(bundle, images), notes)
    assert found.state == "failed"
    assert "no memory for the engine" in found.said


# PyTorch on a GPU, where there is no TensorRT.


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_without_tensorrt_and_without_pytorch_for_cuda_is_skipped(gpus, checkpoint_path, images, notes):
    gpus.append(A_GPU)
    found = find("L6", request(checkpoint_path, images), notes)
    assert found.state == "skipped"
    assert found.said == (
        "TensorRT is not installed: pip install tensorrt; and in its place "
        f"PyTorch {torch.__version__} has no use of the GPU: install its build for CUDA"
    )


def test_a_gpu_without_tensorrt_runs_no_bundle(gpus, bundle_path, images, notes):
    gpus.append(A_GPU)
    found = find("L6", request(bundle_path, images), notes)
    assert found.state == "skipped"
    assert "PyTorch runs a checkpoint only (.safetensors, .pkl, .pth), got small" in found.said


def test_pytorch_on_the_gpu_is_asked_for_in_float16(gpus, tensorrt, checkpoint_path, images, notes, monkeypatch):
    """What opens it stands in for the GPU; the rest is as it is."""
    gpus.append(A_GPU)
    asked = []

    def opened(model, backend=None):
        asked.append(backend)
        return open_model(model, "torch-fp16" if backend else None)

    monkeypatch.setattr(selftest_path, "open_model", opened)
    monkeypatch.setattr(selftest_path, "_installed", lambda package: package != "tensorrt")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = find("L6", request(checkpoint_path, images), notes)
    assert asked == ["torch-cuda", None]
    assert found.figures["network"] == f"PyTorch {torch.__version__}, fp16, on the GPU"
    assert found.figures["gpu"] == tensorrt.gpu.name
    assert found.figures["detections_reference"] > 10


@pytest.mark.parametrize("other", [(), ("bindings",)])
def test_a_gpu_without_cuda_core_is_skipped(gpus, checkpoint_path, images, notes, monkeypatch, tmp_path, other):
    """PyTorch for CUDA brings ``cuda.bindings``, so there is a package ``cuda``."""
    gpus.append(A_GPU)
    for part in other:
        (tmp_path / "cuda" / part).mkdir(parents=True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(path for path in sys.path if not Path(path, "cuda").is_dir())])
    for name in ("torch", "safetensors"):
        assert name in sys.modules
    found = find("L6", request(checkpoint_path, images), notes)
    assert found.state == "skipped", found
    assert found.said.endswith('PyTorch on the GPU needs what is not installed: pip install "cuda-core[cu13]"')


# The real pipeline, on a driver that runs it on the CPU.

ON_THE_CPU = """
    from doubles.device_double import HostNetwork
    from cases.pipeline import SPEC
    from cornernet_bench.selftest import path as selftest_path, contest as selftest_run
    from cornernet_bench.models.open import open_model
    from cornernet_bench.selftest.contest import Contest
    from cornernet_runtime import Detector
    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.pipeline import GpuPipeline

    def in_torch(model, stack):
        backend, device = open_model(model).backend, CudaDevice()
        pipeline = GpuPipeline(device, HostNetwork(device, backend, SPEC), SPEC)
        candidate = Detector(backend, SPEC, pipeline=pipeline)
        return Contest("a pipeline", candidate, Detector(backend, SPEC), "PyTorch", gpu=True)

    selftest_run.STAGE_RUNS = 1
    selftest_path.find_gpus = lambda: ("a GPU",)
    selftest_path._in_torch = in_torch
    """


@pytest.mark.slow
def test_a_pipeline_is_compared_and_timed_stage_by_stage(
    gpu_driver, kernel_cache, checkpoint_path, images, tmp_path, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(ON_THE_CPU), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", os.fspath(gpu_driver))
    monkeypatch.setenv("CORNERNET_CACHE", str(kernel_cache))
    found, _ = run_layer("L6", request(checkpoint_path, images, frames=1), 300.0, lambda _line: None)
    assert found.state == "passed", found
    assert_matched(found.figures, more_than=10)
    assert list(found.figures["stages_ms"]) == ["upload", "preprocess", "network", "decode", "soft_nms", "download"]
    assert found.figures["gpu"] == "no GPU"
