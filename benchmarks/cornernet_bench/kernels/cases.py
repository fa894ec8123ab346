"""What the CUDA kernels are checked on and timed with.

A case is data, so that a GPU and the tests on the CPU run the very same one. A kernel joins by its functions in
``CASES`` and ``DESIGNS``; postprocess is decode and soft-NMS in one.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cornernet_bench.kernels import decode_cases
from cornernet_bench.kernels import fixed_cases as fixed
from cornernet_bench.kernels import postprocess_cases as postprocess
from cornernet_bench.kernels.case import KernelCase
from cornernet_bench.kernels.pooling_library import BOTTOM_RIGHT, FORMATS, TOP_LEFT, PoolingCall
from cornernet_runtime.bundle.spec import ModelSpec, Normalisation
from cornernet_runtime.kernels.preprocess import DeviceFrame, View, describe, level_table, preprocess
from cornernet_runtime.processing.geometry import fit, place
from cornernet_runtime.processing.preprocess import Preprocessor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.random import Generator
    from numpy.typing import NDArray

    from cornernet_bench.kernels.case import Memory
    from cornernet_runtime.kernels.launch import Launch
    from cornernet_runtime.processing.geometry import Placement


def random_cases(kernel: str, rng: Generator, count: int) -> Iterator[KernelCase]:
    """Yield cases of random shapes, to be checked."""
    for _ in range(count):
        yield CASES[kernel].random(rng)


def fixed_cases(kernel: str, rng: Generator) -> Iterator[KernelCase]:
    """Yield the cases of paths that random shapes and the design's do not take, to be checked."""
    yield from CASES[kernel].fixed(rng)


def timed_cases(kernel: str, rng: Generator) -> Iterator[KernelCase]:
    """Yield the cases of the design's figures, to be checked and timed."""
    yield from CASES[kernel].timed(rng)


def design_launches(source: str) -> list[Launch]:
    """Return a launch of each kernel of a source, as at the design point; its pointers lead nowhere."""
    return list({launch.kernel: launch for launch in DESIGNS[source]()}.values())


def differing(found: NDArray[np.generic], expected: NDArray[np.generic]) -> str | None:
    """Return how many values differ, and the first that does; a NaN equals a NaN."""
    if found.shape != expected.shape:
        return f"shape {found.shape} instead of {expected.shape}"
    wrong = np.argwhere(~((found == expected) | ((found != found) & (expected != expected))))  # noqa: PLR0124 - NaN
    if not len(wrong):
        return None
    place = tuple(int(index) for index in wrong[0])
    return f"{len(wrong)} of {found.size} values differ, first at {list(place)}: {found[place]}, not {expected[place]}"


# Corner pooling.


def _pooling_case(rng: Generator, corner: int, layout: str, shape: tuple[int, int, int, int]) -> KernelCase:
    element = np.float32 if layout == "float" else np.float16
    last = layout == "half, channels last"
    maps = [rng.standard_normal(shape, np.float32).astype(element) for _ in range(2)]
    back = slice(None, None, -1 if corner == TOP_LEFT else 1)
    down = np.maximum.accumulate(maps[0][:, :, back], axis=2)[:, :, back]
    along = np.maximum.accumulate(maps[1][..., back], axis=3)[..., back]
    expected = down + along

    def packed(values: NDArray[np.generic]) -> NDArray[np.generic]:
        if not last:
            return np.ascontiguousarray(values)
        padding = [(0, 0), (0, 0), (0, 0), (0, -shape[1] % 8)]
        return np.ascontiguousarray(np.pad(values.transpose(0, 2, 3, 1), padding))

    def problem(memory: Memory) -> str | None:
        return differing(memory["output"], packed(expected))

    def start(addresses: Mapping[str, int]) -> PoolingCall:
        return PoolingCall(
            corner, FORMATS.index(layout), addresses["vertical"], addresses["horizontal"], addresses["output"], shape
        )

    vertical, horizontal = map(packed, maps)
    poison = np.full_like(vertical, np.nan)
    title = f"{'x'.join(map(str, shape))}, {layout}, {'top-left' if corner == TOP_LEFT else 'bottom-right'}"
    memory = {"vertical": vertical, "horizontal": horizontal, "output": poison}
    return KernelCase("corner_pool", title, memory, start, problem, 3 * vertical.nbytes)


def _random_pooling(rng: Generator) -> KernelCase:
    batch, channels, height, width = (int(side) for side in rng.integers(1, [4, 20, 200, 200]))
    corner, layout = int(rng.integers(2)), FORMATS[rng.integers(len(FORMATS))]
    return replace(_pooling_case(rng, corner, layout, (batch, channels, height, width)), moved_bytes=0)


# What the launcher treats in a way of its own, by layout.
_POOLING_SHAPES: dict[str, tuple[tuple[int, int, int, int], ...]] = {
    "float": (
        (1, 2, 9, 140),  # aligned rows of two warps
        (1, 2, 9, 141),
        (1, 1, 5, 1200),  # rows of several tiles, aligned
        (1, 1, 5, 601),
        (1, 2, 17, 10000),  # maxima in the workspace
    ),
    "half": (
        (1, 2, 9, 264),
        (1, 2, 9, 263),
        (1, 1, 5, 1040),
        (1, 1, 5, 1030),
        (1, 1, 17, 20000),
        (1, 65600, 2, 3),  # more planes than blocks of a grid
    ),
    "half, channels last": (
        (1, 8, 70, 40),  # several bands of a plane
        (1, 9, 20, 130),
        (1, 8, 18, 2500),
        (65600, 1, 1, 1),
    ),
}


