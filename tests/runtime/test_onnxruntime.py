"""What ONNX Runtime is told beyond its own defaults."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cornernet_runtime import Detector
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend
from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.bundle import ONNX_NAME
from cornernet_runtime.errors import BackendError


def test_threads_are_those_asked_for_or_as_many_as_this_process_may_use(bundle_path):
    for threads, expected in ((3, 3), (None, default_threads())):
        with Detector.open(bundle_path, threads=threads) as detector:
            assert detector.backend._session.get_session_options().intra_op_num_threads == expected


def test_threads_below_one_are_refused(bundle_path):
    for path in (bundle_path, bundle_path / ONNX_NAME):
        with pytest.raises(BackendError, match=r"^threads: expected 1 or more, got -1$"):
            Detector.open(path, threads=-1)


def test_no_plan_of_memory_is_kept_for_each_shape(bundle_path):
    backend = OnnxRuntimeBackend(bundle_path / ONNX_NAME)
    assert not backend._session.get_session_options().enable_mem_pattern


def test_threads_that_wait_take_no_time_of_the_cpu(bundle_path):
    backend = OnnxRuntimeBackend(bundle_path / ONNX_NAME, threads=4)
    images = np.zeros((1, 3, 63, 95), np.float32)
    paused, used = 0.0, 0.0
    for _ in range(20):
        backend(images)
        began, cpu = time.perf_counter(), time.process_time()
        time.sleep(0.005)
        paused += time.perf_counter() - began
        used += time.process_time() - cpu
    assert used <= 0.1 * paused  # threads that wait in a loop took a third and more
