"""A detector for many sources; every test of this folder leaves no thread and no open file."""

from __future__ import annotations

import time

import pytest
from cases.multi import PICTURE

from cornernet_runtime.detector import Detector


@pytest.fixture(scope="module")
def detector(batch_bundle_path):
    """Of batches of up to four."""
    with Detector.open(batch_bundle_path, threads=1) as opened:
        yield opened


@pytest.fixture(autouse=True)
def every_test_cleans_up(nothing_is_left):
    """Apply ``nothing_is_left`` to every test of this folder."""


@pytest.fixture
def sizes(detector, monkeypatch):
    """Make the detector one that takes 20 ms for a batch of any size and finds nothing; the sizes of its batches."""
    nothing, seen = detector(PICTURE), []

    def wait(_, frames):
        time.sleep(0.02)
        seen.append(len(frames))
        return [nothing] * len(frames)

    monkeypatch.setattr(Detector, "batch", wait)
    return seen
