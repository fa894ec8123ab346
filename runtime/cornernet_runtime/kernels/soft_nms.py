"""Candidates on the device to detections, the two launches that compute what ``cornernet_runtime.processing.nms`` does.

Overlaps are exact. A factor of the gaussian differs by the 2 ulp of ``exp`` at most, and the score of a box that was
lowered n times by about 2 n ulp; two boxes may change places only where their scores are as close. Merged boxes are
means in float64 with weights in float32: within 1e-3 pixels of the reference at the exponent of 10, 1e-2 at 1, and
never outside the boxes merged.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.errors import BackendError
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

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cornernet_runtime.bundle.spec import NmsParameters

SMALL_CLASS = 256 * 4  # candidates of a frame that the smaller kernels take: threads, and what one holds
LARGE_CLASS = 512 * 20
LARGEST_GRID = 2**16 - 1
DECAYS = ("gaussian", "linear", "hard")  # in the order of the kernels' enumeration

# What one kernel leaves and the other reads, the first fields of both structures.
_PICKS = (
    ("found", CandidateArrays),
    ("picks", ctypes.c_void_p),
    ("counts", ctypes.c_void_p),
    ("merged", ctypes.c_void_p),
    ("views", ctypes.c_int),
    ("classes", ctypes.c_int),
    ("kept", ctypes.c_int),
)


class ClassSuppression(ctypes.Structure):
    """The parameters of suppressClass and its three relatives."""

    _fields_ = (
        *_PICKS,
        ("decay", ctypes.c_int),
        ("gaussian_factor", ctypes.c_float),
        ("iou_threshold", ctypes.c_float),
        ("score_floor", ctypes.c_float),
        ("pixel_extent", ctypes.c_float),
        ("merge_exponent", ctypes.c_float),
    )


class FinalCut(ctypes.Structure):
    """The parameters of cutDetections."""

    _fields_ = (
        *_PICKS,
        ("detections", ctypes.c_void_p),
        ("most", ctypes.c_int),
        ("frame_bytes", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class DetectionMemory:
    """Room for the detections of several frames, one block, so that one copy brings them back.

    A frame has its count (int32, then 12 bytes of 0), boxes float32 [most, 4], scores float32 [most] and labels int32
    [most], 16-byte aligned; what lies behind the count is 0.

    Attributes:
        address: On the device, 16-byte aligned; ``nbytes`` from there on.
        frames: Frames, one after the other.
        most: Detections of a frame at most, 1 to 1024.

    Raises:
        BackendError: No frame or too many, or another number of detections.
    """

    address: int
    frames: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.frames <= LARGEST_GRID or not 1 <= self.most <= MOST_BEST:
            raise BackendError(
                f"detections on the GPU: expected 1 to {LARGEST_GRID} frames and 1 to {MOST_BEST} detections of each, "
                f"got {self.frames} and {self.most}; lower nms.max_detections"
            )
        check_alignment("detections", self.address)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return 16 + -(-self.most * 24 // 16) * 16

    @property
    def nbytes(self) -> int:
        """Bytes of the whole block."""
        return self.frames * self.frame_bytes

    def read(
        self, block: NDArray[np.uint8], frame: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """Return boxes [N, 4], scores [N] and labels [N] of a frame from a copy of the block, uint8 [nbytes]."""
        own = block[frame * self.frame_bytes :][: self.frame_bytes]
        (count,) = own[:4].view(np.int32)
        boxes = own[16:][: count * 16].view(np.float32).reshape(count, 4)
        scores = own[16 + self.most * 16 :][: count * 4].view(np.float32)
        labels = own[16 + self.most * 20 :][: count * 4].view(np.int32)
        return boxes, scores, labels.astype(np.int64)


def workspace_bytes(found: CandidateMemory, frames: int, classes: int, parameters: NmsParameters) -> int:
    """Return how many bytes ``soft_nms`` works in, merging or not.

    Raises:
        BackendError: As ``soft_nms``.
    """
    return _Workspace.of(found, frames, classes, parameters).nbytes


def soft_nms(
    found: CandidateMemory,
    classes: int,
    parameters: NmsParameters,
    detections: DetectionMemory,
    workspace: int,
    workspace_size: int,
    *,
    merging: bool = False,
) -> list[Launch]:
    """Return the launches that turn the candidates of frames into their detections.

    Args:
        found: Of all views; each frame has the same number, one after the other, and their candidates count as joined
            in this order. Ties go to the earlier one.
        classes: Of the model; candidates of other labels are ignored.
        parameters: As for ``cornernet_runtime.processing.nms``.
        detections: Where they go; room for ``parameters.max_detections`` of each frame.
        workspace: Address, 16-byte aligned; need not be cleared.
        workspace_size: Bytes there.
        merging: Whether to move boxes as ``merging_soft_nms`` does.

    Raises:
        BackendError: Views that frames cannot share, more than 10240 candidates of a frame, no class or too many, more
            than 1024 detections, too small a workspace, or room for other detections.
    """
    work = _Workspace.of(found, detections.frames, classes, parameters, workspace)
    check_alignment("workspace", workspace)
    check_room("workspace of soft-NMS", workspace_size, work.nbytes)
    if detections.most != parameters.max_detections:
        raise BackendError(
            f"detections: expected room for {parameters.max_detections} of each frame, got {detections.most}"
        )
    views = found.views // detections.frames
    large = views * found.capacity > SMALL_CLASS
    merged = work.merged if merging else None
    shared = (found.arrays(), work.picks, work.counts, merged, views, classes, work.kept)
    suppression = ClassSuppression(
        *shared,
        DECAYS.index(parameters.method),
        -1 / parameters.sigma,
        parameters.iou_threshold,
        parameters.score_floor,
        parameters.pixel_extent,
        parameters.merge_exponent,
    )
    cut = FinalCut(*shared, detections.address, detections.most, detections.frame_bytes)
    kernel = "suppress" + "Large" * large + "Class" + "Merging" * merging
    cutting = threads_for(max(detections.most, views * found.capacity // 8))
    return [
        Launch("soft_nms", kernel, (classes, detections.frames, 1), 512 if large else 256, 0, suppression),
        Launch("soft_nms", "cutDetections", (detections.frames, 1, 1), cutting, 0, cut),
    ]


@dataclass(frozen=True, slots=True)
class _Workspace:
    """Where the first kernel leaves what the second reads."""

    picks: int
    counts: int
    merged: int
    nbytes: int
    kept: int

    @staticmethod
    def of(
        found: CandidateMemory, frames: int, classes: int, parameters: NmsParameters, address: int = 0
    ) -> _Workspace:
        if frames < 1 or found.views % frames:
            raise BackendError(f"candidates: expected as many views of each of {frames} frames, got {found.views}")
        joined = found.views // frames * found.capacity
        if joined > LARGE_CLASS:
            raise BackendError(
                f"candidates: expected at most {LARGE_CLASS} of a frame, got {joined}; use fewer scales or lower "
                "decode.candidates"
            )
        if not 1 <= classes < 2**31:
            raise BackendError(f"classes: expected at least one, got {classes}")
        kept = min(parameters.max_detections, joined)
        arena = Arena(address)
        return _Workspace(
            picks=arena.take(frames * classes * kept * 8),
            counts=arena.take(frames * classes * 4),
            merged=arena.take(frames * joined * 16),
            nbytes=arena.nbytes,
            kept=kept,
        )