def _fixed_pooling(rng: Generator) -> Iterator[KernelCase]:
    for layout, shapes in _POOLING_SHAPES.items():
        for shape in shapes:
            for corner in (TOP_LEFT, BOTTOM_RIGHT):
                yield replace(_pooling_case(rng, corner, layout, shape), moved_bytes=0)


def _timed_pooling(rng: Generator) -> Iterator[KernelCase]:
    for layout in FORMATS:
        yield _pooling_case(rng, TOP_LEFT, layout, (1, 128, 128, 128))
    yield _pooling_case(rng, BOTTOM_RIGHT, "half", (1, 128, 128, 128))
    yield _pooling_case(rng, TOP_LEFT, "half", (8, 128, 128, 128))


# Frames to input.

_SPEC = ModelSpec("any", ("thing",), 4, 16, (63, 95), (511, 511), dynamic=True)


def _preprocess_case(
    frames: list[NDArray[np.uint8]], views: list[Placement], *, half: bool, gap: int = 0, title: str = ""
) -> KernelCase:
    normalisation = Normalisation(pad=(103.5, 116.3, 123.7))
    shape = (len(views), 3, *views[0].input_size)
    expected = np.empty(shape, np.float32)
    memory: dict[str, NDArray[np.generic]] = {"table": level_table(normalisation)}
    described = []
    for index, (frame, view) in enumerate(zip(frames, views, strict=True)):
        Preprocessor(normalisation)(frame, view, expected[index])
        height, width = frame.shape[:2]
        rows = np.zeros((height, 3 * width + gap), np.uint8)
        rows[:, : 3 * width] = frame.reshape(height, -1)
        memory[f"frame {index}"] = rows
        described.append(bytes(describe(DeviceFrame(1, (height, width), 3 * width + gap), view, normalisation)))
    memory["views"] = np.frombuffer(b"".join(described), np.uint8).copy()
    memory["input"] = np.full(shape, np.nan, np.float16 if half else np.float32)

    def start(addresses: Mapping[str, int]) -> list[Launch]:
        return preprocess(addresses["views"], addresses["table"], addresses["input"], shape, half=half)

    def problem(after: Memory) -> str | None:
        return differing(after["input"], expected.astype(after["input"].dtype))

    seen = (12 * view.visible[0] * view.visible[1] for view in views)
    read = sum(min(frame.nbytes, most) for frame, most in zip(frames, seen, strict=True))
    pointers = tuple((("views", index * ctypes.sizeof(View), f"frame {index}")) for index in range(len(views)))
    moved = read + memory["input"].nbytes
    return KernelCase("preprocess", title, memory, start, problem, moved, pointers=pointers)


def _frame(rng: Generator, height: int, width: int) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def _random_preprocess(rng: Generator) -> KernelCase:
    sizes = [(int(height), int(width)) for height, width in rng.integers(1, 300, (int(rng.integers(1, 4)), 2))]
    spec = replace(_SPEC, geometry="native") if len(sizes) == 1 and rng.random() < 0.5 else _SPEC
    views = [place(size, spec, flip=True)[rng.integers(2)] for size in sizes]
    frames = [_frame(rng, *size) for size in sizes]
    half, gap = bool(rng.integers(2)), int(rng.integers(0, 40))
    title = " ".join("x".join(map(str, size)) for size in sizes) + (", half" if half else ", float")
    return replace(_preprocess_case(frames, views, half=half, gap=gap, title=title), moved_bytes=0)


def _fixed_preprocess(rng: Generator) -> Iterator[KernelCase]:
    view = fit((45, 71), (63, 95))
    frames = [_frame(rng, 45, 71)] * 2
    for half in (False, True):
        title = f"45x71 and its mirror, rows apart, {'half' if half else 'float'}"
        case = _preprocess_case(frames, [view, replace(view, mirrored=True)], half=half, gap=7, title=title)
        yield replace(case, moved_bytes=0)


def _timed_preprocess(rng: Generator) -> Iterator[KernelCase]:
    frame = _frame(rng, 1080, 1920)
    view = fit((1080, 1920), (511, 511))
    for half in (True, False):
        title = f"1080x1920 to 511x511, {'half' if half else 'float'}"
        yield _preprocess_case([frame], [view], half=half, title=title)
    mirrored = [view, replace(view, mirrored=True)]
    yield _preprocess_case([frame, frame], mirrored, half=True, title="1080x1920 to 511x511 and its mirror, half")
    frames = [_frame(rng, 1080, 1920) for _ in range(8)]
    yield _preprocess_case(frames, [view] * 8, half=True, title="8 of 1080x1920 to 511x511, half")


def _design_preprocess() -> list[Launch]:
    return [launch for half in (False, True) for launch in preprocess(8, 8, 8, (1, 3, 511, 511), half=half)]


class Cases(NamedTuple):
    """Where the cases of a kernel come from: a random one, those of special paths, those of the design's figures."""

    random: Callable[[Generator], KernelCase]
    fixed: Callable[[Generator], Iterator[KernelCase]]
    timed: Callable[[Generator], Iterator[KernelCase]]


CASES: dict[str, Cases] = {
    "corner_pool": Cases(_random_pooling, _fixed_pooling, _timed_pooling),
    "preprocess": Cases(_random_preprocess, _fixed_preprocess, _timed_preprocess),
    "decode": Cases(decode_cases.random_decode, fixed.fixed_decode, decode_cases.timed_decode),
    "soft_nms": Cases(decode_cases.random_soft_nms, fixed.fixed_soft_nms, decode_cases.timed_soft_nms),
    "postprocess": Cases(postprocess.random_postprocess, postprocess.fixed_postprocess, postprocess.timed_postprocess),
}
DESIGNS: dict[str, Callable[[], list[Launch]]] = {
    "preprocess": _design_preprocess,
    "decode": decode_cases.design_decode,
    "soft_nms": decode_cases.design_soft_nms,
}
