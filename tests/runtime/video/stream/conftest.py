"""A clip; every test of this folder leaves no thread and no open file."""

from __future__ import annotations

import pytest
from cases.video_clips import moving_shapes, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_shapes(40))


@pytest.fixture(autouse=True)
def every_test_cleans_up(nothing_is_left):
    """Apply ``nothing_is_left`` to every test of this folder."""
