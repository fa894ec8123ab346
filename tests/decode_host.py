"""Run the kernels of decode on the CPU, and what they must give, from plain array code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import kernel_host
import numpy as np

from cornernet_runtime.geometry import cells_to_input, clip_to_frame
from cornernet_runtime.kernels import decode as kernels
from cornernet_runtime.kernels.candidates import CandidateMemory
from cornernet_runtime.maps import OUTPUT_NAMES, CornerMaps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cornernet_runtime.detections import Candidates
    from cornernet_runtime.geometry import Placement
    from cornernet_runtime.spec import DecodeParameters

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
    arrays = [np.ascontiguousarray(getattr(maps, name)) for name in OUTPUT_NAMES]
    types = {"heat_type": arrays[0].dtype.name, "place_type": arrays[2].dtype.name}
    device = kernels.DeviceMaps(*(array.ctypes.data for array in arrays), shape=arrays[0].shape, **types)
    room = kernels.workspace_bytes(device.shape, parameters)
    workspace = np.full(room, POISON, np.uint8)
    images = len(arrays[0])
    # One view too many on either side, which must stay as it is.
    size = CandidateMemory(16, images + 2, parameters.candidates).nbytes
    block = np.full(size, POISON, np.uint8)
    found = CandidateMemory(block.ctypes.data, images + 2, parameters.candidates)
    views = np.frombuffer(b"".join(bytes(kernels.describe(one, stride)) for one in placements), np.uint8).copy()
    launches = kernels.decode(device, parameters, views.ctypes.data, found, workspace.ctypes.data, room, first_view=1)
    moved = kernel_host.run(program, launches, [*arrays, views, workspace, block], seed)
    untouched = found.arrays()
    for view in (0, images + 1):
        start = untouched.boxes - found.address + view * found.capacity * 16
        assert (block[start:][: found.capacity * 16] == POISON).all()
    layout = kernels._Workspace.of(device.shape, parameters, workspace.ctypes.data)
    return Decoded(
        [found.read(block, image + 1) for image in range(images)],
        [tuple(_corners(workspace, layout, 2 * image + kind) for kind in (0, 1)) for image in range(images)],
        moved,
    )


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
) -> list[tuple]:
    """Return rows (box, score, tl score, br score, label) of all pairs, given the corners, best first, in the frame."""
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
    return [tuple(column[inside] for column in columns)][0]
