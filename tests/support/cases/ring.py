"""Cases of test_pipeline.py: runs under way at the same time, in any order, in several threads, and failing."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from cases.pipeline import OnDevice, Pair, noise, small
from cases.small import SMALL_SPEC
from doubles.device_double import HostNetwork, counts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from noise.margins import assert_found, clear_detections

from cornernet_runtime.backends.cuda_device import CudaDevice
from cornernet_runtime.bundle.spec import DecodeParameters, NmsParameters
from cornernet_runtime.errors import BackendError, CornerNetWarning, FrameError
from cornernet_runtime.pipeline import GpuPipeline

SPEC = replace(
    SMALL_SPEC,
    input_size=(31, 31),
    largest_size=(31, 31),
    decode=DecodeParameters(top_k=10, candidates=16),
    nms=NmsParameters(max_detections=6),
)
FRAMES = [noise(height, width, 7) for height, width in ((62, 62), (40, 90), (120, 33), (16, 16), (62, 62))]


@contextlib.contextmanager
def driver(**changes):
    """Let the driver be another for a while: ``ORDER=-1`` works late."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in changes.items():
            patch.setenv(f"FAKE_{name}", str(value))
        yield


def warm(depth=2, max_batch=2, **options):
    """Return a pair that has seen one frame and two, and whose slots have memory for FRAMES."""
    pair = Pair(small(SPEC, **options), max_batch=max_batch, depth=depth)
    for frames in ([max(FRAMES, key=np.size)] * 2, FRAMES[:1]):
        for one in [pair.pipeline.submit(frames) for _ in range(depth)]:
            one.result()
    pair.network.seen.clear()
    return pair


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, want in zip(found, expected, strict=True):
        assert len(want) > 0
        assert np.array_equal(one.boxes, want.boxes)
        assert np.array_equal(one.scores, want.scores)
        assert np.array_equal(one.labels, want.labels)


def what_is_submitted_is_what_the_cpu_finds():
    pair = warm()
    pending = [pair.pipeline.submit([frame]) for frame in FRAMES[:2]]
    for one, frame in zip(pending, FRAMES, strict=False):
        assert_same(pair.pipeline([frame]), one.result())
        pair.compare([frame], least=0)


def results_come_in_any_order():
    for depth in (1, 2, 3):
        pair = warm(depth)
        expected = [pair.pipeline([frame]) for frame in FRAMES]
        pending = [pair.pipeline.submit([frame]) for frame in FRAMES]
        for number in (3, 0, 4, 2, 1, 3, 0):
            assert_same(pending[number].result(), expected[number])


def the_host_goes_on_while_the_gpu_has_not_begun():
    pair = warm(depth=2)
    with driver(ORDER=-1):
        first, second = (pair.pipeline.submit([frame]) for frame in FRAMES[:2])
        assert len(pair.network.seen) == 0
        third = pair.pipeline.submit([FRAMES[2]])  # the ring is full
        assert len(pair.network.seen) == 1
        first.result()
        assert len(pair.network.seen) == 1
        second.result()  # waits for its own run, not for the third
        assert len(pair.network.seen) == 2
        third.result()
        assert len(pair.network.seen) == 3


def a_result_may_be_asked_for_again():
    pair = warm()
    pending = pair.pipeline.submit(FRAMES[:2])
    found = pending.result()
    pair.pipeline(FRAMES[2:])
    assert pending.result() is found


def host_frames_may_be_overwritten_once_submitted():
    pair = warm()
    expected = [pair.pipeline([frame]) for frame in FRAMES[:2]]
    copies = [frame.copy() for frame in FRAMES[:2]]
    pending = [pair.pipeline.submit([frame]) for frame in copies]
    for frame in copies:
        frame[:] = 0
    for one, want in zip(pending, expected, strict=True):
        assert_same(one.result(), want)


def frames_may_grow_from_one_submit_to_the_next():
    frames = [noise(20 * size, 30 * size, size) for size in (1, 2, 4, 3, 7, 12, 5)]
    pair = warm(depth=3)
    pending = [pair.pipeline.submit([frame]) for frame in frames]
    fresh = warm(depth=1)
    for one, frame in zip(pending, frames, strict=True):
        assert_same(one.result(), fresh.pipeline([frame]))


