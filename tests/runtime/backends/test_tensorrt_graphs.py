"""CUDA graphs: when they are captured, replayed and given back."""

from __future__ import annotations

import pytest
from cases.engine import assert_equal_maps, copied, noise, open_backend

from cornernet_runtime.backends.cuda_graphs import ShapeGraphs
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.bundle.manifest import ONNX_NAME
from cornernet_runtime.errors import CornerNetWarning


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
