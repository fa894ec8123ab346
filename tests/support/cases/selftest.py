"""What the tests of the self-test's L6 share: GPUs that are found or not, pictures, requests, the document."""

import re

import cv2
import numpy as np
import pytest
from places import ROOT

from cornernet_bench.kernels import check as kernels
from cornernet_bench.selftest import path as selftest_path
from cornernet_bench.selftest.notes import Notes
from cornernet_bench.selftest.report import Request

DOCUMENT = ROOT / "docs" / "selftest.md"


@pytest.fixture(name="notes")
def _notes(tmp_path):
    return Notes(tmp_path / "found.json")


@pytest.fixture(name="gpus")
def _gpus(monkeypatch):
    """The GPUs that are found: none, until a test puts some in."""
    found = []
    monkeypatch.setattr(selftest_path, "find_gpus", lambda: found)
    monkeypatch.delenv(kernels.REQUIRE_GPU, raising=False)
    return found


@pytest.fixture(scope="module", name="images")
def _images(tmp_path_factory):
    """Pictures of blocks, which leave the small network something to find."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        cells = np.random.default_rng(number).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cells.repeat(8, 0).repeat(8, 1))
    return folder


def request(model, images, **changes):
    return Request(model=str(model), images=str(images), **{"frames": 4, **changes})


def documented():
    section = DOCUMENT.read_text(encoding="utf-8").partition("## Figures of L6\n")[2]
    return {name for line in section.splitlines() if "|" in line for name in re.findall(r"`(\w+)`", line)}


def assert_matched(figures, more_than):
    """Assert that detections have counterparts, but for near ties: random weights give many, and rounding decides."""
    assert figures["detections_matched"] + figures["detections_near_ties"] == figures["detections_reference"]
    assert figures["detections_matched"] > more_than
    assert figures["detections_extra"] == 0
