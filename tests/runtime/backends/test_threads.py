"""How many threads a network on the CPU gets, on machines that are described by files."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from places import ROOT, python_path

from cornernet_runtime.backends.threads import check_threads, default_threads
from cornernet_runtime.errors import BackendError

RUNTIME = ROOT / "runtime"
MANY = frozenset(range(16))


@pytest.fixture(autouse=True)
def cpus(monkeypatch):
    """Let this process run on 16 CPUs, or on those that a test sets."""
    allowed = set(MANY)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed)
    return allowed


def write_groups(root, text):
    path = root / "proc/self/cgroup"
    path.parent.mkdir(parents=True)
    path.write_text(f"{text}\n")


def limit(root, folder, text):
    path = root / "sys/fs/cgroup" / folder / "cpu.max"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_a_machine_that_says_nothing_gets_a_thread_a_cpu(tmp_path):
    assert default_threads(tmp_path) == 16


def test_cpus_that_this_process_may_not_use_do_not_count(tmp_path, cpus):
    cpus -= set(range(3, 16))
    assert default_threads(tmp_path) == 3


def test_two_cpus_of_one_core_get_one_thread(tmp_path, cpus):
    cpus -= set(range(4, 16))
    for cpu in range(4):
        path = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        path.parent.mkdir(parents=True)
        path.write_text(f"{cpu % 2},{cpu % 2 + 2}\n")
    assert default_threads(tmp_path) == 2


@pytest.mark.parametrize(
    ("text", "threads"),
    [("max 100000", 16), ("400000 100000", 4), ("250000 100000", 3), ("50000 100000", 1), ("9999999 100000", 16)],
)
def test_a_limit_on_cpu_time_is_the_most_threads(tmp_path, text, threads):
    limit(tmp_path, "", text)
    assert default_threads(tmp_path) == threads


def test_the_tightest_limit_from_the_own_group_up_holds(tmp_path):
    write_groups(tmp_path, "0::/pods/one/main")
    limit(tmp_path, "pods/one/main", "max 100000")
    limit(tmp_path, "pods/one", "500000 100000")
    limit(tmp_path, "pods", "800000 100000")
    limit(tmp_path, "pods/two", "100000 100000")  # another's
    assert default_threads(tmp_path) == 5


@pytest.mark.parametrize(("quota", "threads"), [("-1", 16), ("600000", 6)])
@pytest.mark.parametrize("folder", ["docker/abc", ""], ids=["host", "container"])
def test_version_1_of_control_groups_is_read(tmp_path, quota, threads, folder):
    write_groups(tmp_path, "3:memory:/a\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/")
    group = tmp_path / "sys/fs/cgroup/cpu,cpuacct" / folder
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    assert default_threads(tmp_path) == threads


def test_files_that_say_something_else_set_no_limit(tmp_path):
    write_groups(tmp_path, "nothing known")
    limit(tmp_path, "", "some")
    assert default_threads(tmp_path) == 16


def test_a_number_that_is_given_is_taken_from_one_on():
    assert check_threads(3) == 3
    assert check_threads(None) == default_threads()
    for threads in (0, -1):
        with pytest.raises(BackendError, match=f"^threads: expected 1 or more, got {threads}$"):
            check_threads(threads)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system does not tell which CPUs may be used")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_no_thread_runs_where_the_process_may_not(bundle_path, backend):
    # ONNX Runtime's own choice is a thread for each core of the machine, each pinned to one.
    code = """
import os, sys
cpu = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {cpu})
import cornernet_runtime, numpy
detector = cornernet_runtime.Detector.open(sys.argv[1], backend=sys.argv[2])
detector(numpy.zeros((63, 95, 3), numpy.uint8))
print({tuple(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")} == {(cpu,)})
"""
    environment = {**os.environ, "PYTHONPATH": python_path(RUNTIME)}
    command = [sys.executable, "-c", code, str(bundle_path), backend]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - ours
    assert done.stdout == "True\n"
