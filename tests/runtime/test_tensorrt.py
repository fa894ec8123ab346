"""The TensorRT backend on doubles with the real classes' attributes and arguments; ONNX Runtime computes."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from doubles.cuda_doubles import CudaError

from cornernet_export.engine import EngineRequest, add_engine
from cornernet_runtime import Detector
from cornernet_runtime.backends import tensorrt_plugin
from cornernet_runtime.backends.cuda_device import CudaDevice, host_floats
from cornernet_runtime.backends.cuda_graphs import ShapeGraphs
from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.backends.tensorrt import TensorRTBackend
from cornernet_runtime.backends.tensorrt_engine import TensorRTNetwork
from cornernet_runtime.bundle import ENGINE_NAME, ONNX_NAME, read_manifest, write_manifest
from cornernet_runtime.errors import (
    BackendError,
    BundleError,
    CornerNetWarning,
    KernelError,
    ModelError,
    PluginError,
    SizeError,
)
from cornernet_runtime.kernels import device
from cornernet_runtime.maps import OUTPUT_NAMES, CornerMaps

FRAME = np.random.default_rng(1).integers(0, 256, (126, 190, 3), dtype=np.uint8)


@pytest.fixture
def engine(tensorrt, bundle, plugin_library, monkeypatch):
    """A bundle with an engine of one size that uses the plugin, in a process that has not read it yet."""
    monkeypatch.setenv("CORNERNET_PLUGIN", str(plugin_library))
    add_engine(EngineRequest(bundle))
    return fresh(tensorrt, bundle)


@pytest.fixture
def batches(tensorrt, batch_bundle_path, tmp_path):
    """A bundle with an engine of two sizes and batches of 2 to 4, without the plugin."""
    folder = shutil.copytree(batch_bundle_path, tmp_path / "batches")
    with pytest.warns(CornerNetWarning, match="corner pooling is built from standard operators"):
        add_engine(EngineRequest(folder))
    return fresh(tensorrt, folder)


def fresh(tensorrt, folder):
    """Forget what the build registered, called and launched."""
    tensorrt.registered.clear()
    tensorrt.surface.calls.clear()
    tensorrt.gpu.surface.calls.clear()
    tensorrt.gpu.launches = 0
    return folder


def change(folder, **changes):
    """Write another record of the engine into the side-car."""
    manifest = read_manifest(folder)
    write_manifest(folder, replace(manifest, engine=replace(manifest.engine, **changes)))


def open_backend(folder, **options):
    manifest = read_manifest(folder)
    return TensorRTBackend(folder / ENGINE_NAME, manifest.spec, manifest.engine, **options)


def noise(count, size):
    return np.random.default_rng(count).standard_normal((count, 3, *size), np.float32)


def copied(maps):
    return CornerMaps(*(getattr(maps, name).copy() for name in OUTPUT_NAMES))


def assert_equal_maps(found, expected):
    for name in OUTPUT_NAMES:
        want = getattr(expected, name)
        assert np.abs(getattr(found, name) - want).max() <= 1e-5 * np.abs(want).max(), name


# What it computes.


def test_a_bundle_with_an_engine_opens_with_tensorrt_and_detects_what_the_onnx_file_does(engine):
    with Detector.open(engine) as fast, Detector.open(engine, backend="onnxruntime") as slow:
        assert (fast.backend.name, slow.backend.name) == ("tensorrt", "onnxruntime")
        found, expected = fast(FRAME), slow(FRAME)
    assert np.array_equal(found.labels, expected.labels)
    assert found.boxes == pytest.approx(expected.boxes, abs=1e-3)


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
        together, alone = detector.batch([FRAME] * 5), detector(FRAME)
    assert len(together) == 5
    assert all(np.array_equal(one.labels, alone.labels) for one in together)


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
            found, expected = fast(frame), slow(frame)
            assert np.array_equal(found.labels, expected.labels)
            assert found.boxes == pytest.approx(expected.boxes, abs=1e-3)
            assert found.scores == pytest.approx(expected.scores, rel=1e-4)
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


# Clones, for other threads.


def in_threads(*work):
    """Do each in a thread of its own, all at once, and return the results."""
    results, start = [None] * len(work), threading.Barrier(len(work))

    def run(number):
        start.wait()
        results[number] = work[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_clone_shares_the_engine_and_has_a_context_of_its_own(tensorrt, engine):
    frames = [np.random.default_rng(seed).integers(0, 256, (126, 190, 3), dtype=np.uint8) for seed in range(4)]
    with Detector.open(engine) as one, one.clone() as two:
        assert two.pipeline.kernels is one.pipeline.kernels
        assert two.pipeline.depth == one.pipeline.depth == 2
        expected = [one(frame) for frame in frames]
        for found in in_threads(*(lambda detector=each: [detector(frame) for frame in frames] for each in (one, two))):
            for have, want in zip(found, expected, strict=True):
                assert np.array_equal(have.boxes, want.boxes)
                assert np.array_equal(have.scores, want.scores)
    assert len(tensorrt.surface.called("Runtime", "deserialize_cuda_engine")) == 1
    assert len(tensorrt.surface.called("ICudaEngine", "create_execution_context")) == 2
    memory = tensorrt.surface.called("IExecutionContext", "set_device_memory")
    assert len({call["memory"] for call in memory}) == 2
    assert (
        len({call["stream_handle"] for call in tensorrt.surface.called("IExecutionContext", "execute_async_v3")}) == 2
    )
    assert tensorrt.gpu.memory == {}


@pytest.mark.parametrize("first", [0, 1])
def test_a_clone_and_what_it_was_cloned_from_are_closed_in_any_order(tensorrt, engine, first):
    detectors = [Detector.open(engine)]
    detectors.append(detectors[0].clone())
    expected = detectors[0](FRAME)
    detectors.pop(first).close()
    (last,) = detectors
    assert np.array_equal(last(FRAME).boxes, expected.boxes)
    with last.clone() as third:
        assert np.array_equal(third(FRAME).boxes, expected.boxes)
    assert_equal_maps(last.corner_maps(FRAME)[0], OnnxRuntimeBackend(engine / ONNX_NAME)(input_of(last)))
    last.close()
    assert tensorrt.gpu.memory == {}


def input_of(detector):
    return detector._input.reshape(1, 3, *detector.spec.input_size)


def test_backends_are_cloned_alone(tensorrt, engine):
    one = open_backend(engine)
    two, images = one.clone(), [noise(1, (63, 95)) * scale for scale in (1, 2)]
    found = in_threads(lambda: copied(one(images[0])), lambda: copied(two(images[1])))
    for maps, image in zip(found, images, strict=True):
        assert_equal_maps(maps, OnnxRuntimeBackend(engine / ONNX_NAME)(image))
    one.close()
    assert_equal_maps(two(images[0]), found[0])
    two.close()
    assert tensorrt.gpu.memory == {}


def test_the_gpu_is_made_current_in_whatever_thread_calls(engine, monkeypatch):
    threads = []
    monkeypatch.setattr(CudaDevice, "make_current", lambda _: threads.append(threading.get_ident()))
    backend = open_backend(engine)
    threads.clear()
    (other,) = in_threads(lambda: (backend(noise(1, (63, 95))), threading.get_ident())[1])
    assert set(threads) == {other}
    threads.clear()
    backend.close()
    assert set(threads) == {threading.get_ident()}


def test_preparation_and_capture_take_turns_in_a_process():
    taken = []

    def try_elsewhere():
        taken.extend(in_threads(lambda: PREPARATION.acquire(blocking=False)))

    class Graphs(ShapeGraphs):
        def _capture(self, enqueue):
            del enqueue
            try_elsewhere()

    def prepare(_key):
        try_elsewhere()
        return lambda: None

    Graphs(SimpleNamespace(sync=lambda: None), prepare).run("a")
    assert taken == [False, False]


def test_engines_and_shapes_come_and_go_in_turn_with_captures(tensorrt, engine):
    done = []

    def open_run_and_close():
        backend = open_backend(engine)
        backend(noise(1, (63, 95)))
        done.append("run")
        backend.close()
        done.append("close")

    thread = threading.Thread(target=open_run_and_close)
    with PREPARATION:
        thread.start()
        thread.join(0.3)
        assert tensorrt.surface.called("Runtime", "deserialize_cuda_engine") == []
    thread.join()
    assert done == ["run", "close"]
    backend = open_backend(engine)
    backend(noise(1, (63, 95)))
    thread = threading.Thread(target=backend.close)
    with PREPARATION:
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join()


def test_a_clone_that_finds_no_memory_leaves_the_first_as_it_was(tensorrt, engine):
    with Detector.open(engine) as detector:
        expected = detector(FRAME)
        held, tensorrt.gpu.free = len(tensorrt.gpu.memory), 3000
        with pytest.raises(BackendError, match=r"the network's input: .* were asked for"):
            detector.clone()
        assert len(tensorrt.gpu.memory) == held
        assert np.array_equal(detector(FRAME).boxes, expected.boxes)


# Graphs.


def test_the_second_run_of_a_shape_replays_a_graph_and_sees_new_pictures(tensorrt, engine):
    backend, other = open_backend(engine), OnnxRuntimeBackend(engine / ONNX_NAME)
    for count in range(4):
        images = noise(1, (63, 95)) * (count + 1)
        assert_equal_maps(backend(images), other(images))
    assert tensorrt.gpu.launches == 3
    assert len(tensorrt.surface.called("IExecutionContext", "execute_async_v3")) == 2  # once to run, once to capture


def test_shapes_in_turn_keep_their_graphs(tensorrt, batches):
    backend, other = open_backend(batches), OnnxRuntimeBackend(batches / ONNX_NAME)
    for _ in range(3):
        for size in ((63, 95), (95, 63)):
            assert_equal_maps(backend(noise(2, size)), other(noise(2, size)))
    assert tensorrt.gpu.launches == 4
    assert len(tensorrt.surface.called("ICudaEngine", "create_execution_context")) == 2


def test_contexts_share_one_block_of_memory(tensorrt, batches):
    backend = open_backend(batches)
    for size in ((63, 95), (95, 63)):
        backend(noise(2, size))
    calls = tensorrt.surface.called("IExecutionContext", "set_device_memory")
    assert len({call["memory"] for call in calls}) == 1
    assert len(calls) == 2


def test_without_capture_it_runs_all_the_same_and_says_so_once(tensorrt, engine):
    tensorrt.gpu.captures_fail = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
    backend, other = open_backend(engine), OnnxRuntimeBackend(engine / ONNX_NAME)
    images = noise(1, (63, 95))
    with pytest.warns(CornerNetWarning, match=r"cannot be captured as a CUDA graph .*CAPTURE_UNSUPPORTED") as caught:
        found = [copied(backend(images + count)) for count in range(3)]
    for count in range(3):
        assert_equal_maps(found[count], other(images + count))
    assert len(caught) == 1
    assert tensorrt.gpu.launches == 0


def test_the_least_recently_used_shape_goes_first():
    class Graph:
        def __init__(self, key):
            self.key = key

        def launch(self, _stream):
            events.append(f"launch {self.key}")

        def close(self):
            events.append(f"close {self.key}")

    events = []

    class Graphs(ShapeGraphs):
        def _capture(self, enqueue):
            enqueue()
            return Graph(events[-1].split()[1])

    class Stream:
        def sync(self):
            pass

    graphs = Graphs(Stream(), lambda key: lambda: events.append(f"run {key}"), limit=2)
    for key in "abacb":
        graphs.run(key)
    once = [event for event in events if not event.startswith("run")]
    assert once == ["launch a", "close b", "close a"]
    graphs.close()
    assert events[-2:] == ["close c", "close b"]


def test_nothing_is_allocated_after_the_first_run_and_all_is_given_back(tensorrt, engine):
    backend = open_backend(engine)
    backend(noise(1, (63, 95)))
    before = tensorrt.gpu.allocated
    for _ in range(3):
        backend(noise(1, (63, 95)))
    assert tensorrt.gpu.allocated == before
    backend.close()
    assert tensorrt.gpu.memory == {}


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
