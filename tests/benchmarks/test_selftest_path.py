"""The self-test's L6: which network it takes, what it holds it against, and what it makes of differences."""

import json
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import SMALL, SMALL_SPEC

from cornernet_bench import cli, kernels, selftest_path, selftest_run
from cornernet_bench.models import open_model
from cornernet_bench.selftest import Request, run_layer
from cornernet_bench.selftest_worker import Notes, find
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.model import CornerNet
from cornernet_runtime.errors import KernelError
from cornernet_runtime.kernels import device
from cornernet_runtime.machine import Gpu, ProbeError
from cornernet_runtime.pipeline import GpuPipeline
from cornernet_runtime.pipeline.gpu import STAGES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "selftest.md"
A_GPU = Gpu("a GPU", "9.0", "610.1", 1000)


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "found.json")


@pytest.fixture
def gpus(monkeypatch):
    """The GPUs that are found: none, until a test puts some in."""
    found = []
    monkeypatch.setattr(selftest_path, "find_gpus", lambda: found)
    monkeypatch.delenv(kernels.REQUIRE_GPU, raising=False)
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Pictures of blocks, which leave the small network something to find."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        cells = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cells.repeat(8, 0).repeat(8, 1))
    return folder


def request(model, images, **changes):
    return Request(model=str(model), images=str(images), **{"frames": 4, **changes})


def documented():
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Figures of L6\n")[2]
    return {name for line in section.splitlines() if "|" in line for name in re.findall(r"`(\w+)`", line)}


# Without a GPU.


@pytest.mark.usefixtures("gpus")
def test_a_checkpoint_is_exported_and_held_against_pytorch(checkpoint_path, images, notes):
    found = find("L6", request(checkpoint_path, images), notes)
    assert found.state == "passed", found
    figures = found.figures
    assert figures["network"] == "ONNX Runtime on the CPU, fp32"
    assert figures["pictures"] == 3
    assert figures["detections_matched"] == figures["detections_reference"] > 10
    assert figures["detections_extra"] == 0
    assert figures["timed_frames"] == 4
    assert 0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
    assert 10 < figures["host_memory_before_mib"] < 1e5
    assert set(figures) <= documented()
    count = figures["detections_reference"]
    assert found.said.startswith(f"ONNX Runtime on the CPU, fp32: {count} of {count} detections matched, p50 ")


@pytest.fixture
def whole_bundle(bundle, checkpoint_path):
    """A bundle with its checkpoint inside, as of a published one."""
    shutil.copy(checkpoint_path, bundle / "checkpoint.safetensors")
    return bundle


@pytest.mark.usefixtures("gpus")
def test_a_bundle_with_its_checkpoint_inside_is_held_against_it(whole_bundle, images, notes):
    before = sorted(whole_bundle.iterdir())
    found = find("L6", request(whole_bundle, images, frames=0), notes)
    assert found.state == "passed"
    assert found.figures["detections_matched"] > 10
    assert "p50_ms" not in found.figures
    assert sorted(whole_bundle.iterdir()) == before


@pytest.mark.usefixtures("gpus")
def test_a_model_that_is_another_than_its_checkpoint_is_a_failure(bundle, images, notes):
    torch.manual_seed(1)
    save_checkpoint(bundle / "checkpoint.safetensors", CornerNet(SMALL).eval(), SMALL_SPEC)
    found = find("L6", request(bundle, images), notes)
    assert found.state == "failed"
    assert re.search(r"fp32: \d+ of \d+ detections matched and \d+ extra, 99\.5% required", found.said)
    assert found.figures["p50_ms"] > 0  # measured all the same


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize("name", ["", "model.onnx"], ids=["bundle", "onnx"])
def test_without_its_checkpoint_a_model_runs_and_is_held_against_nothing(bundle_path, images, notes, name):
    found = find("L6", request(bundle_path / name, images), notes)
    assert found.state == "passed"
    assert "no stage before it to compare with: --model CHECKPOINT, p50" in found.said
    assert "pictures" not in found.figures


@pytest.mark.usefixtures("gpus")
def test_pictures_on_which_nothing_is_found_prove_nothing(whole_bundle, images, notes, monkeypatch):
    monkeypatch.setattr(selftest_run, "compare_detections", _nothing)
    found = find("L6", request(whole_bundle, images), notes)
    assert found.state == "failed"
    assert "no detection of 0.1 or more on 3 pictures: name a folder of fitting ones with --images" in found.said


def _nothing(expected, found, *rest):
    from cornernet_export.verify import compare_detections  # noqa: PLC0415 - replaced where this is used

    return compare_detections(expected.above(2), found.above(2), *rest)


@pytest.mark.usefixtures("gpus")
def test_without_a_model_it_is_skipped(notes, monkeypatch, tmp_path):
    monkeypatch.setattr(selftest_path, "SHIPPED", tmp_path / "nowhere.safetensors")
    found = find("L6", Request(), notes)
    assert found.state == "skipped"
    assert "the shipped one is part of a checkout only; name one with --model" in found.said


@pytest.mark.usefixtures("gpus")
def test_without_pytorch_a_checkpoint_is_skipped(checkpoint_path, images, notes, monkeypatch):
    monkeypatch.setattr(selftest_path, "OF_EXPORT", ("torch", "no_such_package"))
    found = find("L6", request(checkpoint_path, images), notes)
    assert (found.state, found.said) == (
        "skipped",
        "exporting a checkpoint needs what is not installed: pip install no_such_package",
    )


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_is_required_and_absent_is_a_failure(checkpoint_path, images, notes, monkeypatch):
    monkeypatch.setenv(kernels.REQUIRE_GPU, "1")
    found = find("L6", request(checkpoint_path, images), notes)
    assert (found.state, found.said) == ("failed", "CORNERNET_REQUIRE_GPU=1, but there is no GPU")


