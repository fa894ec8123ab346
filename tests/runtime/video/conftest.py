"""A detector for streams, and what threads and files a test may leave: none."""

from __future__ import annotations

import gc

import pytest
from servers.left_over import threads_and_files

from cornernet_runtime.detector import Detector


@pytest.fixture(scope="module")
def detector(bundle_path):
    with Detector.open(bundle_path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def _frozen():
    """Take what is there before the tests of a module out of each collection, which then takes no time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def nothing_is_left(_frozen):
    """Hold each test to leaving no thread and no open file."""
    before = threads_and_files()
    yield
    assert threads_and_files() == before
