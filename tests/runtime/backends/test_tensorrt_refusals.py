"""Engines that cannot run here, and what TensorRT and CUDA refuse."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest
from cases.engine import FRAME, change, noise, open_backend

from cornernet_runtime import Detector
from cornernet_runtime.backends.tensorrt_log import import_tensorrt
from cornernet_runtime.bundle.manifest import ENGINE_NAME, read_manifest
from cornernet_runtime.errors import BackendError, BundleError, ModelError, PluginError, SizeError

# What cannot run here is told before TensorRT reads the plan.


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"tensorrt": "10.13.3.9"},
            "TensorRT 10.13.3.9 and needs that exactly; here is {version}; build it again here: .* {bundle} --",
        ),
        (
            {"compute_capability": "8.6", "gpu": "NVIDIA RTX A6000"},
            r"built for compute capability 8.6 \(NVIDIA RTX A6000\); here is 9.0 \(NVIDIA H200\)",
        ),
        (
            {"tensorrt": "12.0.0.1", "portable": True},
            "built with TensorRT 12.0.0.1 and needs that or later, of the same major version; here is {version}",
        ),
        (
            {"plugin": {"version": "0.9", "sha256": "0"}},
            r"built with version 0.9 of the plugin; .*libcornernet_plugins.so is version 1.2.3; build it again",
        ),
    ],
    ids=["version", "gpu", "portable", "plugin"],
)
def test_an_engine_of_another_kind_is_refused_before_it_is_read(tensorrt, engine, record, message):
    if "plugin" in record:
        record = {"plugin": replace(read_manifest(engine).engine.plugin, version="0.9")}
    change(engine, **record)
    with pytest.raises(BackendError, match=message.format(version=tensorrt.version, bundle=engine)):
        Detector.open(engine, backend="tensorrt")
    assert tensorrt.surface.called("Runtime", "deserialize_cuda_engine") == []


def test_tensorrt_that_is_not_installed_is_told_otherwise_than_one_that_does_not_load(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendError, match=r"^TensorRT is not installed; pip install tensorrt$"):
        import_tensorrt()
    monkeypatch.delitem(sys.modules, "tensorrt")
    (tmp_path / "tensorrt.py").write_text("import tensorrt_libraries_of_no_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"^TensorRT does not load \(No module named 'tensorrt_lib.*\); pip install"):
        import_tensorrt()


def test_an_ampere_engine_runs_on_a_later_gpu(engine):
    change(engine, compute_capability="8.6", hardware_compatibility="ampere_plus")
    with Detector.open(engine, backend="tensorrt") as detector:
        assert len(detector(FRAME)) > 0


def test_an_ampere_engine_does_not_run_on_an_earlier_gpu(tensorrt, engine):
    change(engine, compute_capability="8.6", hardware_compatibility="ampere_plus")
    tensorrt.gpu.capability = (7, 5)
    with pytest.raises(BackendError, match=r"compute capability 8.6 \(NVIDIA H200\) or later; here is 7.5"):
        Detector.open(engine, backend="tensorrt")


def test_a_plugin_that_is_nowhere_is_told_with_all_places(engine, monkeypatch):
    monkeypatch.delenv("CORNERNET_PLUGIN")
    with pytest.raises(BackendError) as caught:
        Detector.open(engine, backend="tensorrt")
    for place in ("--plugin (not given)", "CORNERNET_PLUGIN (not set)", "/lib/libcornernet", "/build/libcornernet"):
        assert place in str(caught.value)


def test_a_plugin_variable_that_names_no_file_is_told(engine, monkeypatch):
    monkeypatch.setenv("CORNERNET_PLUGIN", str(engine / "nothing.so"))
    with pytest.raises(PluginError, match="CORNERNET_PLUGIN names no file"):
        Detector.open(engine, backend="tensorrt")


def test_a_damaged_plan_is_told_by_its_hash(engine):
    with (engine / ENGINE_NAME).open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match=rf"its hash is not the one .*; build it again: cornernet-export {engine} --"):
        Detector.open(engine)
    assert Detector.open(engine, backend="onnxruntime").backend.name == "onnxruntime"


def test_a_plan_that_is_gone_is_told(engine):
    (engine / ENGINE_NAME).unlink()
    with pytest.raises(BundleError, match=rf"lists model\.engine, which is not there; build it again: .* {engine} --"):
        Detector.open(engine)


def test_a_side_car_without_its_plan_is_told(engine):
    manifest = json.loads((engine / "bundle.json").read_text())
    del manifest["files"][ENGINE_NAME]
    (engine / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"expected model\.engine and its record, or neither"):
        Detector.open(engine)


def test_portable_plans_open_only_when_allowed(tensorrt, engine):
    change(engine, portable=True, tensorrt=f"{tensorrt.version.split('.')[0]}.0.0.0")
    with pytest.raises(BackendError, match=r"carries executable code; open it with Detector.open\(..., allow_engine_c"):
        Detector.open(engine, backend="tensorrt")
    with Detector.open(engine, backend="tensorrt", allow_engine_code=True) as detector:
        assert detector.backend.network._runtime.engine_host_code_allowed is True


# What TensorRT and CUDA refuse.


def test_a_plan_that_tensorrt_cannot_read_is_told_with_its_reason(tensorrt, engine):
    tensorrt.read_errors = ["IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (bad tag)", "and more"]
    with pytest.raises(BackendError, match=r"TensorRT cannot read the engine: IRuntime.* \(bad tag\)$"):
        Detector.open(engine, backend="tensorrt")


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (["CUDA initialization failure with error: 35"], "the NVIDIA driver is too old for it .*; update the driver"),
        (["Unable to load libnvinfer_builder"], "TensorRT cannot start: Unable to load libnvinfer_builder"),
        ([], "TensorRT cannot start: TensorRT gives no reason"),
    ],
)
def test_a_runtime_that_cannot_start_is_told(tensorrt, engine, errors, message):
    tensorrt.start_errors = errors
    with pytest.raises(BackendError, match=message):
        Detector.open(engine, backend="tensorrt")


def test_a_runtime_that_is_made_although_it_cannot_start_is_not_used(tensorrt, engine):
    tensorrt.start_errors, tensorrt.starts_broken = ["CUDA initialization failure with error: 35"], True
    with pytest.raises(BackendError, match=r"the NVIDIA driver is too old for it"):
        Detector.open(engine, backend="tensorrt")
    assert tensorrt.surface.called("Runtime", "deserialize_cuda_engine") == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("CUDA_ERROR_NO_DEVICE: no CUDA-capable device", "GPU 0 cannot be used: CUDA_ERROR_NO_DEVICE"),
        ("CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "the NVIDIA driver is too old .* update the driver"),
        ('Function "cuGreenCtxCreate" not found', "the NVIDIA driver is too old .* update the driver"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_told(tensorrt, engine, error, message):
    tensorrt.gpu.broken = error
    with pytest.raises(BackendError, match=message):
        Detector.open(engine, backend="tensorrt")


def test_too_little_memory_says_what_was_asked_what_is_free_and_what_to_lower(tensorrt, engine):
    tensorrt.gpu.free = 3000
    with pytest.raises(BackendError, match=r"asked for and 0 MiB of NVIDIA H200 are free; .* smaller --batch or"):
        Detector.open(engine, backend="tensorrt")


def test_a_size_outside_the_profiles_names_those_there_are(batches):
    backend = open_backend(batches)
    with pytest.raises(SizeError, match=r"input 5x3x63x95: this engine takes 2x3x63x95 to 4x3x63x95 or 2x3x95x63 to"):
        backend(noise(5, (63, 95)))
    with pytest.raises(SizeError, match="this model was exported for 63x95, 95x63"):
        backend(noise(1, (63, 63)))


def test_outputs_in_half_precision_are_refused(tensorrt, engine, monkeypatch):
    monkeypatch.setattr(
        "doubles.tensorrt_doubles._Engine.get_tensor_dtype", lambda *_: tensorrt.surface.enums["DataType"].HALF
    )
    with pytest.raises(ModelError, match=r"model\.engine: image is .*HALF, not float32"):
        Detector.open(engine, backend="tensorrt")


def test_an_enqueue_that_fails_is_told(engine, monkeypatch):
    backend = open_backend(engine)
    monkeypatch.setattr("doubles.tensorrt_doubles._Context.execute_async_v3", lambda *_: False)
    with pytest.raises(BackendError, match="could not enqueue the network at 1x3x63x95"):
        backend(noise(1, (63, 95)))