def test_a_gpu_that_does_not_answer_is_a_failure(checkpoint_path, images, notes, monkeypatch):
    def hang():
        raise ProbeError("nvidia-smi did not answer within 10 seconds")

    monkeypatch.setattr(selftest_path, "find_gpus", hang)
    found = find("L6", request(checkpoint_path, images), notes)
    assert (found.state, found.said) == (
        "failed",
        "the GPU does not answer: nvidia-smi did not answer within 10 seconds",
    )


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("model", "said"),
    [("nowhere", "nowhere does not exist"), ("nowhere.safetensors", "nowhere.safetensors")],
)
def test_a_model_that_is_not_there_is_a_failure(images, notes, model, said):
    found = find("L6", request(model, images), notes)
    assert (found.state, said in found.said) == ("failed", True)


@pytest.mark.usefixtures("gpus")
def test_memory_that_grows_is_a_failure(whole_bundle, images, notes, monkeypatch):
    sizes = iter([{"host_memory": 100.0}, {"host_memory": 120.5}])
    monkeypatch.setattr(selftest_run, "_memory", lambda _device: next(sizes))
    found = find("L6", request(whole_bundle, images), notes)
    assert found.state == "failed"
    assert "host_memory grew by 20 MiB over 4 frames, 16 at most" in found.said
    assert found.figures["host_memory_after_mib"] == 120.5


@pytest.mark.skipif(not selftest_path.SHIPPED.is_file(), reason="the shipped model is part of a checkout only")
@pytest.mark.skipif(kernels._why_no_gpu() is None, reason="there is a GPU here")
def test_the_command_runs_the_shipped_model_on_scenes_with_ap(tmp_path, monkeypatch):
    monkeypatch.delenv(kernels.REQUIRE_GPU, raising=False)
    file = tmp_path / "report.json"
    arguments = ["--layers", "L6", "--scenes", "2", "--frames", "2", "--report", str(file)]
    assert cli.main(["selftest", *arguments]) == 0
    (layer,) = json.loads(file.read_text())["layers"]
    assert layer["state"] == "passed"
    figures = layer["figures"]
    assert figures["detections_matched"] == figures["detections_reference"] > 20
    assert figures["ap"] == pytest.approx(figures["ap_reference"], abs=0.1)
    assert 50 < figures["ap"] <= 100
    assert set(figures) <= documented()


# TensorRT, whose doubles have ONNX Runtime inside.


@pytest.fixture
def on_doubles(tensorrt, gpus, monkeypatch):
    """TensorRT on a GPU, which doubles stand for; they cannot tell times."""
    gpus.append(A_GPU)
    monkeypatch.setattr(GpuPipeline, "time_stages", lambda _pipeline, _frames: dict.fromkeys(STAGES, 0.25))
    return tensorrt


@pytest.mark.usefixtures("on_doubles")
@pytest.mark.parametrize("kind", ["bundle", "onnx"])
def test_with_tensorrt_an_engine_is_built_aside_and_held_against_onnx_runtime(bundle, images, notes, kind):
    model = {"bundle": bundle, "onnx": bundle / "model.onnx"}[kind]
    before = {path: path.read_bytes() for path in bundle.iterdir()}
    found = find("L6", request(model, images), notes)
    assert found.state == "passed", found
    figures = found.figures
    assert re.fullmatch(r"TensorRT 11\.[\d.]+, fp32, on .+", figures["network"])
    assert figures["detections_matched"] == figures["detections_reference"] > 10
    assert figures["stages_ms"] == dict.fromkeys(STAGES, 0.25)
    assert {check["stage"] for check in figures["verification"]["outputs"]} == {"ONNX Runtime -> TensorRT"}
    assert figures["engine"]["compute_capability"]
    assert figures["gpu_memory_after_mib"] == figures["gpu_memory_before_mib"]
    assert set(figures) <= documented() | set(STAGES)
    assert {path: path.read_bytes() for path in bundle.iterdir()} == before


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
    from device_double import HostNetwork
    from pipeline_cases import SPEC
    from cornernet_bench import selftest_path, selftest_run
    from cornernet_bench.models import open_model
    from cornernet_bench.selftest_run import Contest
    from cornernet_runtime import Detector
    from cornernet_runtime.backends.cuda_device import CudaDevice
    from cornernet_runtime.pipeline import GpuPipeline

    def in_torch(model, stack):
        backend, device = open_model(model).backend, CudaDevice()
        pipeline = GpuPipeline(device, HostNetwork(device, backend, SPEC), SPEC)
        candidate = Detector(backend, SPEC, pipeline=pipeline)
        return Contest("a pipeline", candidate, Detector(backend, SPEC), gpu=True)

    selftest_run.STAGE_RUNS = 1
    selftest_path.find_gpus = lambda: ("a GPU",)
    selftest_path._in_torch = in_torch
    """


def test_a_pipeline_is_compared_and_timed_stage_by_stage(
    gpu_driver, kernel_cache, checkpoint_path, images, tmp_path, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(ON_THE_CPU), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", os.fspath(gpu_driver))
    monkeypatch.setenv("CORNERNET_CACHE", str(kernel_cache))
    found, _ = run_layer("L6", request(checkpoint_path, images, frames=1), 300.0, lambda _line: None)
    assert found.state == "passed", found
    assert found.figures["detections_matched"] == found.figures["detections_reference"] > 10
    assert list(found.figures["stages_ms"]) == ["upload", "preprocess", "network", "decode", "soft_nms", "download"]
    assert found.figures["gpu"] == "no GPU"