def work_may_grow_while_a_run_is_under_way():
    pair = Pair(small(SPEC), max_batch=4, depth=3)
    pending = [pair.pipeline.submit(FRAMES[:count]) for count in (1, 1, 4, 1, 3)]
    for one, count in zip(pending, (1, 1, 4, 1, 3), strict=True):
        assert_same(one.result(), pair.pipeline(FRAMES[:count]))


def a_call_may_need_more_runs_than_there_are_slots():
    for depth in (1, 2):
        pair = warm(depth, scales=(1.0, 0.5), max_batch=2)  # a frame a run
        expected = [pair.pipeline([frame])[0] for frame in FRAMES]
        pending = pair.pipeline.submit(FRAMES)
        other = pair.pipeline.submit(FRAMES[1:2])
        assert_same(other.result(), expected[1:2])
        assert_same(pending.result(), expected)


def frames_of_several_input_sizes_come_back_in_order():
    spec = replace(SPEC, dynamic=True, geometry="native", largest_size=(63, 63))
    pair = Pair(small(spec), max_batch=2)
    frames = [noise(*size) for size in ((30, 30), (60, 60), (31, 29), (30, 60), (59, 61))]
    for one, frame in zip(pair.pipeline.submit(frames).result(), frames, strict=True):
        # In batches of two, which change the maps by 1e-6: enough to decide near ties.
        assert_found(clear_detections(pair.detector, frame), one, least=1)


def frames_on_the_device_are_kept_until_their_run_is_over():
    pair = warm()
    expected = pair.pipeline(FRAMES[:1])
    frame = OnDevice(pair.device, FRAMES[0])
    kept = weakref.ref(frame)
    pending = pair.pipeline.submit([frame])
    del frame
    gc.collect()
    assert kept() is not None
    assert_same(pending.result(), expected)
    gc.collect()
    assert kept() is None


def a_run_that_fails_on_the_gpu_belongs_to_its_pending():
    pair = warm()
    expected = pair.pipeline(FRAMES[1:2])
    with driver(ORDER=-1):
        failing, well = (pair.pipeline.submit([frame]) for frame in FRAMES[:2])
        with driver(FAILING_KERNEL="cutDetections"), pytest.raises(BackendError, match=r"no GPU failed: .*; start"):
            failing.result()
        assert_same(well.result(), expected)
        with pytest.raises(BackendError, match="no GPU failed"):
            failing.result()
    assert_same(pair.pipeline(FRAMES[1:2]), expected)


def a_run_that_fails_while_another_is_submitted_belongs_to_its_own_pending():
    pair = warm(depth=1)
    expected = pair.pipeline(FRAMES[1:2])
    with driver(ORDER=-1):
        failing = pair.pipeline.submit(FRAMES[:1])
        with driver(FAILING_KERNEL="preprocessFloat"):
            well = pair.pipeline.submit(FRAMES[1:2])  # waits for the one before
        assert_same(well.result(), expected)
    with pytest.raises(BackendError, match="no GPU failed"):
        failing.result()


def a_first_run_that_fails_on_the_gpu_belongs_to_its_submit():
    pair = Pair(small(SPEC))
    with (
        driver(FAILING_KERNEL="cutDetections"),
        pytest.raises(BackendError, match=r"the GPU pipeline failed: .*; start"),
    ):
        pair.pipeline.submit(FRAMES[:1])
    pair.compare(FRAMES[:1], least=0)


def a_submit_that_fails_leaves_the_others_alone():
    for capture in (True, False):
        with driver(REFUSES_CAPTURE=int(not capture)), contextlib.ExitStack() as stack:
            if not capture:
                stack.enter_context(pytest.warns(CornerNetWarning, match="the GPU pipeline cannot be captured"))
            pair = warm(max_batch=4)
            expected = [pair.pipeline([frame]) for frame in FRAMES]
            before = pair.pipeline.submit([FRAMES[0]])
            pair.network.refuses = True
            with pytest.raises(BackendError, match="the network refuses"):
                pair.pipeline.submit(FRAMES[:3])  # its first run is no graph yet
            pair.network.refuses = False
            with pytest.raises(FrameError):
                pair.pipeline.submit([FRAMES[1], None])
            after = [pair.pipeline.submit([frame]) for frame in FRAMES[1:]]
            assert_same(before.result(), expected[0])
            for one, want in zip(after, expected[1:], strict=True):
                assert_same(one.result(), want)


