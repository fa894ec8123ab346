"""Run the kernels of decode on the CPU, and what they must give, from plain array code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from host import kernel_host

from cornernet_runtime.kernels import decode as kernels
from cornernet_runtime.kernels.candidates import CandidateMemory
from cornernet_runtime.processing.geometry import cells_to_input, clip_to_frame
from cornernet_runtime.processing.maps import OUTPUT_NAMES, CornerMaps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cornernet_runtime.bundle.spec import DecodeParameters
    from cornernet_runtime.detections import Candidates
    from cornernet_runtime.processing.geometry import Placement

POISON = 0xCD  # fills memory that nobody has written


class Corners(NamedTuple):
    """The best corners of one kind, best first, padded to top_k: label -1 where there is none."""

    x: np.ndarray
    y: np.ndarray
    embedding: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class Decoded(NamedTuple):
    """What the kernels left: candidates of each view, and the corners of each view and kind."""

    candidates: list[Candidates]
    corners: list[tuple[Corners, Corners]]
    moved: list[kernel_host.Moved]  # of tl_heat, br_heat, ...


def decode(
    program: Path,
    maps: CornerMaps,
    parameters: DecodeParameters,
    placements: Sequence[Placement],
    stride: int = 4,
    seed: int = 1,
) -> Decoded:
    """Run the kernels on the maps of a batch, [N, ...]."""
    images = len(maps)
    arrays, launches, found, layout = _prepare(maps, parameters, placements, stride, images + 2, first_view=1)
    *_, workspace, block = arrays
    moved = kernel_host.run(program, launches, arrays, seed)
    # One view too many on either side, which must stay as it is.
    for view in (0, images + 1):
        start = found.arrays(view).boxes - found.address
        assert (block[start:][: found.capacity * 16] == POISON).all()
    return Decoded(
        [found.read(block, image + 1) for image in range(images)],
        [tuple(_corners(workspace, layout, 2 * image + kind) for kind in (0, 1)) for image in range(images)],
        moved,
    )


def decode_block(
    program: Path, maps: CornerMaps, parameters: DecodeParameters, placements: Sequence[Placement], stride: int
) -> tuple[np.ndarray, CandidateMemory]:
    """Run the kernels on the maps of a batch; return the block of candidates for the next ones, and its layout."""
    arrays, launches, found, _ = _prepare(maps, parameters, placements, stride, len(maps), first_view=0)
    kernel_host.run(program, launches, arrays)
    return arrays[-1], found


def _prepare(maps, parameters, placements, stride, rooms, first_view):
    arrays = [np.ascontiguousarray(getattr(maps, name)) for name in OUTPUT_NAMES]
    types = {"heat_type": arrays[0].dtype.name, "place_type": arrays[2].dtype.name}
    device = kernels.DeviceMaps(*(array.ctypes.data for array in arrays), shape=arrays[0].shape, **types)
    room = kernels.workspace_bytes(device.shape, parameters)
    workspace = np.full(room, POISON, np.uint8)
    block = np.full(CandidateMemory(16, rooms, parameters.candidates).nbytes, POISON, np.uint8)
    found = CandidateMemory(block.ctypes.data, rooms, parameters.candidates)
    views = np.frombuffer(b"".join(bytes(kernels.describe(one, stride)) for one in placements), np.uint8).copy()
    launches = kernels.decode(
        device, parameters, views.ctypes.data, found, workspace.ctypes.data, room, first_view=first_view
    )
    layout = kernels._Workspace.of(device.shape, parameters, workspace.ctypes.data)
    return [*arrays, views, workspace, block], launches, found, layout


def _corners(workspace, layout, number):
    start = workspace.ctypes.data
    rows = workspace[layout.corners - start + number * layout.top_k * 16 :][: layout.top_k * 16]
    labels = workspace[layout.labels - start + number * layout.top_k * 4 :][: layout.top_k * 4]
    return Corners(*rows.view(np.float32).reshape(-1, 4).T, labels.view(np.int32))


def peaks_of(heat: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return flat indices and values of the best peaks of [C, h, w]: all nine shifts compared, all peaks sorted."""
    heat = heat.astype(np.float32)
    _, height, width = heat.shape
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
    highest = heat
    for dy in range(3):
        for dx in range(3):
            highest = np.fmax(highest, padded[:, dy : dy + height, dx : dx + width])
    cells = np.flatnonzero(heat >= highest)
    values = heat.ravel()[cells]
    order = np.argsort(-values, kind="stable")[:count]
    return cells[order], values[order]


def expected_pairs(
    tl: Corners, br: Corners, parameters: DecodeParameters, placement: Placement, stride: int = 4
) -> tuple[np.ndarray, ...]:
    """Return boxes, scores, tl scores, br scores and labels of the pairs that given corners make, in the frame."""
    paired = (tl.labels[:, None] == br.labels) & (tl.labels[:, None] >= 0)
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(tl.embedding[:, None] - br.embedding)
    paired &= distance <= np.float32(parameters.embedding_distance)
    for first, second in ((tl.x, br.x), (tl.y, br.y)):
        paired &= first[:, None] < second if parameters.reject_empty else first[:, None] <= second
    i, j = np.nonzero(paired)
    scores = (tl.scores[i] + br.scores[j]) / np.float32(2)
    order = np.lexsort((j, i, -scores))[: parameters.candidates]
    i, j, scores = i[order], j[order], scores[order]
    boxes = np.stack([tl.x[i], tl.y[i], br.x[j], br.y[j]], axis=1)
    boxes = placement.to_frame(cells_to_input(boxes, placement.input_size, stride))
    clipped, inside = clip_to_frame(boxes, placement.extent)
    columns = (clipped, scores, tl.scores[i], br.scores[j], tl.labels[i])
    return tuple(column[inside] for column in columns)
