"""Targets of whole scenes, decoded again by the runtime and judged by pycocotools: what no network can exceed."""

from __future__ import annotations

import numpy as np
import pytest

from cornernet_bench.accuracy.evaluate import evaluate
from cornernet_export.targets import ideal_maps
from cornernet_runtime.bundle.spec import ModelSpec
from cornernet_runtime.detector import Detector
from cornernet_runtime.processing.maps import CornerMaps
from cornernet_train.data import Examples
from cornernet_train.pictures import ShapeScenes
from cornernet_train.shapes import CLASS_NAMES
from cornernet_train.shapes_dataset import write_shapes

SCENES = 60
SEED = 31
SPEC = ModelSpec("truth", CLASS_NAMES, 4, 32, (255, 255), (255, 255))


@pytest.fixture(scope="module")
def targets():
    scenes = ShapeScenes(SEED, SCENES)
    examples = Examples(scenes, SPEC)
    return [examples.example(scenes[index]).targets for index in range(SCENES)]


def shared(item):
    """Say whether two objects have a corner of one kind in one cell, which holds one embedding and one offset."""
    return any(len(set(cells.tolist())) < len(cells) for cells in (item.tl_cells, item.br_cells))


class TruthBackend:
    """Answers picture after picture with the maps that training asks for."""

    name = "truth"
    max_batch = 1

    def __init__(self, targets):
        self._maps = [ideal_maps(item) for item in targets]

    def __call__(self, _images):
        maps = self._maps.pop(0)
        return CornerMaps(*(getattr(maps, name)[None] for name in CornerMaps.__dataclass_fields__))

    def close(self):
        self._maps = []


def average_precision(folder, targets):
    detector = Detector(TruthBackend(targets), SPEC)
    return evaluate(detector, folder / "annotations.json", folder / "images").metrics


@pytest.mark.slow
def test_targets_decode_to_an_ap_of_100(targets, tmp_path):
    write_shapes(tmp_path / "set", SCENES, SEED)
    assert 0 < sum(map(shared, targets)) < SCENES / 5
    found = average_precision(tmp_path / "set", targets)
    assert found["ap"] >= 99.9
    assert found["ap50"] == found["ap75"] == 100, "of two corners in one cell, one is less than a cell off"


@pytest.mark.slow
def test_boxes_come_back_exactly_where_no_two_corners_share_a_cell(targets):
    scenes, checked = ShapeScenes(SEED, SCENES), 0
    detector = Detector(TruthBackend(targets), SPEC)
    for index, item in enumerate(targets):
        scene = scenes[index]
        detections = detector(scene.image)
        if not shared(item):
            distance = np.abs(scene.boxes[:, None] - detections.boxes).max(2)
            distance[scene.labels[:, None] != detections.labels] = np.inf
            # Offsets and boxes are float32: a few units in the last place of 500 pixels.
            assert distance.min(1).max() < 2e-3
            checked += len(scene.labels)
    assert checked > 200
