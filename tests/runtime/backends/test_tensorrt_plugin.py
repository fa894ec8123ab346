"""The plugin library, and falling back to ONNX Runtime."""

from __future__ import annotations

import sys
import warnings

import pytest
from cases.engine import FRAME, change
from doubles.cuda_doubles import CudaError

from cornernet_runtime import Detector
from cornernet_runtime.backends import tensorrt_plugin
from cornernet_runtime.bundle.manifest import ONNX_NAME
from cornernet_runtime.errors import BackendError, CornerNetWarning, PluginError

# The plugin.


@pytest.mark.parametrize("creators", [(), ("TopLeftPool",), ("Other",)], ids=["refused", "one", "foreign"])
def test_a_library_that_brings_other_plugins_is_refused(tensorrt, engine, creators):
    tensorrt.library_creators = creators
    with pytest.raises(PluginError, match="does not take it as a library of the plugins TopLeftPool, BottomRightPool"):
        Detector.open(engine, backend="tensorrt")


@pytest.mark.usefixtures("tensorrt")
def test_a_file_that_is_no_library_of_ours_is_refused(tmp_path):
    (tmp_path / "x.so").write_bytes(b"\x7fELF and nothing of ours")
    with pytest.raises(PluginError, match=r"x\.so: expected libcornernet_plugins\.so of this project"):
        tensorrt_plugin.load_plugin(sys.modules["tensorrt"], tmp_path / "x.so")


@pytest.mark.usefixtures("tensorrt")
def test_a_library_for_another_tensorrt_is_refused(tmp_path):
    (tmp_path / "x.so").write_bytes(b"cornernet_plugins version 1.2.3 for TensorRT 9\0")
    with pytest.raises(PluginError, match=r"x\.so: built for TensorRT 9, here is 1\d\.\d+\.\d+\.\d+; build it for"):
        tensorrt_plugin.load_plugin(sys.modules["tensorrt"], tmp_path / "x.so")


def test_a_damaged_library_is_refused_with_the_loaders_reason(tensorrt, tmp_path):
    major = tensorrt.version.split(".")[0]
    (tmp_path / "x.so").write_bytes(f"cornernet_plugins version 1.2.3 for TensorRT {major}\0".encode())
    with pytest.raises(PluginError, match=r"x\.so: does not load here: .*(header|short)"):
        tensorrt_plugin.load_plugin(sys.modules["tensorrt"], tmp_path / "x.so")


def test_a_plugin_is_registered_once_in_a_process(tensorrt, engine):
    for _ in range(2):
        Detector.open(engine, backend="tensorrt").close()
    assert len(tensorrt.surface.called("IPluginRegistry", "load_library")) == 1


# Falling back.


def test_an_engine_that_cannot_run_falls_back_to_onnx_with_one_warning(engine):
    change(engine, tensorrt="9.9")
    with pytest.warns(CornerNetWarning, match=r"TensorRT 9\.9 .*; running model.onnx on the CPU instead$") as caught:
        detector = Detector.open(engine)
    assert detector.backend.name == "onnxruntime"
    assert len(caught) == 1
    assert len(detector(FRAME)) > 0


@pytest.mark.parametrize(
    ("missing", "command"), [("tensorrt", "pip install tensorrt"), ("cuda", "pip install .cuda-c")]
)
def test_without_the_libraries_the_command_to_get_them_is_named(engine, monkeypatch, missing, command):
    for name in [name for name in sys.modules if name.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.warns(CornerNetWarning, match=f"{command}.*; running model.onnx on the CPU instead"):
        assert Detector.open(engine).backend.name == "onnxruntime"
    with pytest.raises(BackendError, match=command):
        Detector.open(engine, backend="tensorrt")


def test_onnx_can_be_asked_for_without_a_word_on_the_engine(engine):
    change(engine, tensorrt="9.9")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Detector.open(engine, backend="onnxruntime").backend.name == "onnxruntime"


def test_a_bundle_without_an_engine_cannot_be_run_by_tensorrt(bundle_path):
    with pytest.raises(BackendError, match=f"has no engine; build it: cornernet-export {bundle_path} --engine"):
        Detector.open(bundle_path, backend="tensorrt")


def test_an_onnx_file_cannot_be_run_by_tensorrt(bundle_path):
    with pytest.raises(BackendError, match="TensorRT runs the engine of a bundle"):
        Detector.open(bundle_path / ONNX_NAME, backend="tensorrt")


def test_errors_of_cuda_are_no_errors_of_ours():
    assert not issubclass(CudaError, BackendError)
