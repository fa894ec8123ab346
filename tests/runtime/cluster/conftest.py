"""A Ray of this machine, with two workers' places, for the tests of this folder; and what they detect in."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest
from cases.cluster import ray_of_this_machine
from cases.video_clips import moving_shapes


@pytest.fixture(scope="package")
def ray_address():
    """Address of a cluster that this process is connected to, and that others may join."""
    with ray_of_this_machine() as address:
        yield address


@pytest.fixture(scope="package")
def pictures(tmp_path_factory):
    """Forty-one pictures of several sizes and formats, one with a name that is no UTF-8, and two unreadable."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, frame in enumerate(moving_shapes(38)):
        image = frame[: 60 + number, : 90 + 2 * number]
        cv2.imwrite(str(folder / f"{number:03d}.{('png', 'jpg')[number % 2]}"), image)
    odd = os.fsencode(folder) + b"/odd-\xff.png"
    Path(os.fsdecode(odd)).write_bytes((folder / "000.png").read_bytes())
    (folder / "017-broken.jpg").write_bytes((folder / "017.jpg").read_bytes()[:150])
    (folder / "030-empty.png").write_bytes(b"")
    return folder
