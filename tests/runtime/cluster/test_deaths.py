"""Workers that die within a part, by signals, on a real Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

import pytest
from cases.cluster import CONNECTED, assert_same, run_on_ray

from cornernet_runtime.cluster import pool as work_module
from cornernet_runtime.cluster.connect import import_ray
from cornernet_runtime.cluster.plan import Part
from cornernet_runtime.cluster.request import ClusterRequest
from cornernet_runtime.detector import Detector
from cornernet_runtime.errors import ClusterError
from cornernet_runtime.pictures import find_pictures, read_picture

pytestmark = pytest.mark.usefixtures("ray_address")


def test_a_killed_worker_costs_nothing_but_time(bundle_path, pictures, tmp_path):
    copies = shutil.copytree(pictures, tmp_path / "copies")
    held = copies / "002.png"
    content = held.read_bytes()
    held.unlink()
    os.mkfifo(held)  # whose reader waits
    killed = []

    def kill(_, __, part):
        if part is not None and not killed:
            with reader_of(held) as worker:
                held.unlink()
                held.write_bytes(content)
                os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    summary, _ = run_on_ray(bundle_path, [copies], tmp_path / "run", kill, part_size=2)
    assert str(killed[0]) not in {part.worker.rpartition(":")[2] for part in summary.parts if part.unit == 1}
    with Detector.open(bundle_path) as detector:
        for row, path in zip(summary.read_rows(), find_pictures([str(copies)]), strict=True):
            assert row.source == str(path)
            if row.error is None:
                assert_same(row.detections, detector(read_picture(path)).above(0.05))
    assert summary.totals.failed == 2
    assert [(part.unit, part.pictures + part.failed) for part in summary.parts] == [
        (number, 2 if number < 20 else 1) for number in range(21)
    ]


@contextlib.contextmanager
def reader_of(fifo):
    """Wait until a process reads from a named pipe, and yield it; until the end it goes on waiting."""
    writer = os.open(fifo, os.O_WRONLY)  # opens once there is a reader
    try:
        (reader,) = {int(link.parts[2]) for link in Path("/proc").glob("[0-9]*/fd/*") if leads_to(link, fifo)}
        yield reader
    finally:
        os.close(writer)


def leads_to(link, fifo):
    with contextlib.suppress(OSError):  # of others, or gone
        return link.readlink() == fifo and int(link.parts[2]) != os.getpid()
    return False


def test_a_part_whose_workers_die_ends_the_run_and_names_it(bundle_path, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(work_module, "TRIES", 1)
    copies = shutil.copytree(pictures, tmp_path / "copies")
    (copies / "002.png").unlink()
    os.mkfifo(copies / "002.png")
    killed = []

    def kill(_, __, part):
        if part is not None and not killed:
            with reader_of(copies / "002.png") as worker:
                os.kill(worker, signal.SIGKILL)
            killed.append(worker)

    with pytest.raises(ClusterError, match=r"workers died 1 times over the same part, .* of a file in it: ") as failure:
        run_on_ray(bundle_path, [copies], tmp_path / "run", kill, part_size=2)
    text = str(failure.value)
    assert f"{copies / '002.png'} to {copies / '003.jpg'}" in text
    assert f"finished parts are kept in {tmp_path / 'run'}" in text
    assert len(text.splitlines()) == 1


def test_workers_that_are_being_started_again_are_said_to_have_died():
    request = ClusterRequest("model", ("a.png",), None, CONNECTED)
    work = work_module.Work(request, "0", None, [Part(0, "pictures", ("a.png",))], lambda *_: None)
    error = import_ray().exceptions.ActorUnavailableError(
        "connection refused", None
    )  # as Ray 2.60 has it after several deaths
    with pytest.raises(ClusterError, match="workers died 4 times over the same part"), work._told_plainly():
        raise error
