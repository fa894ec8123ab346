"""Cases of decode and soft-NMS on paths that random shapes and the design's do not take, for cases.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cornernet_bench.kernels.decode_cases import STRIDE, crowd, decode_case, nms_case, random_maps
from cornernet_runtime.bundle.spec import DecodeParameters, NmsParameters
from cornernet_runtime.processing.geometry import fit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator

    from cornernet_bench.kernels.case import KernelCase
    from cornernet_runtime.processing.maps import CornerMaps

PEAKS = 60  # that stand out of a plateau, fewer than are kept


def fixed_decode(rng: Generator) -> Iterator[KernelCase]:
    """Yield decode of wide maps, of plateaus, and of as many corners as the kernels can keep."""
    # A row takes two warps or four; those over 1024 or 512 are wider than a block, one aligned and one not.
    for half, width in ((True, 300), (True, 1030), (True, 1032), (False, 300), (False, 518), (False, 520)):
        maps = random_maps(rng, 1, 20, width)
        for border in range(256 if half else 128, width, 256 if half else 128):  # of two warps: most peaks are there
            for heat in (maps.tl_heat, maps.br_heat):
                heat[:, :, border - 1 : border + 1] += 4
        yield _decode("wide", maps, DecodeParameters(), half=half)
    for half in (True, False):
        yield _decode("plateau", _plateau(rng), DecodeParameters(), half=half)
    yield _decode("1024 corners", random_maps(rng, 2, 70, 72), DecodeParameters(1024, 1024), half=True)


def fixed_soft_nms(rng: Generator) -> Iterator[KernelCase]:
    """Yield soft-NMS of five views, with more candidates than the smaller kernels take, and with few."""
    for each in (1000, 40):
        for merging in (False, True):
            found = [crowd(rng, 3, each) for _ in range(5)]
            title = f"5 views of {each}, 3 classes"
            yield nms_case(title, found, 1, 3, NmsParameters(), capacity=each, merging=merging)


def _decode(title: str, maps: CornerMaps, parameters: DecodeParameters, *, half: bool) -> KernelCase:
    classes, height, width = maps.tl_heat.shape
    size = (STRIDE * height - 1, STRIDE * width - 1)
    title = f"{title}, {classes}x{height}x{width}, {'half' if half else 'float'}"
    return decode_case(title, [maps], [fit(size, size)], parameters, half=half)


def _plateau(rng: Generator) -> CornerMaps:
    """Return 128x128 cells of one height, all of them peaks, but for some higher ones, the most at the end."""
    maps = random_maps(rng, 1, 128, 128)
    for heat in (maps.tl_heat, maps.br_heat):
        heat[:] = 0.5
        rows = 3 * np.sqrt(rng.integers(0, 42**2, PEAKS)).astype(int)  # never side by side
        heat[0, rows, 3 * rng.integers(0, 42, PEAKS)] = 1 + np.arange(PEAKS) / 64
    return maps
