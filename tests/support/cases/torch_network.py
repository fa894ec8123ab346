"""Cases of torch_backend/test_gpu.py: the network in the pipeline, with clones, on a driver that is none.

The device's memory is the host's, so PyTorch works on the CPU, when the stream comes to it. All of ``TorchNetwork``
runs but ``GpuWork``.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from cases.small import SMALL_SPEC, small_model
from doubles.device_double import HostCall
from noise.margins import assert_found, clear_detections

from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_export.torch_backend.gpu import TorchGpuBackend, TorchNetwork, for_gpu
from cornernet_export.torch_backend.work import GpuWork, give_back_pools
from cornernet_runtime import Detector
from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.backends.device_network import PREPARATION
from cornernet_runtime.bundle.spec import DecodeParameters, NmsParameters
from cornernet_runtime.errors import CornerNetWarning, SizeError
from cornernet_runtime.processing.maps import OUTPUT_NAMES

SPEC = replace(SMALL_SPEC, decode=DecodeParameters(top_k=24, candidates=40), nms=NmsParameters(max_detections=20))
SEVERAL = replace(SPEC, other_sizes=((31, 47), (63, 63)))
# Of blocks, which leave something to find after resizing.
BLOCKS = [np.random.default_rng(seed).integers(0, 256, (16, 24, 3), dtype=np.uint8) for seed in range(4)]
LEAST = 2  # in half precision most values equal others
FRAMES = [np.ascontiguousarray(one.repeat(8, 0).repeat(8, 1)[:126, :190]) for one in BLOCKS]


class HostWork:
    """PyTorch on the CPU."""

    def __init__(self, device):
        del device
        self.device = torch.device("cpu")

    def on(self, stream):
        assert stream
        return contextlib.nullcontext()


class HostTorchNetwork(TorchNetwork):
    """A ``TorchNetwork`` whose runs the stream calls in their turn."""

    def __init__(self, model, device, spec, *, max_batch=4, work=HostWork):
        super().__init__(model, device, spec, max_batch=max_batch, work=work)

    def bind(self, shape):
        return Called(super().bind(shape))


class Called:
    def __init__(self, bound):
        self._bound, self._driver = bound, ctypes.CDLL("libcuda.so.1")
        self.input, self.half, self.maps = bound.input, bound.half, bound.maps
        self._call = HostCall(lambda _: bound.enqueue(1))

    def enqueue(self, stream):
        assert self._driver.cuLaunchHostFunc(ctypes.c_void_p(stream), self._call, None) == 0


def pair(spec=SPEC, *, half=False, **options):
    """Return the detector on the GPU that is none and the CPU's, of one network."""
    model, device = for_gpu(small_model(), half=half), CudaDevice()
    fast = Detector.around(TorchGpuBackend(HostTorchNetwork(model, device, spec), device), spec, **options)
    assert fast.pipeline is not None
    return fast, Detector(TorchBackend(model), spec, **options)


def assert_same(fast, slow, frame, found=None):
    """Assert that a detector finds what another does, down to a score of 0.1 and but for near ties."""
    want, found = clear_detections(slow, frame), fast(frame) if found is None else found
    # Heat in float16 has steps of 1/1000 of it; a score is the mean of two sigmoids.
    assert_found(want, found, LEAST, iou=0.95, score=2e-3)


def detections_are_those_of_the_cpu():
    fast, slow = pair(flip=True)
    for frames in (FRAMES[:2], FRAMES[2:], FRAMES[:1]):
        for frame, found in zip(frames, fast.batch(frames), strict=True):
            assert_same(fast, slow, frame, found)


def detections_in_half_are_those_of_the_cpu_in_half():
    fast, slow = pair(half=True)
    bound = fast.backend.network.bind((1, 3, 63, 95))
    assert (bound.half, bound.maps.heat_type, bound.maps.place_type) == (True, "float16", "float32")
    for frame in FRAMES:
        assert_same(fast, slow, frame)


def several_sizes_share_memory():
    fast, slow = pair(SEVERAL, flip=True, scales=(1.0, 0.4))
    for frame in (FRAMES[0], FRAMES[1][:, :126], FRAMES[2]):
        assert_same(fast, slow, frame)


def without_capture_it_runs_all_the_same():
    fast, slow = pair()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_REFUSES_CAPTURE", "1")
        with pytest.warns(CornerNetWarning, match="cannot be captured as a CUDA graph"):
            assert_same(fast, slow, FRAMES[0])
        for frame in FRAMES:
            assert_same(fast, slow, frame)


