"""What the doctor says of packages: installed, missing, broken."""

import os
import re
import sys
import tomllib

import av
import cv2
import numpy as np
import onnxruntime
import pytest
from cases.doctor import fact_of, facts, run_doctor
from places import ROOT

from cornernet_runtime import doctor
from cornernet_runtime.cli.doctor import main
from cornernet_runtime.doctor import diagnose
from cornernet_runtime.opening import BACKENDS
from cornernet_runtime.video import writer


def test_versions_are_those_that_the_packages_report_themselves():
    found = facts()
    assert found["numpy"].value == np.__version__
    assert found["opencv"].value.startswith(cv2.__version__)
    assert found["onnxruntime"].value.startswith(f"{onnxruntime.__version__} (providers: ")
    assert found["python"].value == f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"


def test_execution_providers_are_those_of_onnxruntime():
    assert diagnose().execution_providers == tuple(onnxruntime.get_available_providers())


@pytest.mark.parametrize(
    ("distribution", "key", "command"),
    [
        ("torch", "torch", 'pip install ".[export]"'),
        ("pycocotools", "pycocotools", 'pip install ".[bench]"'),
        ("openvino", "openvino", "pip install openvino"),
        ("av", "av", 'pip install ".[video]"'),
        ("ray", "ray", 'pip install ".[cluster]"'),
    ],
)
def test_missing_package_is_optional_and_has_its_command(hide, distribution, key, command):
    hide(distribution)
    fact = facts()[key]
    assert (fact.state, fact.value, fact.command) == ("missing", "", command)
    assert fact.purpose


def test_missing_torch_leaves_the_installation_usable_without_export_and_training(hide):
    hide("torch")
    report = diagnose()
    assert report.usable
    assert {"export (no PyTorch)", "train (no PyTorch)"} <= set(report.cannot)
    assert report.can[0].startswith("detect on the CPU (ONNX Runtime")


def test_extras_in_commands_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    commands = " ".join(command or "" for *_, command in doctor._ROWS.values())
    extras = set(re.findall(r"pip install \"\.\[(\w+)\]\"", commands))
    assert {"bench", "export", "video"} <= extras <= set(project["optional-dependencies"])


def test_pyav_has_its_encoder_of_h264_beside_its_version(monkeypatch):
    assert facts()["av"].value == f"{av.__version__} (H.264 encoder: {writer.ENCODERS[0]})"
    assert (*doctor._H264_ENCODERS, "mpeg4") == writer.ENCODERS
    for has, note in (
        ({"libopenh264", "h264"}, "H.264 encoder: libopenh264"),
        ({"h264", "mpeg4"}, "no H.264 encoder: annotated videos become MPEG-4 part 2"),
    ):
        monkeypatch.setattr(av, "codecs_available", has)
        assert facts()["av"].value == f"{av.__version__} ({note})"


def test_pyav_that_does_not_load_is_a_problem_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    fact = facts()["av"]
    assert (fact.state, fact.command) == ("problem", 'pip install --force-reinstall "av>=18,<19"')
    assert fact.value.startswith("ModuleNotFoundError: import of av halted")


def test_both_onnxruntime_distributions_are_a_problem_that_says_how_to_end_it(install, capsys):
    install("onnxruntime-gpu", "1.24.0")
    assert main([]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"onnxruntime {onnxruntime.__version__}, onnxruntime-gpu 1.24.0 exclude each other" in lines[0]
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime" in lines[0]
    assert "export" in diagnose().can  # the one that won does run


def test_nothing_can_run_without_onnxruntime(hide, capsys):
    hide("onnxruntime", "onnxruntime-gpu", "openvino")
    assert main([]) == 1
    output = capsys.readouterr()
    assert "cannot: detect (no ONNX Runtime), export (no ONNX Runtime)" in output.out
    assert output.err.count("\n") == 1
    assert "ONNX Runtime: not installed: no model can run (type: pip install onnxruntime)" in output.err


@pytest.mark.parametrize("missing", [None, "gpu", "tensorrt", "cuda_python", "openvino"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_backends_are_those_of_the_detector_that_can_run_here(monkeypatch, missing, bfloat16):
    def fact(key):
        return doctor._fact(key, "missing" if key == missing else "ok")

    package = doctor._package_fact
    monkeypatch.setattr(doctor, "_gpu_fact", lambda: ((), fact("gpu")))
    monkeypatch.setattr(doctor, "_tensorrt_fact", lambda: fact("tensorrt"))
    monkeypatch.setattr(
        doctor, "_package_fact", lambda key: fact(key) if key in {"cuda_python", "openvino"} else package(key)
    )
    monkeypatch.setattr(doctor, "has_bfloat16", lambda: bfloat16)
    report = diagnose()
    here = {"onnxruntime"}
    if missing != "openvino":
        here |= {"openvino", "openvino-bf16"} if bfloat16 else {"openvino"}
    if missing in {None, "openvino"}:
        here.add("tensorrt")
    assert report.backends == tuple(name for name in BACKENDS if name in here)
    assert ("TensorRT engine" in report.can) == ("tensorrt" in here)
    on_cpu = "ONNX Runtime" if missing == "openvino" else "ONNX Runtime, OpenVINO"
    assert report.can[0] == f"detect on the CPU ({on_cpu})"


def test_onnxruntime_that_does_not_load_is_a_problem_with_the_reason(tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise OSError('libfoo.so:\\n no such file')")
    done = run_doctor(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'runtime'}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ONNX Runtime: OSError: libfoo.so: no such file (type: pip install ")
    assert done.stderr.count("\n") == 1


def test_onnxruntime_whose_files_are_gone_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    fact = facts()["onnxruntime"]
    assert (fact.state, fact.value) == ("problem", "its files are missing")


def test_numpy_that_does_not_load_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)  # what Python takes as: cannot be imported
    report = diagnose()
    assert fact_of(report, "numpy").state == "problem"
    assert (report.usable, report.backends) == (False, ())
    assert "detect (no NumPy)" in report.cannot


def test_lean_tensorrt_is_named_as_such(install, tmp_path, monkeypatch):
    install("tensorrt-lean-cu13-bindings", "11.4.0.1")
    assert facts()["tensorrt"].state == "missing"  # its module decides
    monkeypatch.delitem(sys.modules, "tensorrt_lean_bindings")
    (tmp_path / "site" / "tensorrt_lean_bindings").mkdir()
    (tmp_path / "site" / "tensorrt_lean_bindings" / "__init__.py").write_text("raise ImportError")
    fact = facts()["tensorrt"]
    assert (fact.state, fact.value) == ("missing", "lean only, 11.4.0.1")


def test_plugin_is_looked_for_at_the_path_in_the_environment(monkeypatch, tmp_path):
    fact = facts()["plugin"]
    assert (fact.value, fact.command) == ("in no usual place; built in a checkout", "make wheel")
    library = tmp_path / "libcornernet.so"
    monkeypatch.setenv("CORNERNET_PLUGIN", str(library))
    assert facts()["plugin"].state == "problem"
    library.touch()
    assert facts()["plugin"].state == "problem"
    library.write_bytes(b"\0cornernet_plugins version 1.2.3 for TensorRT 11\0")
    assert (facts()["plugin"].state, facts()["plugin"].value) == ("ok", f"1.2.3 for TensorRT 11 ({library})")


@pytest.fixture
def install(monkeypatch, tmp_path):
    """Write the metadata of a package, as pip does, without any module."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def write_metadata(name, version):
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return write_metadata
