"""One form of a network compared with another: every output tensor, then every detection."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cornernet_export.verification.matching import FP32, Tolerance, View, compare_detections
from cornernet_runtime.bundle.manifest import DetectionCheck, OutputCheck, Verification
from cornernet_runtime.pictures import find_pictures, read_picture
from cornernet_runtime.processing.geometry import place
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps
from cornernet_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import ModelSpec, Size
    from cornernet_runtime.detector import Detector

WORST = float(np.finfo(np.float32).max)  # the error of a map that is not finite; JSON has no infinity
MOST_PICTURES = 32
NOISE = "noise"


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
        view = View.within(reference, expected, found, placement, tolerance.tie)
        counts.append(compare_detections(*both, stage, source, tolerance, view))
    detections = sum(counts[1:], counts[0])
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
