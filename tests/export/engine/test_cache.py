"""The timing cache of TensorRT: where it lies, and who writes it."""

from __future__ import annotations

import threading

import pytest

from cornernet_export.engine import cache as engine_cache
from cornernet_runtime.errors import CornerNetWarning


def test_the_timing_cache_is_in_the_users_cache_folder_by_default(tensorrt, build, tmp_path):
    build()
    file = tmp_path / "cache" / "cornernet-trt" / f"timing-{tensorrt.version}-NVIDIA-H200.cache"
    assert file.read_bytes() == b"TIMINGS conv 1"


def test_what_another_process_measured_meanwhile_is_kept(tensorrt, build, tmp_path):
    file = tmp_path / "timings"
    file.write_bytes(b"TIMINGS conv 0")
    tensorrt.phases = lambda: file.write_bytes(b"TIMINGS conv 0;conv 2")
    build(timing_cache=file)
    assert file.read_bytes() == b"TIMINGS conv 0;conv 1;conv 2"


def test_writers_of_a_timing_cache_wait_for_each_other(tmp_path):
    def second():
        with engine_cache._locked(tmp_path / "timings"):
            entered.set()

    entered = threading.Event()
    with engine_cache._locked(tmp_path / "timings"):
        other = threading.Thread(target=second)
        other.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    other.join()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"garbage", "damaged or of another TensorRT version"), (b"TIMINGS other gpu", "it is of another GPU")],
)
def test_a_timing_cache_that_does_not_fit_is_told_and_replaced(build, tmp_path, content, message):
    (tmp_path / "timings").write_bytes(content)
    with pytest.warns(CornerNetWarning, match=message):
        build(timing_cache=tmp_path / "timings")
    assert (tmp_path / "timings").read_bytes() == b"TIMINGS conv 1"


def test_a_timing_cache_that_cannot_be_written_costs_no_engine(build, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(CornerNetWarning, match="is not used: it cannot be"):
        assert build(timing_cache=tmp_path / "file" / "timings").engine is not None