def maps_come_to_the_host():
    for half in (False, True):
        fast, slow = pair(SEVERAL, half=half)
        images = np.random.default_rng(1).normal(0, 1, (3, 3, 31, 47)).astype(np.float32)
        with mock.patch.object(HostTorchNetwork, "bind", TorchNetwork.bind):
            found, expected = fast.backend(images), slow.backend(images)
        for name in OUTPUT_NAMES:
            assert getattr(found, name).dtype == np.float32
            error = np.abs(getattr(found, name) - getattr(expected, name)).max()
            assert error <= 1e-5 * np.abs(getattr(expected, name)).max(), name  # the same sums, rounded once more


def each_shape_is_prepared_once_in_a_thread():
    runs = []
    model = for_gpu(small_model(), half=False)
    model.register_forward_hook(lambda *_: runs.append(torch.backends.cudnn.benchmark))
    network = TorchNetwork(model, CudaDevice(), SPEC, max_batch=2, work=HostWork)
    for shape in ((1, 3, 63, 95), (1, 3, 63, 95), (2, 3, 63, 95)):
        network.bind(shape)
    assert runs == [True, False, False] * 2  # algorithms are tried in the first
    for count in range(3, 15):  # some get the number of one that is over
        thread = threading.Thread(target=network.bind, args=((1, 3, 63, 95),))
        thread.start()
        thread.join()
        assert runs == [True, False, False] * count


def shapes_that_it_has_no_memory_for_are_refused():
    network = TorchNetwork(for_gpu(small_model(), half=False), CudaDevice(), SPEC, max_batch=2, work=HostWork)
    with pytest.raises(SizeError, match="a batch of 3: this network was given memory for 2"):
        network.smallest_batch((3, 3, 63, 95))
    with pytest.raises(SizeError, match="a batch of 3"):
        network.bind((3, 3, 63, 95))
    with pytest.raises(SizeError, match="input size 95x63"):
        network.bind((1, 3, 95, 63))


def clones_share_weights_and_nothing_else():
    fast, slow = pair(flip=True)
    other = fast.clone()
    one, two = fast.backend.network, other.backend.network
    assert one._model is two._model
    assert one._input.data_ptr() != two._input.data_ptr()
    assert {map_.data_ptr() for map_ in one._outputs}.isdisjoint(map_.data_ptr() for map_ in two._outputs)
    assert fast.backend.device.handle != other.backend.device.handle
    assert fast.pipeline.kernels is other.pipeline.kernels
    found = {}

    def detect(detector, frames):
        found[detector] = [detector(frame) for frame in frames]

    threads = [threading.Thread(target=detect, args=(detector, FRAMES)) for detector in (fast, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for detector in (fast, other):
        for frame, one in zip(FRAMES, found[detector], strict=True):
            assert_same(detector, slow, frame, one)
    fast.close()
    assert_same(other, slow, FRAMES[0])
    third = other.clone()
    other.close()
    assert_same(third, slow, FRAMES[0])
    third.close()


def a_thread_that_captures_may_allocate():
    """Through the driver's real bindings; PyTorch's classes, which need a GPU, are stand-ins of their signatures."""
    device = CudaDevice()
    names = ("MemPool", "use_mem_pool", "ExternalStream", "stream", "device")
    with contextlib.ExitStack() as stack:
        doubles = {
            name: stack.enter_context(mock.patch.object(torch.cuda, name, autospec=True, spec_set=True))
            for name in names
        }
        exchange = stack.enter_context(
            mock.patch.object(
                device.driver,
                "cuThreadExchangeStreamCaptureMode",
                side_effect=device.driver.cuThreadExchangeStreamCaptureMode,
            )
        )
        work = GpuWork(device)
        with work.on(device.handle):
            pass
    gpu = torch.device("cuda", 0)
    assert work.device == gpu
    doubles["ExternalStream"].assert_called_once_with(device.handle, device=gpu)
    doubles["stream"].assert_called_once_with(doubles["ExternalStream"].return_value)
    doubles["use_mem_pool"].assert_called_once_with(doubles["MemPool"].return_value, gpu)
    modes = device.driver.CUstreamCaptureMode
    assert exchange.call_args_list[0].args == (modes.CU_STREAM_CAPTURE_MODE_RELAXED,)
    assert len(exchange.call_args_list) == 2


def pools_wait_until_no_thread_works_in_another():
    pools = [mock.Mock(), mock.Mock()]
    alive = [weakref.ref(pool) for pool in pools]
    works = [object.__new__(GpuWork) for _ in pools]
    for work in works:
        work._pool = pools.pop()
    del work
    with PREPARATION:
        works.clear()
        thread = threading.Thread(target=give_back_pools)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert all(pool() is not None for pool in alive)
    thread.join()
    assert all(pool() is None for pool in alive)
