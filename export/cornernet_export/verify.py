"""One form of a network held against another: every output tensor, then every detection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_runtime.bundle import DetectionCheck, OutputCheck, Verification
from cornernet_runtime.geometry import place
from cornernet_runtime.maps import OUTPUT_NAMES, CornerMaps
from cornernet_runtime.pictures import find_pictures, read_picture
from cornernet_runtime.preprocess import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cornernet_runtime.detections import Detections
    from cornernet_runtime.detector import Detector
    from cornernet_runtime.spec import ModelSpec, Size

WORST = float(np.finfo(np.float32).max)  # the error of a map that is not finite; JSON has no infinity
MOST_PICTURES = 32
NOISE = "noise"
SCORE = 0.1  # detections below it are not compared one by one


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far one form of a network may be from another.

    Attributes:
        output: Largest error of an output, relative to the largest value of the reference's.
        score: A detection's counterpart may differ in score by this.
        iou: A detection's counterpart overlaps it at least so much.
        matched: Part of the detections that must have a counterpart.
    """

    output: float
    score: float
    iou: float
    matched: float


# The same arithmetic in another order gives about 1e-6; near-ties at the cut of the top corners fall either way.
FP32 = Tolerance(output=1e-4, score=1e-3, iou=0.99, matched=0.98)
# Eleven bits, through a hundred layers: about 3e-3 is seen, and pairs at the embedding's threshold come and go.
FP16 = Tolerance(output=2e-2, score=2e-2, iou=0.9, matched=0.9)
# On the shipped model the worst cell is off by 0.05 to 0.19 of the largest value, 95 % of the detections match and 3 %
# are extra. Ranges that are 0.7 times or 4 times what they should be give 0.4 to 0.5 and 0.3 to 0.4, and match 74 % and
# 88 %. What it costs in AP, only data with annotations tell.
INT8 = Tolerance(output=0.3, score=0.1, iou=0.75, matched=0.9)


def verify(
    reference: Detector,
    candidate: Detector,
    stage: str,
    tolerance: Tolerance = FP32,
    pictures: Sequence[NDArray[np.uint8]] = (),
    largest_batch: int = 2,
    *,
    noise: bool = True,
) -> Verification:
    """Compare two detectors of the same spec on pictures, and on noise of several of the sizes that they accept.

    Args:
        reference: The stage before.
        candidate: The stage that is to be trusted.
        stage: Names the two, for the report.
        tolerance: How far they may be apart.
        pictures: uint8 [H, W, 3], BGR; by default the one that comes with the package.
        largest_batch: Largest batch that the candidate is tried with, where the spec has several; the reference runs
            its pictures one by one.
        noise: Whether sizes and batches are tried with noise; if not, with a picture that is stretched to them. INT8
            covers the values that pictures have, and noise exceeds them.

    Returns:
        The largest error of each output, and all detections counted together.
    """
    pictures = pictures or [sample_picture()]
    source = "picture" if len(pictures) == 1 else f"{len(pictures)} pictures"
    checks: tuple[OutputCheck, ...] = ()
    counts: list[DetectionCheck] = []
    for picture in pictures:
        expected, placement = reference.corner_maps(picture)
        found, _ = candidate.corner_maps(picture)
        checks = _larger(checks, compare_outputs(expected, found, stage, source, tolerance.output))
        both = reference.finish(expected, placement), candidate.finish(found, placement)
        counts.append(compare_detections(*both, stage, source, tolerance))
    detections = replace(
        counts[0], **{name: sum(getattr(one, name) for one in counts) for name in ("reference", "matched", "extra")}
    )
    for name, shape in _shapes(reference.spec, largest_batch).items():
        # Noise reaches far more of the network's range than a picture does.
        if noise:
            two = np.random.default_rng(0).standard_normal((min(shape[0], 2), *shape[1:]), np.float32)
        elif name == NOISE:
            continue  # pictures of this size were compared above
        else:
            two = _stretched(input_of(reference, pictures[0])[0], shape)
        each = [_copied(reference.backend(noise[None])) for noise in two]
        expected = CornerMaps(*(np.concatenate([getattr(one, field) for one in each]) for field in OUTPUT_NAMES))
        order = np.arange(shape[0]) % 2  # neighbours differ, so a batch that mixes them up shows
        found = candidate.backend(two[order])
        checks += compare_outputs(expected[order], found, stage, name, tolerance.output)
    return Verification(outputs=checks, detections=(detections,))


