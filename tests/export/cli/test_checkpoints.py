"""Checkpoints that ``cornernet-export`` cannot use."""

from __future__ import annotations

import re

import onnx
import pytest
from cases.export_cli import content_of, error_of
from cases.small import SMALL_SPEC, small_model
from safetensors.torch import save_file

from cornernet_export import bundle_export
from cornernet_export.checkpoint import save_checkpoint
from cornernet_export.cli import main


@pytest.fixture
def broken(request, checkpoint_path, tmp_path_factory):
    """A checkpoint with the fault that the test's parameter names."""
    path = tmp_path_factory.mktemp("broken") / "some.safetensors"
    content = checkpoint_path.read_bytes()
    if request.param == "truncated":
        path.write_bytes(content[:-100])
    elif request.param == "empty":
        path.write_bytes(b"")
    elif request.param == "text":
        path.write_text("no checkpoint\n" * 10)
    elif request.param == "foreign":
        save_file({"weight": small_model().stem[0][0].weight.detach()}, path)
    elif request.param == "newer":
        path.write_bytes(content.replace(b'schema_version\\": 1', b'schema_version\\": 2'))
    return path


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("missing", "no such file"),
        ("empty", "not a whole safetensors file"),
        ("truncated", "not a whole safetensors file"),
        ("text", "not a whole safetensors file"),
        ("foreign", "not a cornernet-trt checkpoint"),
        ("newer", "written with schema 2, this version reads up to 1"),
    ],
    indirect=["broken"],
    ids=lambda value: value if " " not in value else "",
)
@pytest.mark.parametrize("existing", [False, True], ids=["new", "force"])
def test_checkpoint_that_cannot_be_used_is_one_line_and_leaves_nothing(broken, message, existing, tmp_path, capfd):
    output = tmp_path / "deep" / "bundle"
    if existing:
        output.mkdir(parents=True)
        (output / "bundle.json").write_text("kept")
    assert main([str(broken), "--output", str(output), *["--force"][: int(existing)]]) == 1
    error = error_of(capfd)
    assert error.startswith(f"{broken}: ")
    assert message in error
    assert content_of(tmp_path) == ({"deep/bundle/bundle.json": b"kept"} if existing else {})
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


@pytest.mark.usefixtures("no_export")
def test_checkpoint_whose_tensors_disagree_prints_the_table(checkpoint_path, tmp_path, capfd):
    path = tmp_path / "some.safetensors"
    content = checkpoint_path.read_bytes()
    # The header says other widths; both texts keep their length.
    path.write_bytes(content.replace(b'\\"dims\\": [16, 16, 24]', b'\\"dims\\": [16, 16, 32]'))
    assert main([str(path), "--output", str(tmp_path / "bundle")]) == 1
    error = error_of(capfd, lines=1 + 1 + 10 + 1)
    assert "its tensors are not those of a small; " in error
    assert re.search(
        r"hourglasses\.0\.inner\.down\.0\.first\.0\.weight +float32 \[32, 16, 3, 3\] +float32 \[24, 16", error
    )
    assert re.search(r"\.\.\. and \d+ more$", error)
    assert [path.name for path in tmp_path.iterdir()] == ["some.safetensors"]


def test_weights_that_are_not_finite_fail_verification_and_leave_nothing(tmp_path, monkeypatch, capfd, bundle_path):
    """NaN equals nothing, not even the NaN of the export."""

    def build(_model, _spec):
        exported = onnx.load(bundle_path / "model.onnx")
        (tensor,) = (item for item in exported.graph.initializer if item.name == "stem.0.0.weight")
        weights = onnx.numpy_helper.to_array(tensor).copy()
        weights[:] = float("nan")
        tensor.CopyFrom(onnx.numpy_helper.from_array(weights, tensor.name))
        return exported

    monkeypatch.setattr(bundle_export, "build_onnx", build)
    model = small_model()
    model.stem[0][0].weight.data.fill_(float("nan"))
    save_checkpoint(tmp_path / "some.safetensors", model, SMALL_SPEC)
    assert main([str(tmp_path / "some.safetensors"), "--output", str(tmp_path / "bundle")]) == 1
    err = capfd.readouterr().err
    assert "not finite" in err
    assert err.splitlines()[-1].startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["some.safetensors"]
