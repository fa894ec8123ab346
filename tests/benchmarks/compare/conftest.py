"""The shipped model as a bundle, with scenes to compare it on."""

from __future__ import annotations

import math

import pytest
from cases.compare import SCENES
from cases.faulty_models import shipped_with_scenes

from cornernet_bench.measuring import measurement


@pytest.fixture(scope="module")
def speeds_are_reported():
    """Report speeds however far the times of two rounds spread on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measurement, "MOST_SPREAD", math.inf)
        yield


@pytest.fixture(scope="session")
def folder(shipped_path, tmp_path_factory):
    """A folder with the shipped model as a bundle, ``tiny``, and scenes; tests read both and write other files."""
    return shipped_with_scenes(shipped_path, tmp_path_factory.mktemp("compare"), SCENES)
