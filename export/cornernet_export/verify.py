"""One form of a network held against another: every output tensor, then every detection."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_runtime.bundle import DetectionCheck, OutputCheck, Verification
from cornernet_runtime.maps import OUTPUT_NAMES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.detections import Detections
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.maps import CornerMaps

FP32_TOLERANCE = 1e-4  # of an output's largest value; the same arithmetic in another order gives about 1e-6
SCORE = 0.1  # detections below it are not compared one by one
SCORE_SLACK = 1e-3  # a counterpart's score may differ by this
SAME_BOX_IOU = 0.99
REQUIRED_MATCHES = 0.98  # near-ties at the cut of the top corners may fall either way


def verify(reference: Detector, candidate: Detector, stage: str, tolerance: float = FP32_TOLERANCE) -> Verification:
    """Compare two detectors of the same spec on a picture and on noise.

    Args:
        reference: The stage before.
        candidate: The stage that is to be trusted.
        stage: Names the two, for the report.
        tolerance: Largest error of an output, relative to the largest value of the reference's.
    """
    picture = sample_picture()
    expected, placement = reference.corner_maps(picture)
    found, _ = candidate.corner_maps(picture)
    checks = compare_outputs(expected, found, stage, "picture", tolerance)
    detections = compare_detections(
        reference.finish(expected, placement), candidate.finish(found, placement), stage, "picture"
    )
    # Noise reaches far more of the network's range than a picture does.
    noise = np.random.default_rng(0).standard_normal((1, 3, *reference.spec.input_size), np.float32)
    expected, found = reference.backend(noise)[0], candidate.backend(noise)[0]
    checks += compare_outputs(expected, found, stage, "noise", tolerance)
    return Verification(outputs=checks, detections=(detections,))


def compare_outputs(
    expected: CornerMaps, found: CornerMaps, stage: str, source: str, tolerance: float
) -> tuple[OutputCheck, ...]:
    """Return the largest error of each of the six maps, relative to the largest value expected in it."""
    checks = []
    for name in OUTPUT_NAMES:
        want, have = getattr(expected, name), getattr(found, name)
        error = np.abs(have - want).max() / np.abs(want).max(initial=np.finfo(np.float32).tiny)
        checks.append(OutputCheck(stage, source, name, float(error), tolerance))
    return tuple(checks)


def compare_detections(expected: Detections, found: Detections, stage: str, source: str) -> DetectionCheck:
    """Match detections one to one, best first: same class, IoU of at least 0.99, nearly the same score."""
    wanted = expected.above(SCORE)
    # A counterpart may lie just below the score that the other lies above.
    offered = found.above(SCORE - SCORE_SLACK)
    alike = box_iou(wanted.boxes, offered.boxes) >= SAME_BOX_IOU
    alike &= wanted.labels[:, None] == offered.labels
    alike &= np.abs(wanted.scores[:, None] - offered.scores) <= SCORE_SLACK
    free = np.ones(len(offered), np.bool_)
    matched = 0
    for row in alike:
        choices = np.flatnonzero(row & free)
        if len(choices):
            free[choices[0]] = False
            matched += 1
    extra = int(np.count_nonzero(free & (offered.scores >= SCORE + SCORE_SLACK)))
    return DetectionCheck(stage, source, len(wanted), matched, extra, REQUIRED_MATCHES)


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the intersection over union [N, M] of boxes [N, 4] and [M, 4]; equal empty boxes count as 1."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    same = (a == b).all(-1)
    return np.asarray(np.where(same, 1.0, shared / np.where(union > 0, union, 1.0)))


def sample_picture() -> NDArray[np.uint8]:
    """Return the picture that comes with the package: shapes on a textured ground, uint8 [H, W, 3], BGR."""
    content = resources.files("cornernet_export").joinpath("sample.png").read_bytes()
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)
