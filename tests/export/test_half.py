"""``--precision fp16`` from the command line: what it compares, and a network that leaves float16's range."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from cases.small import SMALL_SPEC, small_model
from places import SHIPPED

from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.cli import main
from cornernet_runtime.bundle.manifest import read_manifest
from cornernet_runtime.pictures import write_picture


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """A checkpoint in which one layer's values exceed 65504."""
    path, model = tmp_path_factory.mktemp("overflowing") / "hot.safetensors", small_model()
    model.merged[0].second[1].weight.data.mul_(3e5)
    save_checkpoint(path, model, SMALL_SPEC)
    return path


@pytest.mark.slow
def test_both_steps_are_verified_and_inputs_and_outputs_stay_float32(tmp_path):
    # The shipped model: with random weights detections are all near-ties, which half precision decides otherwise.
    assert main([str(SHIPPED), "--output", str(tmp_path / "half"), "--precision", "fp16"]) == 0
    manifest = read_manifest(tmp_path / "half")
    assert manifest.spec.precision == "fp16"
    stages = {check.stage for check in manifest.verification.outputs}
    assert stages == {"PyTorch fp32 -> PyTorch fp16", "PyTorch fp16 -> ONNX Runtime"}
    graph = onnx.load(tmp_path / "half" / "model.onnx").graph
    floats = {item.type.tensor_type.elem_type for item in (*graph.input, *graph.output)}
    assert floats == {onnx.TensorProto.FLOAT}
    weights = {item.data_type for item in graph.initializer if len(item.dims) == 4}
    assert onnx.TensorProto.FLOAT16 in weights


def test_an_overflow_names_its_layer_and_value_and_writes_nothing(overflowing, tmp_path, capsys):
    assert main([str(overflowing), "--output", str(tmp_path / "half"), "--precision", "fp16"]) == 1
    error = capsys.readouterr().err
    assert "layer merged.0.second.0 reaches" in error
    assert "float16 ends at 65504" in error
    assert "--force" in error
    assert not (tmp_path / "half").exists()


@pytest.mark.slow
def test_force_keeps_a_network_that_overflows_and_says_so(overflowing, tmp_path, capsys):
    flags = ["--output", str(tmp_path / "half"), "--precision", "fp16", "--force"]
    assert main([str(overflowing), *flags]) == 0
    error = capsys.readouterr().err
    assert "kept because of --force" in error
    assert "layer merged.0.second.0 reaches" in error
    assert not read_manifest(tmp_path / "half").verification.passed


@pytest.mark.slow
def test_pictures_of_ones_own_are_what_is_compared(checkpoint_path, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        frame = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        write_picture(folder / f"{seed}.png", frame)
    flags = ["--output", str(tmp_path / "own"), "--calibration", str(folder)]
    assert main([str(checkpoint_path), *flags]) == 0
    verification = read_manifest(tmp_path / "own").verification
    assert {check.source for check in verification.outputs} == {"3 pictures", "noise"}
    assert [check.source for check in verification.detections] == ["3 pictures"]


def test_a_folder_without_pictures_is_refused_before_any_work(checkpoint_path, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    flags = ["--output", str(tmp_path / "own"), "--calibration", str(tmp_path / "empty")]
    assert main([str(checkpoint_path), *flags]) == 1
    assert "no picture in this folder" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_force_does_not_hide_an_overflow_that_changes_nothing(tmp_path, capsys):
    path, model = tmp_path / "hot.safetensors", small_model()
    model.hourglasses[1].keep[0].second[1].bias.data[0] = -1e6  # a ReLU behind it makes it 0
    save_checkpoint(path, model, SMALL_SPEC)
    assert main([str(path), "--output", str(tmp_path / "half"), "--precision", "fp16", "--force"]) == 0
    assert "layer hourglasses.1.keep.0.second" in capsys.readouterr().err
    verification = read_manifest(tmp_path / "half").verification
    assert not verification.passed
    assert "reaches 1e+06" in verification.problems[0]
