"""Detections that no rounding can make come or go."""

from __future__ import annotations

import numpy as np
from noise.rounding import SIZE, perturbed

from cornernet_export.verification.matching import box_iou
from cornernet_runtime.detections import Detections
from cornernet_runtime.detector import Detector
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

DRAWS = 10  # a decision that rounding can turn is turned in about half of them


def clear_detections(detector, frame, score=0.1):
    """Return the detections, of at least a score, that are there whatever noise ten times that of rounding decides.

    Random weights give many scores and embeddings that nearly equal others. Which of them wins is up to the processor,
    and what else then comes, goes or changes its score; another form of the network need not have those.
    """
    backend = _Wavering(detector.backend)
    wavering = Detector(backend, detector.spec, flip=detector.flip, scales=detector.scales)
    found = wavering(frame).above(score)
    clear = np.ones(len(found), bool)
    for backend.draw in range(1, DRAWS + 1):
        other = wavering(frame)
        alike = (box_iou(found.boxes, other.boxes) >= 0.99) & (found.labels[:, None] == other.labels)
        alike &= np.abs(found.scores[:, None] - other.scores) <= 1e-4  # noise of 1e-5 moves logits of up to 10
        clear &= alike.any(1)
    return Detections(found.boxes[clear], found.scores[clear], found.labels[clear], found.class_names)


def assert_found(want, found, least, *, iou=0.99, score=1e-4):
    """Assert that at least so many detections are wanted, and that each has a counterpart among those found."""
    assert len(want) >= least, f"{len(want)} detections are clear"
    alike = (box_iou(want.boxes, found.boxes) >= iou) & (want.labels[:, None] == found.labels)
    alike &= np.abs(want.scores[:, None] - found.scores) <= score
    assert alike.any(axis=1).all(), f"{int((~alike.any(axis=1)).sum())} of {len(want)} are not found"


class _Wavering:
    """A backend whose maps of an image are found once and have other noise in each draw but the first, number 0."""

    name, max_batch = "wavering", 1

    def __init__(self, backend):
        self._backend, self._known, self.draw = backend, {}, 0

    def __call__(self, images):
        key = images.shape, images.tobytes()
        if key not in self._known:
            maps = self._backend(images)
            self._known[key] = [getattr(maps, name).copy() for name in OUTPUT_NAMES]
        outputs = self._known[key]
        return CornerMaps(*(perturbed(outputs, images, self.name, self.draw, 10 * SIZE) if self.draw else outputs))
