"""One use of a CUDA kernel, as data: memory before, launches, and what must be there after."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_bench.kernels.pooling_library import PoolingCall
    from cornernet_runtime.kernels.launch import Launch

    Memory = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class KernelCase:
    """One use of a kernel.

    Attributes:
        kernel: Its stem.
        title: What is special about it, for people.
        memory: What lies on the device before, by name; outputs are poisoned.
        start: From the addresses of these to what is to be run.
        problem: From what lies there after to what is wrong with it; None if nothing is.
        moved_bytes: That must be read or written at least; 0 in a case that is not timed.
        target_us: The design's figure for it, microseconds; None if it has none.
        graph: Whether it is timed as one replay of a captured graph, instead of launch by launch.
        pointers: Where addresses stand in the memory: in which array, bytes from its start, of which array.
    """

    kernel: str
    title: str
    memory: dict[str, NDArray[np.generic]]
    start: Callable[[Mapping[str, int]], list[Launch] | PoolingCall]
    problem: Callable[[Memory], str | None]
    moved_bytes: int = 0
    target_us: float | None = None
    graph: bool = False
    pointers: tuple[tuple[str, int, str], ...] = field(default=())
