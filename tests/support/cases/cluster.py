"""What the tests of runs on Ray share."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from places import SOURCE_ROOTS, python_path

from cornernet_runtime.cluster.connect import sigterm_kept
from cornernet_runtime.cluster.request import ClusterRequest
from cornernet_runtime.cluster.run import detect_on_cluster

CONNECTED = "the connection that is there"  # an address that nobody looks at


@contextlib.contextmanager
def ray_of_this_machine():
    """Yield the address of a Ray with two workers' places, which this process is part of; one that is there serves."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", python_path(*SOURCE_ROOTS))  # for the workers, which Ray starts
        ray = pytest.importorskip("ray", reason="Ray is not installed")
        if ray.is_initialized():
            yield ray.get_runtime_context().gcs_address
            return
        options = {"num_cpus": 2, "object_store_memory": 150 * 1024**2, "include_dashboard": False}
        with sigterm_kept():
            ray.init("local", **options, _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="ERROR")
            try:
                yield ray.get_runtime_context().gcs_address
            finally:
                ray.shutdown()


def assert_same(found, expected):
    """Hold detections against others, to the last bit."""
    for name in ("boxes", "scores", "labels"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name
    assert found.class_names == expected.class_names


def run_on_ray(model, sources, output, on_progress=lambda *_: None, **options):
    """Return the summary of a run, and what was said of pictures and videos that cannot be read."""
    said = []
    address = options.pop("address", CONNECTED)
    options = {"score": 0.05, "part_size": 10} | options
    request = ClusterRequest(str(model), tuple(map(str, sources)), output, address, **options)
    return detect_on_cluster(request, on_progress, said.append), said


def files_of(folder):
    """Return the files of a run's parts, each with what changes when it is written again."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (folder / "parts").iterdir()}
