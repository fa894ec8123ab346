"""Clones of a TensorRT backend, for other threads."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from cases.engine import FRAME, assert_equal_maps, copied, noise, open_backend

from cornernet_runtime import Detector
from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.backends.cuda_graphs import ShapeGraphs
from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.bundle.manifest import ONNX_NAME
from cornernet_runtime.errors import BackendError


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
