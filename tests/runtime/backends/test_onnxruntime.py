"""What ONNX Runtime is told beyond its own defaults."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest

from cornernet_runtime import Detector
from cornernet_runtime.backends.onnxruntime import OnnxRuntimeBackend, _session_options
from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.bundle.manifest import ONNX_NAME
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


def test_threads_wait_in_a_loop_only_where_it_can_be_kept_short(bundle_path):
    for version, spins in (("1.20.0", "0"), ("1.25.1", "0"), ("1.26.0", "1"), ("1.31.1", "1"), ("2.0.0", "1")):
        made = ort.SessionOptions()
        library = SimpleNamespace(__version__=version, SessionOptions=lambda made=made: made)
        assert _session_options(library, 2) is made
        assert made.get_session_config_entry("session.intra_op.allow_spinning") == spins, version
    session = OnnxRuntimeBackend(bundle_path / ONNX_NAME)._session
    entry = session.get_session_options().get_session_config_entry
    assert entry("session.intra_op.spin_duration_us") == "20"
    assert entry("session.force_spinning_stop") == "1"


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
