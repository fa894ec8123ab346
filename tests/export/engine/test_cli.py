"""``cornernet-export --engine``: with doubles of TensorRT, and on a machine that has neither TensorRT nor a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import python_path

from cornernet_export import bundle_export
from cornernet_export.cli import main
from cornernet_export.engine.build import EngineOptions
from cornernet_runtime import Detector
from cornernet_runtime.bundle.manifest import read_manifest


@pytest.fixture
def no_tensorrt(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as if it were not installed


def complaints(capfd):
    """Return the lines that were written for people."""
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err.splitlines()


def last_line(capfd):
    return complaints(capfd)[-1]


@pytest.mark.usefixtures("no_tensorrt")
def test_without_tensorrt_the_bundle_is_written_and_one_line_says_why_it_has_no_engine(
    checkpoint_path, bundle_path, tmp_path, capfd, monkeypatch
):
    import onnx  # noqa: PLC0415 - the exporter's seconds are spared

    monkeypatch.setattr(bundle_export, "build_onnx", lambda *_: onnx.load(bundle_path / "model.onnx"))
    output = tmp_path / "bundle"
    assert main([str(checkpoint_path), "--output", str(output), "--engine", "--require-plugin", "--tf32"]) == 1
    first, *_, last = complaints(capfd)
    assert first == "there will be no engine: TensorRT is not installed; pip install tensorrt"  # before the export
    assert last == (
        "error: no TensorRT engine can be built here: TensorRT is not installed; pip install tensorrt; "
        f"{output} holds the ONNX model, and where there are TensorRT and a GPU this adds the engine: "
        f"cornernet-export {output} --engine --require-plugin --tf32"
    )
    assert sorted(path.name for path in output.iterdir()) == ["bundle.json", "model.onnx"]
    assert read_manifest(output).engine is None
    assert Detector.open(output).backend.name == "onnxruntime"


def test_without_a_gpu_one_line_says_so(tensorrt, bundle, capfd):
    tensorrt.gpu.broken = "CUDA_ERROR_NO_DEVICE"
    assert main([str(bundle), "--engine"]) == 1
    assert last_line(capfd).startswith(
        "error: no TensorRT engine can be built here: GPU 0 cannot be used: CUDA_ERROR_NO_DEVICE"
    )
    assert read_manifest(bundle).engine is None


def test_a_bundle_gets_an_engine_and_the_summary_says_what_it_is(tensorrt, bundle, plugin_library, capfd):
    command = [str(bundle), "--engine", "--plugin", str(plugin_library), "--require-plugin"]
    assert main(command) == 0
    err = capfd.readouterr().err
    assert "ONNX Runtime -> TensorRT: largest error of each output" in err
    assert f"TensorRT {tensorrt.version}, NVIDIA H200, compute capability 9.0" in err
    assert "input 1x3x63x95; corner pooling by plugin 1.2.3" in err
    assert "5 layers, 1 of them reformat, 2 plugin; their outputs: 5 FP32" in err
    assert f"to run it: export CORNERNET_PLUGIN={plugin_library}" in err


def test_options_reach_the_builder(tensorrt, bundle, plugin_library, tmp_path):
    flags = ["--portable", "--tf32", "--optimization-level", "1", "--hardware-compatibility", "same_compute_capability"]
    cache = tmp_path / "timings"
    command = [str(bundle), "--engine", "--plugin", str(plugin_library), "--timing-cache", str(cache)]
    assert main([*command, *flags]) == 0
    (config,) = tensorrt.configs
    assert {flag.name for flag in config._flags} == {"TF32", "VERSION_COMPATIBLE"}
    assert config.builder_optimization_level == 1
    assert config.hardware_compatibility_level.name == "SAME_COMPUTE_CAPABILITY"
    assert cache.read_bytes() == b"TIMINGS conv 1"
    record = read_manifest(bundle).engine
    assert (record.portable, record.tf32, record.hardware_compatibility) == (True, True, "same_compute_capability")


@pytest.mark.usefixtures("tensorrt")
def test_a_portable_engine_is_said_to_carry_code(bundle, plugin_library, capfd):
    assert main([str(bundle), "--engine", "--plugin", str(plugin_library), "--portable"]) == 0
    assert (
        "carries executable code; opening it needs Detector.open(..., allow_engine_code=True)" in capfd.readouterr().err
    )


def test_force_keeps_an_engine_that_gives_other_maps_and_says_so(tensorrt, bundle, capfd):
    tensorrt.error = 0.01
    assert main([str(bundle), "--engine"]) == 1
    assert "differs from ONNX Runtime by more than the tolerance" in last_line(capfd)
    assert main([str(bundle), "--engine", "--force"]) == 0
    assert "kept because of --force, although it failed verification" in capfd.readouterr().err


@pytest.mark.usefixtures("tensorrt")
def test_a_missing_plugin_is_one_line_of_warning(bundle, capfd):
    assert main([str(bundle), "--engine"]) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if "standard operators, a dozen" in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: corner pooling is built from standard operators")


@pytest.mark.usefixtures("tensorrt")
def test_a_plugin_that_is_no_file_is_refused_before_the_export(checkpoint_path, tmp_path, capfd):
    output = tmp_path / "bundle"
    assert main([str(checkpoint_path), "--output", str(output), "--engine", "--plugin", str(tmp_path / "x.so")]) == 1
    assert "x.so is no file" in last_line(capfd)
    assert not output.exists()


def test_a_bundle_gets_an_engine_without_pytorch():
    code = "import sys; sys.modules['torch'] = None; import cornernet_export.cli, cornernet_export.engine.add"
    environment = {**os.environ, "PYTHONPATH": python_path(*sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.safetensors"], "required: --output"),
        (["x.safetensors", "--engine"], "x.safetensors does not exist"),
        (
            ["x.safetensors", "--output", "y", "--portable", "--plugin", "p.so"],
            "--plugin, --portable: only with --engine",
        ),
        (["x.safetensors", "--output", "y", "--batch", "0"], "expected N, or rising MIN:OPT:MAX"),
        (["x.safetensors", "--output", "y", "--batch", "4:2:8"], "expected N, or rising MIN:OPT:MAX"),
        (["x.safetensors", "--output", "y", "--batch", "1:2"], "expected N, or rising MIN:OPT:MAX"),
    ],
)
def test_wrong_usage_ends_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_bundle_is_not_exported_anew(bundle, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(bundle), "--engine", "--size", "63x95", "--batch", "2"])
    assert caught.value.code == 2
    assert "--batch, --size: not with a bundle" in capsys.readouterr().err


def test_a_bundle_takes_no_output(bundle, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(bundle), "--engine", "--output", str(tmp_path / "other")])
    assert "--output: not with a bundle" in capsys.readouterr().err


def test_what_is_meant_is_told_where_a_bundle_or_a_part_of_one_is_named(bundle, tmp_path, capsys):
    for arguments, message in (
        ([str(bundle)], "--engine adds an engine to it, --triton DIR makes a model repository of it"),
        ([str(bundle / "model.onnx"), "--engine"], f"name the folder: cornernet-export {bundle} --engine"),
        ([str(tmp_path), "--engine"], f"{tmp_path} is no bundle: it holds no bundle.json"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert lines[-1].endswith(message)
        assert len(lines) == 3  # the usage takes two


def test_a_command_tells_the_options_that_are_not_the_usual_ones():
    options = EngineOptions(plugin=Path("a b.so"), portable=True, optimization_level=0, keep_failed=True)
    assert options.command(Path("x")) == (
        "cornernet-export x --engine --plugin 'a b.so' --portable --optimization-level 0 --force"
    )
    assert EngineOptions().command(Path("x")) == "cornernet-export x --engine"


@pytest.mark.parametrize(
    ("text", "batch"), [("1", (1, 1, 1)), ("8", (1, 8, 8)), ("2:2:2", (2, 2, 2)), ("1:4:16", (1, 4, 16))]
)
def test_batches_are_read(text, batch, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("cornernet_export.cli._export", lambda arguments: asked.append(arguments.batch) or 0)
    assert main(["x.safetensors", "--output", str(tmp_path / "y"), "--batch", text]) == 0
    assert asked == [batch]
