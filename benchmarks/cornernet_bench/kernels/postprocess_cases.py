"""Cases of decode and soft-NMS in one, as they follow an engine, for cases.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np

from cornernet_bench.kernels.decode_cases import (
    BASE,
    NMS_TOLERANCE,
    STRIDE,
    decode_case,
    random_maps,
    suppressed,
    unmatched,
)
from cornernet_bench.kernels.synthetic import CLASSES, INPUT, SIDE, crowded_maps, object_maps
from cornernet_runtime.bundle.spec import DecodeParameters, NmsParameters
from cornernet_runtime.kernels import soft_nms as suppressing
from cornernet_runtime.kernels.candidates import CandidateMemory
from cornernet_runtime.processing.geometry import fit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.random import Generator

    from cornernet_bench.kernels.case import KernelCase, Memory
    from cornernet_runtime.kernels.launch import Launch
    from cornernet_runtime.processing.geometry import Placement
    from cornernet_runtime.processing.maps import CornerMaps

TARGET_US = 60.0  # the design's, for 80x128x128


def random_postprocess(rng: Generator) -> KernelCase:
    """Return a case of random maps."""
    classes, height, width = (int(side) for side in rng.integers(1, [9, 40, 40]))
    size = (STRIDE * height - 1, STRIDE * width - 1)
    half = bool(rng.integers(2))
    title = f"{classes}x{height}x{width}, {'half' if half else 'float'}"
    return _case(title, random_maps(rng, classes, height, width), fit((300, 400), size), half=half)


def fixed_postprocess(_rng: Generator) -> Iterator[KernelCase]:
    """Yield nothing: decode and soft-NMS have such cases of their own."""
    yield from ()


def timed_postprocess(rng: Generator) -> Iterator[KernelCase]:
    """Yield maps of 80x128x128 in half: forty ideal objects, and 1000 candidates of one class, which is the worst."""
    view = fit((1024, 1024), (INPUT, INPUT))
    for content, maps in (
        ("forty ideal objects", object_maps(rng)),
        ("1000 candidates of one class", crowded_maps(rng)),
    ):
        case = _case(f"{CLASSES}x{SIDE}x{SIDE}, {content}, half, as one graph", maps, view, half=True)
        yield replace(case, moved_bytes=2 * CLASSES * SIDE * SIDE * 2, target_us=TARGET_US, graph=True)


def _case(title: str, maps: CornerMaps, view: Placement, *, half: bool) -> KernelCase:
    parameters, classes = NmsParameters(), maps.tl_heat.shape[0]
    decoded = decode_case(title, [maps], [view], DecodeParameters(), half=half)
    room = CandidateMemory(BASE, 1, DecodeParameters().candidates)
    detections = suppressing.DetectionMemory(BASE, 1, parameters.max_detections)
    size = suppressing.workspace_bytes(room, 1, classes, parameters)
    memory: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
        **decoded.memory,
        "detections": np.full(detections.nbytes, 0xCD, np.uint8),
        "second workspace": np.full(size, 0xCD, np.uint8),
    }

    def start(addresses: Mapping[str, int]) -> list[Launch]:
        launches = cast("list[Launch]", decoded.start(addresses))
        found = replace(room, address=addresses["candidates"])
        target = replace(detections, address=addresses["detections"])
        return launches + suppressing.soft_nms(found, classes, parameters, target, addresses["second workspace"], size)

    def problem(after: Memory) -> str | None:
        if said := decoded.problem(after):
            return said
        # Of the candidates that decode left there: where scores are nearly equal, their order decides what is lowered.
        wanted = suppressed(room.read(np.asarray(after["candidates"], np.uint8), 0), parameters, merging=False)
        block = np.asarray(after["detections"], np.uint8)
        if block[:4].view(np.uint32)[0] > parameters.max_detections:
            return "the number of detections was not written"
        return unmatched(detections.read(block, 0), wanted, NMS_TOLERANCE)

    return replace(decoded, kernel="postprocess", memory=memory, start=start, problem=problem)
