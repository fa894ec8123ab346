"""What a detector makes of a network that gives NaN or no heat."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from cases.detector import NATIVE, SCENE, SeeingBackend, assert_scene, reach_of, scene

from cornernet_runtime import Detector
from cornernet_runtime.processing.maps import OUTPUT_NAMES


class BrokenBackend(SeeingBackend):
    """Sees the scene, but says the same number everywhere in some outputs of mirrored or large images."""

    def __init__(self, spec, broken, **outputs):
        super().__init__(spec)
        self.broken, self.outputs = broken, outputs

    def see(self, image):
        maps = super().see(image)
        if self.broken(image):
            maps = replace(
                maps, **{name: np.full_like(getattr(maps, name), said) for name, said in self.outputs.items()}
            )
        return maps


@pytest.mark.parametrize("name", OUTPUT_NAMES)
@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
def test_a_view_of_nothing_but_nan_leaves_the_others(name, scales):
    first = []

    def second_or_later(image):
        first.append(image.shape)
        return len(first) > 1

    backend = BrokenBackend(NATIVE, second_or_later, **{name: math.nan})
    found = Detector(backend, NATIVE, flip=True, scales=scales)(scene(210, 201, SCENE))
    assert_scene(found, SCENE, reach_of(1))


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
def test_views_of_nothing_but_nan_find_nothing(scales):
    backend = BrokenBackend(NATIVE, lambda _: True, **dict.fromkeys(OUTPUT_NAMES, math.nan))
    found = Detector(backend, NATIVE, flip=True, scales=scales)(scene(210, 201, SCENE))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 1.5)])
@pytest.mark.parametrize("dead", [-200.0, -np.inf])
def test_boxes_are_finite_where_one_kind_of_corner_has_no_heat_at_all(dead, scales):
    # The sigmoid of -200 is 0 in float32, the mean with the other corner is not: such pairs are candidates.
    backend = BrokenBackend(NATIVE, lambda _: True, tl_heat=dead, tl_embed=0.0, br_embed=0.0)
    found = Detector(backend, NATIVE, scales=scales)(scene(210, 201, SCENE))
    assert len(found) > 0
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()
