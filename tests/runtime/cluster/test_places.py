"""How many workers a cluster has a place for."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from cornernet_runtime.cluster.pool import _workers
from cornernet_runtime.cluster.request import ClusterRequest
from cornernet_runtime.errors import ClusterError, CornerNetWarning

REQUEST = ClusterRequest("bundle", ("images",), None, "local", worker_cpus=2)


def cluster(*machines):
    """A Ray with machines of so many CPUs and GPUs; one of None is dead."""
    nodes = [
        {"Alive": machine is not None, "Resources": dict(zip(("CPU", "GPU"), machine or (64, 8), strict=True))}
        for machine in machines
    ]
    return SimpleNamespace(nodes=lambda: nodes)


@pytest.mark.parametrize(
    ("machines", "gpus", "places"),
    [
        ([(8, 0)], 0, 4),
        ([(9, 0)], 0, 4),  # a worker is on one machine
        ([(3, 0), (3, 0)], 0, 2),
        ([(8, 0), None], 0, 4),
        ([(8, 1), (8, 0)], 1, 1),
        ([(8, 2)], 0.5, 4),
        ([(2, 8)], 1, 1),
    ],
)
def test_there_are_as_many_as_machines_have_places_for(machines, gpus, places):
    assert _workers(cluster(*machines), replace(REQUEST, worker_gpus=gpus)) == places


def test_more_than_there_are_places_for_are_told_to_wait():
    with pytest.warns(CornerNetWarning, match=r"^the cluster has a place for 4 of 5 workers; the others wait for one$"):
        assert _workers(cluster((8, 0)), replace(REQUEST, workers=5)) == 5


def test_as_many_as_there_are_places_for_need_not_wait(recwarn):
    assert [_workers(cluster((8, 0)), replace(REQUEST, workers=count)) for count in (1, 4)] == [1, 4]
    assert list(recwarn) == []


def test_no_place_is_an_error_unless_somebody_waits_for_one():
    with pytest.raises(
        ClusterError, match="no machine of the cluster has 2 CPU and 1 GPU for a worker; the most of one"
    ):
        _workers(cluster((8, 0), (1, 4)), replace(REQUEST, worker_gpus=1))
    with pytest.warns(CornerNetWarning, match="a place for 0 of 1 workers"):
        assert _workers(cluster((8, 0)), replace(REQUEST, worker_gpus=1, workers=1)) == 1
