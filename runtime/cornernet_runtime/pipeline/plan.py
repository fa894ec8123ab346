"""What one run of the GPU pipeline looks at, and in which order: the key of its captured graph."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count, groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cornernet_runtime.bundle.spec import Size


@dataclass(frozen=True, slots=True)
class Batch:
    """Views of one input size that the network sees together.

    Attributes:
        size: Height and width of the input, pixels.
        first: How many views the batches before it hold.
        views: Their numbers among the views of all frames, which stand frame by frame.
    """

    size: Size
    first: int
    views: tuple[int, ...]

    def runs(self) -> list[tuple[int, int, int]]:
        """Return where numbers follow on one another: first place in the batch, first number, and how many."""
        places = count()
        groups = (list(group) for _, group in groupby(self.views, lambda view: view - next(places)))
        starts, found = 0, []
        for group in groups:
            found.append((starts, group[0], len(group)))
            starts += len(group)
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """Frames whose views have the same input sizes.

    Attributes:
        sizes: Height and width of the input of each view of a frame, pixels.
        frames: How many frames.
    """

    sizes: tuple[Size, ...]
    frames: int

    @property
    def views(self) -> int:
        """How many views all frames have."""
        return len(self.sizes) * self.frames

    def batches(self, largest: int) -> list[Batch]:
        """Return what the network sees, at most so many views at once, of one size after the other."""
        found, before = [], 0
        for size in dict.fromkeys(self.sizes):
            own = [view for view in range(self.views) if self.sizes[view % len(self.sizes)] == size]
            for start in range(0, len(own), largest):
                views = tuple(own[start : start + largest])
                found.append(Batch(size, before, views))
                before += len(views)
        return found
