"""The self-test's L6 without a GPU: what it holds its network against, and what it makes of differences."""

import json
import re
import shutil

import pytest
import torch
from cases.selftest import _gpus, _images, _notes, assert_matched, documented, request  # noqa: F401 - fixtures
from cases.small import SMALL, SMALL_SPEC
from places import SHIPPED

from cornernet_bench import cli
from cornernet_bench.kernels import check as kernels
from cornernet_bench.selftest import contest as selftest_run
from cornernet_bench.selftest import path as selftest_path
from cornernet_bench.selftest.report import Request
from cornernet_bench.selftest.worker import find
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.model import CornerNet
from cornernet_runtime.machine import ProbeError


@pytest.mark.slow
@pytest.mark.usefixtures("gpus")
def test_a_checkpoint_is_exported_and_held_against_pytorch(checkpoint_path, images, notes):
    found = find("L6", request(checkpoint_path, images), notes)
    assert found.state == "passed", found
    figures = found.figures
    assert figures["network"] == "ONNX Runtime on the CPU, fp32"
    assert figures["pictures"] == 3
    assert_matched(figures, more_than=10)
    assert figures["detections_extra"] == 0
    assert figures["timed_frames"] == 4
    assert 0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
    assert 10 < figures["host_memory_before_mib"] < 1e5
    assert set(figures) <= documented()
    counts = f"{figures['detections_matched']} of {figures['detections_reference']}"
    ties = figures["detections_near_ties"] + figures["detections_extra_near_ties"]
    assert found.said.startswith(
        f"ONNX Runtime on the CPU, fp32: {counts} detections matched those of PyTorch, "
        + (f"{ties} more differ by near ties only, " if ties else "")
        + "AP was not compared (the pictures of --images have no annotations), p50 "
    )
    assert figures["held_against"] == "PyTorch"


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
def test_without_its_checkpoint_a_model_is_held_against_openvino(bundle_path, images, notes, name):
    pytest.importorskip("openvino")
    found = find("L6", request(bundle_path / name, images), notes)
    assert found.state == "passed"
    assert found.figures["held_against"] == "OpenVINO"
    assert_matched(found.figures, more_than=10)


@pytest.fixture
def no_openvino(monkeypatch):
    installed = selftest_path._installed
    monkeypatch.setattr(selftest_path, "_installed", lambda package: package != "openvino" and installed(package))


@pytest.mark.usefixtures("gpus", "no_openvino")
def test_a_model_held_against_nothing_is_partly_proven_if_it_is_timed_and_else_skipped(bundle_path, images, notes):
    found = find("L6", request(bundle_path, images), notes)
    assert found.state == "partly"
    assert re.match(
        r"ONNX Runtime on the CPU, fp32: p50 [\d.]+, p99 [\d.]+ ms a frame; nothing was compared", found.said
    )
    assert (
        "nothing was compared: no checkpoint is known: put it into the bundle as checkpoint.safetensors; "
        "or pip install openvino"
    ) in found.said
    assert found.figures["pictures"] == 0
    assert found.figures["ap_skipped"] == found.figures["held_against"]
    found = find("L6", request(bundle_path, images, frames=0), notes)
    assert (found.state, found.said.startswith("nothing was compared: no checkpoint")) == ("skipped", True)


@pytest.mark.usefixtures("gpus")
def test_an_engine_without_a_gpu_is_said_to_be_unused(whole_bundle, images, notes, monkeypatch):
    monkeypatch.setattr(selftest_path, "_has_engine", lambda model: model == whole_bundle)
    found = find("L6", request(whole_bundle, images, frames=0), notes)
    assert found.state == "partly"
    assert found.said.endswith("; the bundle's engine was not used: there is no GPU")
    assert found.figures["detections_matched"] > 10


@pytest.mark.usefixtures("gpus")
def test_pictures_on_which_nothing_is_found_prove_nothing(whole_bundle, images, notes, monkeypatch):
    monkeypatch.setattr(selftest_run, "compare_detections", _nothing)
    found = find("L6", request(whole_bundle, images), notes)
    assert found.state == "partly"
    nothing = "nothing was compared: no detection of 0.1 or more on 3 pictures: name a folder of fitting ones"
    assert nothing in found.said
    assert found.figures["pictures"] == 3
    assert found.figures["ap_skipped"] == "the pictures of --images have no annotations"


@pytest.mark.usefixtures("gpus")
def test_scenes_of_other_classes_give_no_ap_and_without_detections_prove_nothing(whole_bundle, notes, monkeypatch):
    monkeypatch.setattr(selftest_run, "compare_detections", _nothing)
    found = find("L6", Request(model=str(whole_bundle), scenes=1, frames=0), notes)
    assert found.state == "skipped"
    assert "nothing was compared: no detection of 0.1 or more on 1 picture: name" in found.said
    assert found.figures["ap_skipped"] == "the drawn scenes are of other classes than the model's"


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED.is_file(), reason="the shipped model is part of a checkout only")
@pytest.mark.usefixtures("gpus")
def test_no_detection_on_scenes_of_the_models_classes_is_a_failure(notes, monkeypatch):
    monkeypatch.setattr(selftest_run, "compare_detections", _nothing)
    found = find("L6", Request(scenes=1, frames=0), notes)
    assert found.state == "failed"
    assert "no detection of 0.1 or more on 1 picture, which show what the model knows" in found.said


def _nothing(expected, found, *rest):
    from cornernet_export.verification.verify import compare_detections  # noqa: PLC0415 - replaced where this is used

    return compare_detections(expected.above(2), found.above(2), *rest)


@pytest.mark.usefixtures("gpus")
def test_without_a_model_it_is_skipped(notes, tmp_path):
    found = find("L6", Request(checkout=str(tmp_path)), notes)
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


@pytest.mark.slow
@pytest.mark.skipif(not SHIPPED.is_file(), reason="the shipped model is part of a checkout only")
@pytest.mark.skipif(kernels._why_no_gpu() is None, reason="there is a GPU here")
def test_the_command_runs_the_shipped_model_on_scenes_with_ap(tmp_path, monkeypatch):
    monkeypatch.delenv(kernels.REQUIRE_GPU, raising=False)
    file = tmp_path / "report.json"
    arguments = ["--layers", "L6", "--scenes", "2", "--frames", "2", "--report", str(file)]
    assert cli.main(["selftest", *arguments]) == 0
    (layer,) = json.loads(file.read_text())["layers"]
    assert layer["state"] == "passed"
    figures = layer["figures"]
    assert_matched(figures, more_than=20)
    assert figures["ap"] == pytest.approx(figures["ap_reference"], abs=0.1)
    assert 50 < figures["ap"] <= 100
    assert set(figures) <= documented()