def _larger(first: tuple[OutputCheck, ...], second: tuple[OutputCheck, ...]) -> tuple[OutputCheck, ...]:
    """Return of each two checks of an output the one with the larger error."""
    return tuple(max(pair, key=lambda check: check.error) for pair in zip(first, second, strict=bool(first))) or second


def _stretched(image: NDArray[np.float32], shape: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Return network input [3, h, w] resized to [1 or 2, 3, H, W] of a shape, the second mirrored."""
    resized = np.stack([cv2.resize(channel, (shape[3], shape[2])) for channel in image])
    return np.stack([resized, resized[:, :, ::-1]])[: shape[0]].astype(np.float32)


def _shapes(spec: ModelSpec, largest_batch: int) -> dict[str, tuple[int, int, int, int]]:
    """Return shapes of network input that show whether a model accepts what its spec says, by name."""
    most = min(spec.batch[2], largest_batch)
    if spec.dynamic:
        small = spec.modulus - 1, min(2 * spec.modulus - 1, spec.largest_size[1])
        most = most if spec.batch[2] > 1 else min(2, largest_batch)
        shapes = {f"{most}x{_text(small)}": (most, 3, *small)} if most > 1 else {}
        return {**shapes, _text(spec.largest_size): (1, 3, *spec.largest_size)}
    shapes = {NOISE if spec.fixed else _text(size): (1, 3, *size) for size in spec.sizes}
    if most > 1:
        shapes |= {f"{most}x{_text(size)}": (most, 3, *size) for size in spec.sizes}
    return shapes


def _copied(maps: CornerMaps) -> CornerMaps:
    """Return maps that outlive the next run of their backend."""
    return CornerMaps(*(getattr(maps, name).copy() for name in OUTPUT_NAMES))


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def compare_outputs(
    expected: CornerMaps, found: CornerMaps, stage: str, source: str, tolerance: float
) -> tuple[OutputCheck, ...]:
    """Return the largest error of each of the six maps, relative to the largest value expected in it."""
    checks = []
    for name in OUTPUT_NAMES:
        want, have = getattr(expected, name), getattr(found, name)
        error = np.abs(have - want).max() / np.abs(want).max(initial=np.finfo(np.float32).tiny)
        checks.append(OutputCheck(stage, source, name, float(np.nan_to_num(error, nan=WORST, posinf=WORST)), tolerance))
    return tuple(checks)


def compare_detections(
    expected: Detections, found: Detections, stage: str, source: str, tolerance: Tolerance = FP32
) -> DetectionCheck:
    """Match detections one to one, best first: same class, nearly the same box and score."""
    wanted = expected.above(SCORE)
    # A counterpart may lie just below the score that the other lies above.
    offered = found.above(SCORE - tolerance.score)
    alike = box_iou(wanted.boxes, offered.boxes) >= tolerance.iou
    alike &= wanted.labels[:, None] == offered.labels
    alike &= np.abs(wanted.scores[:, None] - offered.scores) <= tolerance.score
    free = np.ones(len(offered), np.bool_)
    matched = 0
    for row in alike:
        choices = np.flatnonzero(row & free)
        if len(choices):
            free[choices[0]] = False
            matched += 1
    extra = int(np.count_nonzero(free & (offered.scores >= SCORE + tolerance.score)))
    return DetectionCheck(stage, source, len(wanted), matched, extra, tolerance.matched)


def box_iou(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the intersection over union [N, M] of boxes [N, 4] and [M, 4]; equal empty boxes count as 1."""
    a, b = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    same = (a == b).all(-1)
    return np.asarray(np.where(same, 1.0, shared / np.where(union > 0, union, 1.0)))


def input_of(detector: Detector, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return what the network sees of a frame, float32 [1, 3, H, W]."""
    placement = place((frame.shape[0], frame.shape[1]), detector.spec)[0]
    image = np.empty((1, 3, *placement.input_size), np.float32)
    Preprocessor(detector.spec.normalisation)(frame, placement, image[0])
    return image


def read_some(sources: Sequence[str]) -> list[NDArray[np.uint8]]:
    """Read at most 32 pictures from all over the sources, so that those that are sorted by kind are not of one kind.

    Raises:
        FrameError: A source names nothing or holds no picture, or one cannot be read.
    """
    paths = find_pictures(sources)
    return [read_picture(path) for path in paths[:: -(-len(paths) // MOST_PICTURES)]]


def sample_picture() -> NDArray[np.uint8]:
    """Return the picture that comes with the package: shapes on a textured ground, uint8 [H, W, 3], BGR."""
    content = resources.files("cornernet_export").joinpath("sample.png").read_bytes()
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)
