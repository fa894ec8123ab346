"""Candidates in the device's memory: what decode's kernels write and those of soft-NMS read."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cornernet_runtime.detections import Candidates
from cornernet_runtime.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_BEST = 1024  # of any list that a kernel sorts: a thread of a block for each

_COLUMNS = (  # in the order of ``Candidates``: name, element, elements of a candidate
    ("boxes", np.float32, 4),
    ("scores", np.float32, 1),
    ("tl_scores", np.float32, 1),
    ("br_scores", np.float32, 1),
    ("labels", np.int32, 1),
)


class CandidateArrays(ctypes.Structure):
    """``CandidateArrays`` of candidates.cuh."""

    _fields_ = (
        ("boxes", ctypes.c_void_p),
        ("scores", ctypes.c_void_p),
        ("tl_scores", ctypes.c_void_p),
        ("br_scores", ctypes.c_void_p),
        ("labels", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("capacity", ctypes.c_int),
    )


@dataclass(frozen=True, slots=True)
class CandidateMemory:
    """Room for the candidates of several views, one block: boxes, scores, corner scores, labels, then counts.

    Attributes:
        address: On the device, 16-byte aligned; ``nbytes`` from there on.
        views: Views, those of a frame one after the other.
        capacity: Candidates of a view at most, 1 to 1024.

    Raises:
        BackendError: No view, or another capacity.
    """

    address: int
    views: int
    capacity: int

    def __post_init__(self) -> None:
        if self.views < 1 or not 1 <= self.capacity <= MOST_BEST:
            raise BackendError(
                f"candidates on the GPU: expected a view or more and 1 to {MOST_BEST} candidates of each, "
                f"got {self.views} and {self.capacity}; lower decode.candidates"
            )
        check_alignment("candidates", self.address)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole block."""
        return self._counts + self.views * 4

    def arrays(self, first_view: int = 0) -> CandidateArrays:
        """Return where the arrays are, from a view on."""
        addresses = [
            self.address + self._start(index) + first_view * self.capacity * 4 * width
            for index, (_name, _type, width) in enumerate(_COLUMNS)
        ]
        return CandidateArrays(*addresses, self.address + self._counts + first_view * 4, self.capacity)

    def read(self, block: NDArray[np.uint8], view: int) -> Candidates:
        """Return the candidates of one view from a copy of the block, uint8 [nbytes]."""
        (count,) = block[self._counts + view * 4 :][:4].view(np.int32)
        columns = {}
        for index, (name, element, width) in enumerate(_COLUMNS):
            row = block[self._start(index) + view * self.capacity * 4 * width :][: count * 4 * width]
            columns[name] = row.view(element).reshape((count, width) if width > 1 else (count,))
        return Candidates(**{**columns, "labels": columns["labels"].astype(np.int64)})

    def _start(self, column: int) -> int:
        return sum(_rounded(self.views * self.capacity * 4 * width) for _name, _type, width in _COLUMNS[:column])

    @property
    def _counts(self) -> int:
        return self._start(len(_COLUMNS))


def check_alignment(name: str, address: int) -> None:
    """Raise BackendError unless an address is one that vectors of 16 bytes may lie at."""
    if address <= 0 or address % 16:
        raise BackendError(f"{name}: expected an address on the device, a multiple of 16, got {address:#x}")


def check_room(name: str, given: int, needed: int) -> None:
    """Raise BackendError unless memory that was handed in is as large as needed, bytes."""
    if given < needed:
        raise BackendError(f"{name}: expected at least {needed} bytes, got {given}; allocate what workspace_bytes says")


def threads_for(count: int, least: int = 32) -> int:
    """Return the threads of a block that sorts ``count`` keys: a power of two up to 1024, at least ``least``."""
    return min(MOST_BEST, max(least, 1 << (count - 1).bit_length()))


class Arena:
    """Hands out parts of a block of memory, each 16-byte aligned, and knows how many bytes it has handed out."""

    def __init__(self, address: int = 0) -> None:
        self._address = address
        self.nbytes = 0

    def take(self, nbytes: int) -> int:
        """Return the address of the next part."""
        start = self._address + self.nbytes
        self.nbytes += _rounded(nbytes)
        return start


def _rounded(nbytes: int) -> int:
    return -(-nbytes // 16) * 16
