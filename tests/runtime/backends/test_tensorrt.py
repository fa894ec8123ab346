"""The TensorRT backend on doubles with the real classes' attributes and arguments; ONNX Runtime computes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases.engine import FRAME, assert_equal_maps, noise, open_backend
from noise.margins import assert_found, clear_detections

from cornernet_runtime import Detector
from cornernet_runtime.backends.cuda_device import CudaDevice, host_floats
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.backends.tensorrt import TensorRTBackend
from cornernet_runtime.backends.tensorrt_engine import TensorRTNetwork
from cornernet_runtime.bundle.manifest import ENGINE_NAME, ONNX_NAME, read_manifest, write_manifest
from cornernet_runtime.errors import CornerNetWarning, KernelError
from cornernet_runtime.kernels import device

# What it computes.


def test_a_bundle_with_an_engine_opens_with_tensorrt_and_detects_what_the_onnx_file_does(engine):
    with Detector.open(engine) as fast, Detector.open(engine, backend="onnxruntime") as slow:
        assert (fast.backend.name, slow.backend.name) == ("tensorrt", "onnxruntime")
        assert_found(clear_detections(slow, FRAME), fast(FRAME), least=5)


@pytest.mark.parametrize("size", [(63, 95), (95, 63)])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_size_and_batch_gives_the_maps_of_the_onnx_file(batches, size, count):
    images = noise(count, size)
    expected = OnnxRuntimeBackend(batches / ONNX_NAME)(images)
    found = open_backend(batches)(images)
    assert found.tl_heat.shape[0] == count
    assert_equal_maps(found, expected)


def test_a_batch_below_the_smallest_is_filled_up(tensorrt, batches):
    open_backend(batches)(noise(1, (63, 95)))
    (call,) = tensorrt.surface.called("IExecutionContext", "set_input_shape")
    assert call["shape"] == (2, 3, 63, 95)


def test_the_profile_of_the_size_is_selected(tensorrt, batches):
    backend = open_backend(batches)
    for size in ((95, 63), (63, 95)):
        backend(noise(2, size))
    calls = tensorrt.surface.called("IExecutionContext", "set_optimization_profile_async")
    assert [call["profile_index"] for call in calls] == [1, 0]


def test_frames_share_runs_up_to_the_largest_batch(batches):
    with Detector.open(batches) as detector:
        assert detector.backend.max_batch == 4
        together, expected = detector.batch([FRAME] * 5), clear_detections(detector, FRAME)
    assert len(together) == 5
    for found in together:
        assert_found(expected, found, least=5)


def test_a_network_runs_by_itself_on_memory_of_the_device_and_any_stream(tensorrt, engine):
    """As a pipeline uses it that never brings pixels to the host."""
    manifest, device = read_manifest(engine), CudaDevice()
    network = TensorRTNetwork(
        engine / ENGINE_NAME, manifest.spec, manifest.engine, device, allow_code=False, plugin=None, rebuild=""
    )
    images = noise(1, (63, 95))
    host_floats(network.input, images.size)[:] = images.reshape(-1)  # the memory of the doubles is the host's
    bound = network.bind((1, 3, 63, 95))
    bound.enqueue(CudaDevice().handle)
    expected = OnnxRuntimeBackend(engine / ONNX_NAME)(images)
    for name, shape in bound.output_shapes.items():
        found = host_floats(network.outputs[name], int(np.prod(shape))).reshape(shape)
        assert found == pytest.approx(getattr(expected, name), abs=1e-4)
    assert tensorrt.gpu.launches == 0
    network.close()
    assert tensorrt.gpu.memory == {}


# The pipeline around it.


def test_everything_around_the_engine_runs_on_the_gpu(tensorrt, engine, monkeypatch):
    monkeypatch.setattr(TensorRTBackend, "__call__", lambda *_: pytest.fail("it passes through the host"))
    with Detector.open(engine, flip=True) as fast, Detector.open(engine, backend="onnxruntime", flip=True) as slow:
        for shape in ((126, 190, 3), (90, 200, 3), (126, 190, 3)):
            frame = np.random.default_rng(shape[0]).integers(0, 256, shape, dtype=np.uint8)
            assert_found(clear_detections(slow, frame), fast(frame), least=5, iou=0.999)
        assert tensorrt.gpu.launches == 2
    assert tensorrt.gpu.memory == {}


def test_maps_for_figures_come_from_the_same_engine(engine):
    with Detector.open(engine) as fast, Detector.open(engine, backend="onnxruntime") as slow:
        before = fast(FRAME)
        maps, placement = fast.corner_maps(FRAME)
        assert_equal_maps(maps, slow.corner_maps(FRAME)[0])
        assert fast.finish(maps, placement).boxes == pytest.approx(before.boxes, abs=1e-3)
        assert np.array_equal(fast(FRAME).boxes, before.boxes)


def test_what_the_kernels_cannot_keep_is_done_on_the_cpu_with_one_warning(engine):
    manifest = read_manifest(engine)
    decode = replace(manifest.spec.decode, top_k=1025)
    write_manifest(engine, replace(manifest, spec=replace(manifest.spec, decode=decode)))
    with pytest.warns(CornerNetWarning, match=r"top_k: .*keep 1 to 1024, got 1025; .* on the CPU instead$") as caught:
        detector = Detector.open(engine, backend="tensorrt")
    assert len(caught) == 1
    assert detector.backend.name == "tensorrt"
    assert len(detector(FRAME)) > 0


def test_kernels_that_cannot_be_compiled_are_done_without_with_one_warning(engine, monkeypatch):
    def no_compiler(*_):
        raise KernelError("NVRTC is not installed")

    monkeypatch.setattr(device, "load_program", no_compiler)
    with pytest.warns(CornerNetWarning, match="NVRTC is not installed; frames are prepared and corners") as caught:
        detector = Detector.open(engine)
    assert len(caught) == 1
    assert detector.backend.name == "tensorrt"
    assert len(detector(FRAME)) > 0