def a_submit_that_fails_lets_go_of_its_frames():
    pair = warm(max_batch=4)
    frames = [OnDevice(pair.device, frame) for frame in FRAMES[:3]]
    kept = weakref.ref(frames[0])
    pair.network.refuses = True
    with pytest.raises(BackendError, match="the network refuses"):
        pair.pipeline.submit(frames)
    frames.clear()
    gc.collect()
    assert kept() is None


def no_memory_for_a_frame_leaves_the_others_alone():
    pair = warm()
    expected = pair.pipeline(FRAMES[:1])
    pending = pair.pipeline.submit(FRAMES[:1])
    with driver(MEMORY_MIB=1), pytest.raises(BackendError, match="frames: 3 MiB were asked for"):
        pair.pipeline.submit([noise(1000, 1000)])
    assert_same(pending.result(), expected)
    assert_same(pair.pipeline(FRAMES[:1]), expected)


def hundreds_of_submits_allocate_nothing():
    pair = warm()
    before, waiting = counts(), []
    for number in range(200):
        waiting.append(pair.pipeline.submit([FRAMES[number % len(FRAMES)]]))
        if number % 3 == 2:
            waiting.pop(0).result()
            waiting.pop(-1).result()
    after = counts()
    assert (after.allocated, after.released, after.captures) == (before.allocated, before.released, before.captures)
    assert after.graphs - before.graphs == 200


def closing_waits_for_what_is_under_way_and_keeps_it():
    pair = warm()
    expected = pair.pipeline(FRAMES[:2])
    pending = pair.pipeline.submit(FRAMES[:2])
    pair.pipeline.close()
    pair.network.close()
    assert_same(pending.result(), expected)


def a_ring_needs_a_slot():
    device = CudaDevice()
    network = HostNetwork(device, small(SPEC).backend, SPEC)
    with pytest.raises(BackendError, match=r"depth: expected 1 or more runs .*, got 0"):
        GpuPipeline(device, network, SPEC, depth=0)


def in_threads(*works):
    """Run functions at the same time; raise what any raised."""
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def a_pipeline_may_go_to_another_thread_and_back():
    pair = warm()
    frames = [noise(200, 200), noise(300, 300)]  # memory must grow
    expected = [warm().pipeline([frame]) for frame in frames]
    pending = pair.pipeline.submit(FRAMES[:1])
    in_threads(lambda: assert_same(pair.pipeline(frames[:1]), expected[0]))
    in_threads(pending.result)
    assert_same(pair.pipeline(frames[1:]), expected[1])


def two_pipelines_in_two_threads_share_kernels():
    first = warm()
    expected = [first.pipeline([frame]) for frame in FRAMES]
    device, detector = CudaDevice(), small(SPEC)
    network = HostNetwork(device, detector.backend, SPEC)
    second = GpuPipeline(device, network, SPEC, kernels=first.pipeline.kernels)

    def use(pipeline):
        for _ in range(4):
            pending = [pipeline.submit([frame]) for frame in FRAMES]
            for one, want in zip(pending[::-1], expected[::-1], strict=True):
                assert_same(one.result(), want)

    in_threads(lambda: use(first.pipeline), lambda: use(second))


def any_sequence_of_submits_and_results_is_that_of_plain_calls():
    pairs = {depth: warm(depth, max_batch=2) for depth in (1, 2, 3)}
    plain = warm(1, max_batch=2).pipeline
    expected = {}
    # Frames of a submit, or which of the results so far is asked for.
    submits = st.lists(st.integers(0, len(FRAMES) - 1), max_size=3).map(tuple)
    steps = st.lists(st.one_of(submits, st.integers(0, 9)), max_size=8)

    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.sampled_from(sorted(pairs)), steps)
    def hold(depth, steps):
        pending = []
        for step in steps:
            if isinstance(step, tuple):
                pending.append((step, pairs[depth].pipeline.submit([FRAMES[number] for number in step])))
                continue
            for frames, one in pending[step : step + 1]:
                if frames not in expected:
                    expected[frames] = plain([FRAMES[number] for number in frames])
                assert_same(one.result(), expected[frames])

    hold()
