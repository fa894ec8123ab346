"""Corner maps on the device to candidates, in three launches, as ``cornernet_runtime.processing.decode`` does.

Peaks, their order and the rules of pairing are exact; scores differ by the 2 ulp of ``exp`` at most, and with them the
order of pairs whose scores are as close. Boxes come back in pixels of the frame, computed in float64 as on the CPU.
Where a view lies in its frame is read from the device's memory, for a captured graph freezes parameters.
"""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cornernet_runtime.errors import BackendError, SizeError
from cornernet_runtime.kernels.candidates import (
    MOST_BEST,
    Arena,
    CandidateArrays,
    CandidateMemory,
    check_alignment,
    check_room,
    threads_for,
)
from cornernet_runtime.kernels.launch import Launch
from cornernet_runtime.processing.geometry import cells_to_input
from cornernet_runtime.processing.maps import OUTPUT_NAMES

if TYPE_CHECKING:
    from cornernet_runtime.bundle.spec import DecodeParameters
    from cornernet_runtime.processing.geometry import Placement

MapType = Literal["float32", "float16"]

PEAK_THREADS = 256
LARGEST_TILE = 128  # vectors of a row that a block takes side by side
LARGEST_MAP = 2**31 - 2**16  # cells of all classes: flat indices are int, and loops run a little past the end
LARGEST_GRID = 2**16 - 1
SPARE_KEYS = 32  # room of a plane's list beyond top_k, which saves it the last rounds of its selection
PAIR_SHARED_BYTES = 28 << 10  # dynamic shared memory of a block that pairs; 20 KiB more are static


class ViewPlacement(ctypes.Structure):
    """Where a view lies in its frame, as the kernel reads it; made by ``describe``."""

    _fields_ = (
        ("ratio_x", ctypes.c_double),
        ("ratio_y", ctypes.c_double),
        ("scale_x", ctypes.c_double),
        ("scale_y", ctypes.c_double),
        ("left", ctypes.c_double),
        ("top", ctypes.c_double),
        ("mirror_width", ctypes.c_double),
        ("extent_x", ctypes.c_double),
        ("extent_y", ctypes.c_double),
    )


