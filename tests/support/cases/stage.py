"""Cases of test_pipeline.py: stages that are timed, and kernels that are loaded before their first launch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cases.pipeline import OnDevice, Pair, small
from cases.ring import FRAMES, SPEC, driver, warm

from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.errors import BackendError, KernelError
from cornernet_runtime.kernels.device import LoadedKernels
from cornernet_runtime.kernels.preprocess import preprocess
from cornernet_runtime.pipeline.gpu import STAGES

ELAPSED = 0.0125  # milliseconds between any two events


def stages_are_timed_in_order():
    pair = warm()
    found = pair.pipeline.time_stages(FRAMES[:1])
    assert list(found) == list(STAGES)
    assert found == pytest.approx(dict.fromkeys(STAGES, ELAPSED))
    assert pair.pipeline.time_stages([]) == dict.fromkeys(STAGES, 0)
    pair.compare(FRAMES[:1], least=0)


def stages_of_several_batches_are_summed_up():
    spec = replace(SPEC, other_sizes=((15, 15),))
    pair = Pair(small(spec, flip=True, scales=(1.0, 0.5)), max_batch=2)
    held = OnDevice(pair.device, FRAMES[0])
    found = pair.pipeline.time_stages([held, FRAMES[1]])  # two runs of two batches, never seen before
    each_run, each_batch = 2 * ELAPSED, 4 * ELAPSED
    assert found == pytest.approx(
        {
            "upload": each_run,
            "preprocess": each_batch,
            "network": each_batch,
            "decode": each_batch,
            "soft_nms": each_run,
            "download": each_run,
        }
    )


def stages_that_fail_are_told():
    pair = warm()
    with driver(FAILING_KERNEL="cutDetections"), pytest.raises(BackendError, match="no GPU failed"):
        pair.pipeline.time_stages(FRAMES[:1])
    pair.compare(FRAMES[:1], least=0)


def kernels_that_were_never_launched_can_be_captured():
    device = CudaDevice()
    views, levels, images = (device.allocate(4096, "memory") for _ in range(3))
    launches = preprocess(*(int(buffer.handle) for buffer in (views, levels, images)), (1, 3, 5, 5), half=False)

    def capture(kernels):
        builder = device.stream.create_graph_builder()
        builder.begin_building("thread_local")
        try:
            kernels.launch(launches, device.handle)
        finally:
            builder.end_building()

    prepared, lazy = LoadedKernels(device), LoadedKernels(device)
    prepared.prepare(["preprocess"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device.driver, "cuFuncLoad", lambda _: (device.driver.CUresult.CUDA_SUCCESS,))
        lazy.prepare(["preprocess"])
    capture(prepared)
    with pytest.raises(KernelError, match="preprocessFloat was not launched: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
        capture(lazy)
