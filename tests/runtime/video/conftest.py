"""What threads and files a test of videos may leave: none."""

from __future__ import annotations

import gc

import pytest
from servers.left_over import threads_and_files


@pytest.fixture
def nothing_is_left():
    """Hold each test to leaving no thread and no open file."""
    gc.collect()
    before = threads_and_files()
    yield
    gc.collect()
    assert threads_and_files() == before