class PeakSearch(ctypes.Structure):
    """The parameters of findPeaksFloat and findPeaksHalf."""

    _fields_ = (
        ("heat", ctypes.c_void_p * 2),
        ("keys", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("classes", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("top_k", ctypes.c_int),
        ("kept", ctypes.c_int),
        ("tile", ctypes.c_int),
        ("whole", ctypes.c_int),
    )


class CornerSelection(ctypes.Structure):
    """The parameters of selectCorners."""

    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("embed", ctypes.c_void_p * 2),
        ("offset", ctypes.c_void_p * 2),
        ("corners", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("classes", ctypes.c_int),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("top_k", ctypes.c_int),
        ("kept", ctypes.c_int),
        ("half", ctypes.c_int),
    )


class Pairing(ctypes.Structure):
    """The parameters of pairCorners."""

    _fields_ = (
        ("corners", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("views", ctypes.c_void_p),
        ("found", CandidateArrays),
        ("top_k", ctypes.c_int),
        ("listed", ctypes.c_int),
        ("embedding_distance", ctypes.c_float),
        ("reject_empty", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class DeviceMaps:
    """The six corner maps of a batch in the device's memory, contiguous.

    Attributes:
        tl_heat: Address of [N, C, h, w], logits.
        br_heat: Address of [N, C, h, w].
        tl_embed: Address of [N, 1, h, w].
        br_embed: Address of [N, 1, h, w].
        tl_offset: Address of [N, 2, h, w], x and y.
        br_offset: Address of [N, 2, h, w].
        shape: N, C, h and w.
        heat_type: Element of the heat maps; they are read fastest where they are 16-byte aligned and a row is a
            multiple of 16 bytes.
        place_type: Element of embeddings and offsets.

    Raises:
        SizeError: No image, class or cell; more cells than kernels can number; more images than a grid can have.
        BackendError: An address is none, or not a multiple of its element.
    """

    tl_heat: int
    br_heat: int
    tl_embed: int
    br_embed: int
    tl_offset: int
    br_offset: int
    shape: tuple[int, int, int, int]
    heat_type: MapType = "float32"
    place_type: MapType = "float32"

    def __post_init__(self) -> None:
        images, *sides = self.shape
        if min(self.shape) < 1:
            raise SizeError(f"corner maps: expected at least one image, class, row and column, got {list(self.shape)}")
        if math.prod(sides) > LARGEST_MAP:
            raise SizeError(f"corner maps: expected at most {LARGEST_MAP} cells of all classes, got {sides}")
        if 2 * images > LARGEST_GRID:
            raise SizeError(f"corner maps: expected at most {LARGEST_GRID // 2} images at once, got {images}")
        for name in OUTPUT_NAMES:
            element = np.dtype(self.heat_type if name.endswith("heat") else self.place_type).itemsize
            address = getattr(self, name)
            if address <= 0 or address % element:
                raise BackendError(f"{name}: expected an address on the device, a multiple of {element}, got {address}")


def workspace_bytes(shape: tuple[int, int, int, int], parameters: DecodeParameters) -> int:
    """Return how many bytes ``decode`` works in for maps of this shape.

    Raises:
        BackendError: As ``decode``.
    """
    return _Workspace.of(shape, parameters).nbytes


def decode(
    maps: DeviceMaps,
    parameters: DecodeParameters,
    views: int,
    found: CandidateMemory,
    workspace: int,
    workspace_size: int,
    first_view: int = 0,
) -> list[Launch]:
    """Return the launches that turn the maps of a batch into candidates of its views.

    Args:
        maps: Of a batch, an image for each view.
        parameters: As for ``cornernet_runtime.processing.decode.decode``, top_k and candidates up to 1024.
        views: Address of ``ViewPlacement`` [N], 8-byte aligned. Read when the kernels run.
        found: Where candidates go; its capacity is ``parameters.candidates``. Ties go as in the reference, and so
            does what lies outside the frame: it is left out.
        workspace: Address, 16-byte aligned; need not be cleared.
        workspace_size: Bytes there.
        first_view: The view in ``found`` that the first image is; the others follow.

    Raises:
        BackendError: top_k or candidates above 1024, too small a workspace, or room for other candidates.
    """
    images, classes, height, width = maps.shape
    work = _Workspace.of(maps.shape, parameters, workspace)
    check_alignment("workspace", workspace)
    check_room("workspace of decode", workspace_size, work.nbytes)
    if views <= 0 or views % 8:
        raise BackendError(f"views: expected an address on the device, a multiple of 8, got {views:#x}")
    if found.capacity != parameters.candidates or not 0 <= first_view <= found.views - images:
        raise BackendError(
            f"candidates: expected room for {parameters.candidates} of each of views {first_view} to "
            f"{first_view + images - 1}, got {found.capacity} of each of {found.views}"
        )
    half = maps.heat_type == "float16"
    vector = 8 if half else 4
    whole = width % vector == 0 and maps.tl_heat % 16 == 0 and maps.br_heat % 16 == 0
    tile = min(LARGEST_TILE, 1 << (-(-width // vector) - 1).bit_length())
    sides = (classes, height, width, work.top_k)
    search = PeakSearch((maps.tl_heat, maps.br_heat), work.keys, work.counts, *sides, work.kept, tile, whole)
    selection = CornerSelection(
        work.keys,
        work.counts,
        (maps.tl_embed, maps.br_embed),
        (maps.tl_offset, maps.br_offset),
        work.corners,
        work.labels,
        *sides,
        work.kept,
        maps.place_type == "float16",
    )
    listed = min(work.top_k**2, (PAIR_SHARED_BYTES - work.top_k * 20) // 8)
    pairing = Pairing(
        work.corners,
        work.labels,
        views,
        found.arrays(first_view),
        work.top_k,
        listed,
        parameters.embedding_distance,
        parameters.reject_empty,
    )
    # More threads than keys to sort where the lists to choose from are long.
    selecting = threads_for(max(work.top_k, classes * work.kept // 8))
    pairing_threads = threads_for(max(found.capacity, work.top_k), 32)
    kernel = "findPeaksHalf" if half else "findPeaksFloat"
    return [
        Launch("decode", kernel, (classes, 2 * images, 1), PEAK_THREADS, 0, search),
        Launch("decode", "selectCorners", (2 * images, 1, 1), selecting, 0, selection),
        Launch("decode", "pairCorners", (images, 1, 1), pairing_threads, listed * 8 + work.top_k * 20, pairing),
    ]


def describe(placement: Placement, stride: int) -> ViewPlacement:
    """Return what the kernel has to know of the view that a placement is of.

    Args:
        placement: Of the view.
        stride: Input pixels a cell of the corner maps.
    """
    ratios = cells_to_input(np.ones((1, 4)), placement.input_size, stride)[0]
    scale_y, scale_x = placement.scale
    extent_y, extent_x = placement.extent
    mirror_width = placement.input_size[1] if placement.mirrored else -1
    return ViewPlacement(
        ratios[0], ratios[1], scale_x, scale_y, placement.left, placement.top, mirror_width, extent_x, extent_y
    )


@dataclass(frozen=True, slots=True)
class _Workspace:
    """Where the kernels leave what the next one reads, and how much of it there is."""

    keys: int
    corners: int
    counts: int
    labels: int
    nbytes: int
    top_k: int
    kept: int

    @staticmethod
    def of(shape: tuple[int, int, int, int], parameters: DecodeParameters, address: int = 0) -> _Workspace:
        images, classes, height, width = shape
        for name in ("top_k", "candidates"):
            if getattr(parameters, name) > MOST_BEST:
                raise BackendError(
                    f"decode.{name}: the GPU's kernels keep 1 to {MOST_BEST}, got {getattr(parameters, name)}"
                )
        top_k = min(parameters.top_k, classes * height * width)
        kept = min(top_k + SPARE_KEYS, height * width)
        arena = Arena(address)
        return _Workspace(
            keys=arena.take(images * 2 * classes * kept * 8),
            corners=arena.take(images * 2 * top_k * 16),
            counts=arena.take(images * 2 * classes * 4),
            labels=arena.take(images * 2 * top_k * 4),
            nbytes=arena.nbytes,
            top_k=top_k,
            kept=kept,
        )
