"""Cases of decode and soft-NMS, for cases.py.

What a GPU finds is compared with the reference in NumPy by what it is, not by its rank: the two compute ``exp`` to the
last bits of float32, and so candidates whose scores are as close may change places.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cornernet_bench.kernels.case import KernelCase
from cornernet_bench.kernels.synthetic import CLASSES, INPUT, SIDE, noise_maps, object_maps, overlapping_boxes
from cornernet_runtime.bundle.spec import DecodeParameters, NmsMethod, NmsParameters
from cornernet_runtime.detections import Candidates
from cornernet_runtime.kernels import decode as decoding
from cornernet_runtime.kernels import soft_nms as suppressing
from cornernet_runtime.kernels.candidates import CandidateMemory
from cornernet_runtime.processing.decode import decode as decode_in_numpy
from cornernet_runtime.processing.geometry import boxes_in_frame, fit
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps
from cornernet_runtime.processing.nms import merging_soft_nms
from cornernet_runtime.processing.nms import soft_nms as soft_nms_in_numpy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.random import Generator
    from numpy.typing import NDArray

    from cornernet_runtime.kernels.launch import Launch
    from cornernet_runtime.processing.geometry import Placement

    Found = tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.int64]]  # boxes [N, 4], scores [N], labels [N]

STRIDE = 4
DECODE_TOLERANCE = 5e-7  # of a score, relative: 4 ulp of float32
NMS_TOLERANCE = 2e-4  # 2 ulp for each of a thousand times that a box can be lowered
BOX_TOLERANCE = 1e-2  # pixels; of a frame of 2000, float32 keeps 1e-4
BASE = 1 << 20  # an address that stands for the start of a block on the device


def random_decode(rng: Generator) -> KernelCase:
    """Return a case of random maps, quantised in part so that many heats are equal."""
    images, classes, height, width = (int(side) for side in rng.integers(1, [3, 9, 70, 70]))
    half = bool(rng.integers(2))
    maps = [random_maps(rng, classes, height, width) for _ in range(images)]
    size = (STRIDE * height - 1, STRIDE * width - 1)
    frames = [tuple(int(side) for side in rng.integers(20, 600, 2)) for _ in range(images)]
    views = [replace(fit((frame[0], frame[1]), size), mirrored=bool(rng.integers(2))) for frame in frames]
    parameters = DecodeParameters(int(rng.integers(1, 120)), int(rng.integers(1, 1025)))
    title = f"{images}x{classes}x{height}x{width}, {'half' if half else 'float'}"
    return decode_case(title, maps, views, parameters, half=half)


def timed_decode(rng: Generator) -> Iterator[KernelCase]:
    """Yield decode of 80x128x128: of forty objects, as ideal maps with noise, and of nothing but noise."""
    view = fit((1080, 1920), (INPUT, INPUT))
    for content, maps in (("forty ideal objects", object_maps(rng)), ("noise", noise_maps(rng))):
        for half in (True, False):
            title = f"{CLASSES}x{SIDE}x{SIDE}, {content}, {'half' if half else 'float'}"
            case = decode_case(title, [maps], [view], DecodeParameters(), half=half)
            yield replace(case, moved_bytes=2 * CLASSES * SIDE * SIDE * (2 if half else 4))


def random_soft_nms(rng: Generator) -> KernelCase:
    """Return a case of crowded candidates of several frames and views, by a random way of suppressing."""
    frames, views, classes = (int(count) for count in rng.integers(1, [3, 4, 6]))
    counts = [int(count) for count in rng.integers(0, 300, frames * views)]
    methods: tuple[NmsMethod, ...] = ("gaussian", "linear", "hard")
    method = methods[rng.integers(3)]
    parameters = NmsParameters(method=method, max_detections=int(rng.integers(1, 200)))
    found = [crowd(rng, classes, count) for count in counts]
    title = f"{frames} frames of {views} views, {classes} classes, {method}"
    return nms_case(title, found, frames, classes, parameters, capacity=300, merging=bool(rng.integers(2)))


def timed_soft_nms(rng: Generator) -> Iterator[KernelCase]:
    """Yield soft-NMS of 1000 candidates to 100, of one class, which is the worst case, and of 80."""
    for classes in (1, CLASSES):
        found = [crowd(rng, classes, 1000)]
        case = nms_case(f"1000 of {classes} classes", found, 1, classes, NmsParameters(), capacity=1000, merging=False)
        yield replace(case, moved_bytes=1000 * 24)


def design_decode() -> list[Launch]:
    """Return launches of every kernel of decode at 80x128x128."""
    launches = []
    shape = (1, CLASSES, SIDE, SIDE)
    for half in (False, True):
        maps = _device_maps(dict.fromkeys(OUTPUT_NAMES, BASE), shape, half=half)
        size = decoding.workspace_bytes(shape, DecodeParameters())
        launches += decoding.decode(maps, DecodeParameters(), BASE, CandidateMemory(BASE, 1, 1000), BASE, size)
    return launches


def design_soft_nms() -> list[Launch]:
    """Return launches of every kernel of soft-NMS for 1000 candidates of a view."""
    launches = []
    for views in (1, 5):
        found = CandidateMemory(BASE, views, 1000)
        size = suppressing.workspace_bytes(found, 1, CLASSES, NmsParameters())
        detections = suppressing.DetectionMemory(BASE, 1, 100)
        for merging in (False, True):
            launches += suppressing.soft_nms(found, CLASSES, NmsParameters(), detections, BASE, size, merging=merging)
    return launches


def unmatched(found: Found, expected: Found, tolerance: float) -> str | None:
    """Return what of two lists, each best first, has no partner of its label, box and score in the other.

    The last ones may be missing in either list where their scores are as close to the cut as the tolerance.
    """
    boxes, scores, labels = found
    wanted_boxes, wanted_scores, wanted_labels = expected
    if len(scores) != len(wanted_scores):
        return f"{len(scores)} found instead of {len(wanted_scores)}"
    if not np.isfinite(scores).all():
        return "scores are not finite"
    if np.any(np.abs(scores - wanted_scores) > tolerance * wanted_scores):
        worst = int(np.argmax(np.abs(scores - wanted_scores) / wanted_scores))
        return f"score {worst} is {scores[worst]}, not {wanted_scores[worst]}"
    if np.any(np.diff(scores) > 0):
        return "scores rise"
    free = np.ones(len(scores), bool)
    for index, (box, score, label) in enumerate(zip(boxes, scores, labels, strict=True)):
        near = free & (np.abs(wanted_scores - score) <= 2 * tolerance * score) & (wanted_labels == label)
        near &= (np.abs(wanted_boxes - box) <= BOX_TOLERANCE).all(axis=1)
        if near.any():
            free[np.argmax(near)] = False
        elif score > wanted_scores[-1] * (1 + 2 * tolerance):
            return f"number {index}, label {label} at {box.tolist()} with score {score}, is not in the reference"
    return None


def random_maps(rng: Generator, classes: int, height: int, width: int) -> CornerMaps:
    """Return maps of one image, quantised so that heats are equal here and there and half loses nothing."""

    def one(channels: int, step: float) -> NDArray[np.float32]:
        values = rng.standard_normal((channels, height, width), np.float32)
        return np.asarray(np.round(values / step) * step, np.float32)  # exact in half as well

    return CornerMaps(one(classes, 2**-6), one(classes, 2**-6), *(one(channels, 2**-8) for channels in (1, 1, 2, 2)))


def _device_maps(addresses: Mapping[str, int], shape: tuple[int, int, int, int], *, half: bool) -> decoding.DeviceMaps:
    named = {name: addresses[name] for name in OUTPUT_NAMES}
    kind: decoding.MapType = "float16" if half else "float32"
    return decoding.DeviceMaps(**named, shape=shape, heat_type=kind, place_type=kind)


def decode_case(
    title: str,
    maps: Sequence[CornerMaps],
    views: Sequence[Placement],
    parameters: DecodeParameters,
    *,
    half: bool,
) -> KernelCase:
    """Return a case of maps, one image for each of the views."""
    element = np.float16 if half else np.float32
    stacked = {name: np.stack([getattr(one, name) for one in maps]).astype(element) for name in OUTPUT_NAMES}
    images, classes, height, width = stacked["tl_heat"].shape
    shape = (images, classes, height, width)
    size = decoding.workspace_bytes(shape, parameters)
    room = CandidateMemory(BASE, images, parameters.candidates)
    described = b"".join(bytes(decoding.describe(view, STRIDE)) for view in views)
    memory: dict[str, NDArray[np.generic]] = {
        **stacked,
        "views": np.frombuffer(described, np.uint8).copy(),
        "candidates": np.full(room.nbytes, 0xCD, np.uint8),
        "workspace": np.full(size, 0xCD, np.uint8),
    }
    expected = [
        _reference(CornerMaps(*(stacked[name][index].astype(np.float32) for name in OUTPUT_NAMES)), view, parameters)
        for index, view in enumerate(views)
    ]

    def start(addresses: Mapping[str, int]) -> list[Launch]:
        device = _device_maps(addresses, shape, half=half)
        own = CandidateMemory(addresses["candidates"], images, parameters.candidates)
        return decoding.decode(device, parameters, addresses["views"], own, addresses["workspace"], size)

    def problem(after: Mapping[str, NDArray[np.generic]]) -> str | None:
        block = np.asarray(after["candidates"], np.uint8)
        for index, wanted in enumerate(expected):
            if block[-4 * images :].view(np.uint32)[index] > parameters.candidates:
                return "the number of candidates was not written"
            found = room.read(block, index)
            own = (found.boxes, found.scores, found.labels)
            if said := unmatched(own, (wanted.boxes, wanted.scores, wanted.labels), DECODE_TOLERANCE):
                return f"image {index}: {said}"
        return None

    return KernelCase("decode", title, memory, start, problem)


def _reference(maps: CornerMaps, view: Placement, parameters: DecodeParameters) -> Candidates:
    candidates = decode_in_numpy(maps, parameters)
    clipped, inside = boxes_in_frame(candidates.boxes, view, STRIDE)
    return replace(candidates, boxes=clipped)[inside]


def crowd(rng: Generator, classes: int, count: int) -> Candidates:
    """Return overlapping candidates, best first."""
    boxes, scores, labels = overlapping_boxes(rng, classes, count)
    order = np.argsort(-scores)
    top, bottom = rng.uniform(0.01, 1, (2, count)).astype(np.float32)
    return Candidates(boxes[order], scores[order], top, bottom, labels[order])


def nms_case(
    title: str,
    found: Sequence[Candidates],
    frames: int,
    classes: int,
    parameters: NmsParameters,
    *,
    capacity: int,
    merging: bool,
) -> KernelCase:
    """Return a case of the candidates of each view, those of a frame one after the other."""
    room = CandidateMemory(BASE, len(found), capacity)
    detections = suppressing.DetectionMemory(BASE, frames, parameters.max_detections)
    size = suppressing.workspace_bytes(room, frames, classes, parameters)
    memory: dict[str, NDArray[np.generic]] = {
        "candidates": _block(room, found),
        "detections": np.full(detections.nbytes, 0xCD, np.uint8),
        "workspace": np.full(size, 0xCD, np.uint8),
    }
    views = len(found) // frames
    expected = [
        suppressed(Candidates.joined(found[frame * views : (frame + 1) * views]), parameters, merging=merging)
        for frame in range(frames)
    ]

    def start(addresses: Mapping[str, int]) -> list[Launch]:
        own = CandidateMemory(addresses["candidates"], len(found), capacity)
        target = suppressing.DetectionMemory(addresses["detections"], frames, parameters.max_detections)
        return suppressing.soft_nms(own, classes, parameters, target, addresses["workspace"], size, merging=merging)

    def problem(after: Mapping[str, NDArray[np.generic]]) -> str | None:
        block = np.asarray(after["detections"], np.uint8)
        for frame, wanted in enumerate(expected):
            if block[frame * detections.frame_bytes :][:4].view(np.uint32)[0] > parameters.max_detections:
                return "the number of detections was not written"
            if said := unmatched(detections.read(block, frame), wanted, NMS_TOLERANCE):
                return f"frame {frame}: {said}"
        return None

    return KernelCase("soft_nms", title + (", merging" if merging else ""), memory, start, problem)


def suppressed(found: Candidates, parameters: NmsParameters, *, merging: bool) -> Found:
    """Return the reference's detections of one frame."""
    if merging:
        corners = np.stack([found.tl_scores, found.br_scores], axis=1)
        kept, scores, boxes = merging_soft_nms(found.boxes, found.scores, corners, found.labels, parameters)
        return boxes, scores, found.labels[kept]
    kept, scores = soft_nms_in_numpy(found.boxes, found.scores, found.labels, parameters)
    return found.boxes[kept], scores, found.labels[kept]


def _block(room: CandidateMemory, found: Sequence[Candidates]) -> NDArray[np.uint8]:
    """Return the memory of candidates as decode would leave it."""
    block = np.full(room.nbytes, 0xCD, np.uint8)
    for view, one in enumerate(found):
        arrays = room.arrays(view)
        contents = {
            "boxes": one.boxes,
            "scores": one.scores,
            "tl_scores": one.tl_scores,
            "br_scores": one.br_scores,
            "labels": one.labels.astype(np.int32),
            "counts": np.array([len(one)], np.int32),
        }
        for name, values in contents.items():
            data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            begin = ctypes.c_void_p(getattr(arrays, name)).value or 0
            block[begin - BASE : begin - BASE + len(data)] = data
    return block
