"""What a latency report is made of, each by itself."""

from __future__ import annotations

import signal
import threading
import time

import cv2
import numpy as np
import pytest
from cases.small import SMALL_SPEC, small_model

from cornernet_bench.latency.cautions import doubts, host_share
from cornernet_bench.latency.report import BatchResult, ratios_of
from cornernet_bench.latency.workers import run_workers, workers_of
from cornernet_bench.measuring.machine import GpuState, Machine, describe_machine, parse_gpu_state, thread_limit
from cornernet_bench.measuring.measurement import measurement
from cornernet_bench.measuring.timing import StageClock
from cornernet_bench.models.frames import frames_of, load_frames
from cornernet_bench.models.runs import host_run, pipeline_run
from cornernet_export.torch_backend.cpu import TorchBackend
from cornernet_runtime import Detector
from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.errors import BackendError, FrameError

FRAME = np.zeros((50, 70, 3), np.uint8)


def samples(**columns):
    """One dict a call from a list of milliseconds for each stage."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def calm_machine(load=0.1, cores=2):
    return Machine("a processor", cores, None, None, load, None, {}, {})


def result_of(model, baseline=None, batch=1, network_batch=1):
    return BatchResult(batch, network_batch, model, baseline, {}, model.end_to_end.count)


# Frames.


def test_calls_take_the_next_frames_and_begin_anew():
    assert [frames_of(number, 2, "abc") for number in range(4)] == [["a", "b"], ["c", "a"], ["b", "c"], ["a", "b"]]
    assert frames_of(0, 5, "ab") == list("ababa")


def test_drawn_frames_have_the_size_asked_for_and_are_the_same_every_time():
    frames, again = load_frames(None, (120, 200)), load_frames(None, (120, 200))
    assert {(frame.shape, frame.dtype) for frame in frames} == {((120, 200, 3), np.dtype(np.uint8))}
    assert len({frame.tobytes() for frame in frames}) == len(frames) == 8
    assert all(np.array_equal(*pair) for pair in zip(frames, again, strict=True))
    assert min(frame.std() for frame in frames) > 10  # a picture, not a plain ground


def test_frames_of_a_folder_are_its_pictures(tmp_path):
    for level in (10, 200):
        cv2.imwrite(str(tmp_path / f"{level}.png"), np.full((30, 40, 3), level, np.uint8))
    frames = load_frames(tmp_path, (480, 640))
    assert [int(frame.mean()) for frame in frames] == [10, 200]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FrameError, match="no picture in this folder"):
        load_frames(tmp_path / "empty", (480, 640))


# Runs.


@pytest.mark.parametrize("flip", [False, True])
def test_the_stages_of_a_call_add_up_to_it(flip):
    with Detector(TorchBackend(small_model()), SMALL_SPEC, flip=flip) as detector:
        run = host_run(detector, detector.batch, StageClock())
        for count in (1, 3):
            times = run([FRAME] * count)
            assert list(times) == ["preprocess", "network", "decode", "soft_nms", "other", "end_to_end"]
            assert min(times.values()) > 0
            assert sum(times.values()) == pytest.approx(2 * times["end_to_end"])


def test_a_detector_names_its_stages_once_a_run_of_the_network():
    names = []

    class Stage:
        def __init__(self, name):
            names.append(name)

        __enter__ = __exit__ = lambda *_: None

    backend = TorchBackend(small_model())
    backend.max_batch = 2
    with Detector(backend, SMALL_SPEC) as detector:
        expected = detector.batch([FRAME] * 3)
        detector.stages = Stage
        found = detector.batch([FRAME] * 3)
    assert names == ["preprocess", "network", "decode"] * 2 + ["soft_nms"]
    np.testing.assert_array_equal(found[2].boxes, expected[2].boxes)


def test_a_pipeline_is_timed_from_end_to_end_and_by_the_gpu_apart():
    class Pipeline:
        def time_stages(self, frames):
            assert frames == [FRAME]
            names = ("upload", "preprocess", "network", "decode", "soft_nms", "download")
            return dict(zip(names, (32.0, 1.0, 2.0, 4.0, 8.0, 16.0), strict=True))

    class Owner:
        def batch(self, frames):
            assert frames == [FRAME]
            time.sleep(0.003)

    times = pipeline_run(Owner(), Pipeline())([FRAME])
    assert times["gpu_compute"] == 15  # no copies
    assert 3 <= times.pop("end_to_end") < 1000
    measured = measurement([{**times, "end_to_end": 20.0}], 1)
    assert measured.clock == "gpu_events"
    assert measured.gpu_compute.p50_ms == 15
    assert list(measured.stages) == ["upload", "preprocess", "network", "decode", "soft_nms", "download"]


# Figures.


def test_a_measurement_is_its_columns():
    measured = measurement(samples(network=[10, 20, 60], decode=[1, 1, 4], end_to_end=[12, 22, 66]), batch=2)
    assert measured.clock == "host"
    assert measured.gpu_compute is None
    assert (measured.stages["network"].p50_ms, measured.stages["decode"].mean_ms) == (20, 2)
    assert (measured.end_to_end.count, measured.end_to_end.p50_ms) == (3, 22)
    # Six frames in a hundred milliseconds.
    assert measured.throughput_fps == pytest.approx(60)


def test_ratios_are_of_medians_and_of_stages_that_both_have():
    model = measurement(samples(network=[10, 10, 11], other=[1, 1, 1], end_to_end=[20, 20, 22]), 1)
    baseline = measurement(samples(upload=[1, 1, 1], network=[30, 30, 30], other=[9, 9, 9], end_to_end=[79, 80, 90]), 1)
    assert ratios_of(model, baseline) == {"network": 3, "end_to_end": 4}


def test_times_that_spread_too_far_have_no_ratio_and_the_whole_s_take_all_with_them():
    steady = measurement(samples(network=[10, 10, 10], decode=[2, 2, 2], end_to_end=[20, 20, 20]), 1)
    one = measurement(samples(network=[10, 10, 10], decode=[1, 2, 9], end_to_end=[20, 20, 22]), 1)
    assert set(ratios_of(one, steady)) == {"network", "end_to_end"}
    whole = measurement(samples(network=[10, 10, 10], decode=[2, 2, 2], end_to_end=[20, 20, 90]), 1)
    assert ratios_of(whole, steady) == ratios_of(steady, whole) == {}


def test_workers_count_from_the_first_beginning_to_the_last_end():
    workers = workers_of([(10.0, 10.5), (10.25, 11.0), (11.0, 12.0)], 2, batch=4)
    assert (workers.count, workers.batch) == (2, 4)
    assert workers.throughput_fps == 6  # twelve frames in two seconds
    assert (workers.end_to_end.count, workers.end_to_end.p50_ms) == (3, 750)


def test_workers_run_at_the_same_time_each_with_a_detector_of_its_own():
    made, together = [], threading.Barrier(3, timeout=30)

    class Meeting(Detector):
        """Waits in each call until all workers are in one: only such that run side by side come through."""

        def batch(self, frames):
            together.wait()
            return super().batch(frames)

    def make():
        made.append(threading.get_ident())
        return Meeting(TorchBackend(small_model()), SMALL_SPEC)

    workers, interrupted = run_workers(make, lambda _: [FRAME], 3, 4)
    assert not interrupted
    assert len(set(made)) == 3
    assert workers.end_to_end.count == 12
    assert workers.throughput_fps > 0


def test_a_worker_that_cannot_be_made_ends_all_with_its_error():
    made = []

    def make():
        made.append(None)
        if len(made) == 2:
            raise BackendError("no memory for another")
        return Detector(TorchBackend(small_model()), SMALL_SPEC)

    with pytest.raises(BackendError, match=r"^no memory for another$"):
        run_workers(make, lambda _: [FRAME], 3, 1)


def test_an_interrupt_ends_workers_after_their_call_and_keeps_what_they_did():
    asked = []

    def frames_of_call(number):
        asked.append(number)
        if len(asked) == 12:  # four of them to warm up
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return [FRAME]

    def make():
        return Detector(TorchBackend(small_model()), SMALL_SPEC)

    workers, interrupted = run_workers(make, frames_of_call, 2, 1_000_000)
    assert interrupted
    assert 6 <= workers.end_to_end.count < 1_000_000


# The machine.


def test_a_line_of_nvidia_smi_is_a_state():
    line = "NVIDIA H200, 595.71.05, 1234, 1980, 1980, 3201, 41"
    assert parse_gpu_state(line) == GpuState("NVIDIA H200", "595.71.05", 1234, 1980, 1980, 3201, 41)
    assert parse_gpu_state("A, card, 1.2, [N/A], 5, 6, 7, [Not Supported]") == GpuState(
        "A, card", "1.2", None, 5, 6, 7, None
    )
    assert parse_gpu_state("No devices were found") is None


def test_the_machine_is_described_with_what_is_used():
    machine = describe_machine(1.5, 0, {"onnxruntime"})
    assert machine.cores >= 1
    assert machine.cpu
    assert machine.load_average == 1.5
    assert {"cornernet-trt", "python", "numpy", "torch"} <= set(machine.versions)
    assert set(machine.threads) == {"opencv", "onnxruntime", "torch"}
    assert machine.threads["onnxruntime"] == default_threads()
    both = describe_machine(1.5, 3, {"openvino", "onnxruntime", "torch"}).threads
    assert (both["openvino"], both["onnxruntime"]) == (3, 3)


def test_threads_are_limited_inside_the_block_only():
    import torch  # noqa: PLC0415 - beside its only use

    before = cv2.getNumThreads(), torch.get_num_threads()
    with thread_limit(1, torch=True):
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (1, 1)
    assert (cv2.getNumThreads(), torch.get_num_threads()) == before
    with thread_limit(0, torch=True):
        assert (cv2.getNumThreads(), torch.get_num_threads()) == before


# Doubts.

STEADY = measurement(samples(network=[9.0] * 20, end_to_end=[10.0] * 20), 1)
LOOSE = measurement(samples(network=[9.0] * 20, end_to_end=[10.0] * 14 + [13.0] * 6), 1)


def test_steady_figures_on_a_calm_machine_raise_no_doubt():
    assert doubts([result_of(STEADY, STEADY)], calm_machine(), "weights.pkl", on_gpu=False) == ()


def test_a_large_spread_is_told_of_either_contestant():
    (line,) = doubts([result_of(LOOSE, STEADY)], calm_machine(), None, on_gpu=False)
    assert line.startswith("batch 1: times of the model spread by 30 % of their median: ")
    (line,) = doubts([result_of(STEADY, LOOSE, batch=4, network_batch=4)], calm_machine(), None, on_gpu=False)
    assert line.startswith("batch 4: times of the baseline spread by 30 %")


def test_cpu_time_is_named_where_the_clock_of_the_host_is_of_no_use():
    wild = measurement(samples(network=[9.0] * 20, end_to_end=[10.0] * 14 + [90.0] * 6), 1)
    spread, load = doubts([result_of(wild)], calm_machine(load=1.2), None, on_gpu=False)
    assert "--threads 1 --cpu-time" in spread
    assert "--threads 1 --cpu-time" in load
    _, hopeless = doubts([result_of(wild, STEADY)], calm_machine(), None, on_gpu=False)
    assert hopeless == "batch 1: times spread too far to tell how many times as fast the model is"
    by_cpu = measurement(samples(network=[9.0] * 20, end_to_end=[10.0] * 14 + [90.0] * 6), 1, "process")
    said = doubts([result_of(by_cpu)], calm_machine(load=1.2), None, on_gpu=False)
    assert "--cpu-time" not in " ".join((*said, *doubts([result_of(wild)], calm_machine(load=1.2), None, on_gpu=True)))


def test_a_busy_machine_random_weights_and_small_batches_are_told():
    (line,) = doubts([result_of(STEADY)], calm_machine(load=1.2), None, on_gpu=False)
    assert line.startswith("1.2 processes ran in the minute before, on 2 cores: ")
    (line,) = doubts([result_of(STEADY)], calm_machine(), "random weights of cornernet-104", on_gpu=False)
    assert line.startswith("the baseline has random weights of cornernet-104: ")
    (line,) = doubts([result_of(STEADY, batch=4)], calm_machine(), None, on_gpu=False)
    assert line == "batch 4: the network takes 1 at a time: export it with --batch 4 for more"


def test_a_gpu_that_waits_for_the_host_is_told():
    by_host = measurement(samples(preprocess=[2.0], network=[6.0], decode=[2.0], end_to_end=[10.0]), 1)
    assert host_share(by_host) == pytest.approx(0.4)
    by_gpu = measurement(
        samples(upload=[1.0], preprocess=[1.0], network=[5.0], decode=[1.0], gpu_compute=[7.0], end_to_end=[10.0]), 1
    )
    assert host_share(by_gpu) == pytest.approx(0.2)
    (line,) = doubts([result_of(by_host)], calm_machine(), None, on_gpu=True)
    assert line.startswith("batch 1: the GPU waits for the host in 40% of a call")
    assert doubts([result_of(by_host)], calm_machine(), None, on_gpu=False) == ()
    assert doubts([result_of(by_gpu)], calm_machine(), None, on_gpu=True) == ()


def test_a_graph_that_is_faster_than_its_stages_apart_leaves_no_share():
    measured = measurement(samples(network=[12.0], gpu_compute=[12.0], end_to_end=[10.0]), 1)
    assert host_share(measured) == 0
    assert doubts([result_of(measured)], calm_machine(), None, on_gpu=True) == ()
