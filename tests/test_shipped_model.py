"""The model that is shipped: small enough, and finding what is on scenes that it was not trained on."""

import numpy as np
import pytest
from places import SHIPPED

from cornernet_export.verification.matching import box_iou
from cornernet_runtime import Detector
from cornernet_train.shapes import CLASS_NAMES, make_scene

UNSEEN_SEED = 4242


@pytest.fixture(scope="module")
def detector(shipped_path):
    with Detector.open(shipped_path) as opened:
        yield opened


def test_it_takes_no_more_than_eight_megabytes():
    assert SHIPPED.stat().st_size <= 8_000_000


def test_it_knows_the_six_shapes(detector):
    assert detector.class_names == CLASS_NAMES


def test_it_finds_most_shapes_of_unseen_scenes(detector):
    found = total = 0
    for index in range(12):
        scene = make_scene(UNSEEN_SEED, index)
        detections = detector(scene.image).above(0.3)
        same = box_iou(scene.boxes, detections.boxes) >= 0.7
        same &= scene.labels[:, None] == detections.labels
        found += int(np.count_nonzero(same.any(axis=1)))
        total += len(scene.labels)
    # AP is measured by cornernet-bench; this guards against a model that is stale or another's.
    assert found >= 0.75 * total
