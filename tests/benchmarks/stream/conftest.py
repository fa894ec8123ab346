"""A clip that streams are measured on."""

from __future__ import annotations

import pytest
from cases.video_clips import moving_shapes, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_shapes(9))
