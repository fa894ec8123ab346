"""Waits of FFmpeg that another thread ends."""

from __future__ import annotations

import threading
import time

import av
import pytest
from av.container import core
from servers.live_servers import PATIENCE, Server

from cornernet_runtime.video.cancel import cancellable

LONG = 600  # seconds, far beyond what a test may take


def open_address(address, left, errors):
    try:
        with cancellable(left):
            av.open(address, timeout=LONG)
    except av.error.FFmpegError as error:
        errors.append(error)


@pytest.mark.parametrize("before", [True, False])
def test_a_wait_ends_when_the_event_is_set_before_or_during_it(before):
    left, errors = threading.Event(), []
    with Server(lambda *_: server.wait()) as server:
        if before:
            left.set()
        thread = threading.Thread(target=open_address, args=(f"tcp://127.0.0.1:{server.port}", left, errors))
        thread.start()
        deadline = time.perf_counter() + PATIENCE
        while server.clients == 0 and thread.is_alive() and time.perf_counter() < deadline:
            time.sleep(0.001)
        left.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert len(errors) == 1


def test_other_threads_are_told_the_time():
    left = threading.Event()
    left.set()
    with cancellable(left):
        assert core.time.monotonic() > time.monotonic() + LONG
        told = []
        other = threading.Thread(target=lambda: told.append(core.time.monotonic()))
        begin = time.monotonic()
        other.start()
        other.join()
        assert begin <= told[0] <= time.monotonic()
    assert core.time.monotonic() <= time.monotonic() + 1
