"""The shape of a CornerNet as one frozen record, and the shapes that have names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cornernet_runtime.bundle.records import RecordError
from cornernet_runtime.errors import ModelError

Unit = Literal["residual", "fire"]
Upsample = Literal["nearest", "deconvolution"]


@dataclass(frozen=True, slots=True)
class CornerNetConfig:
    """Any CornerNet without attention.

    Attributes:
        name: Architecture, for people and for ``--arch``.
        classes: Heat channels per corner.
        stacks: Hourglasses in a row; each has corner heads in training, only the last one's are run at inference.
        stem: Widths of the 7x7 stride-2 convolution and of the residuals of stride 2 behind it.
        dims: Width at each depth of the hourglass, outermost first; one more than its depth.
        modules: Units at each depth, as many as ``dims``.
        unit: Building block of the hourglass.
        upsample: From one depth to the one above.
        branch_kernel: Side of the first convolution of each prediction branch.
        pool_width: Channels of each map that corner pooling takes.
    """

    name: str
    classes: int
    stacks: int
    stem: tuple[int, ...]
    dims: tuple[int, ...]
    modules: tuple[int, ...]
    unit: Unit = "residual"
    upsample: Upsample = "nearest"
    branch_kernel: int = 3
    pool_width: int = 128

    def __post_init__(self) -> None:
        counts = (self.classes, self.stacks, *self.stem, *self.dims, *self.modules, self.pool_width)
        if min(counts) < 1 or len(self.stem) < 2 or len(self.dims) < 2 or len(self.dims) != len(self.modules):
            raise RecordError(f"config: expected positive counts and as many modules as dims, got {self}")
        if self.stem[-1] != self.dims[0]:
            raise RecordError(f"config: the stem ends in {self.stem[-1]} channels, dims begin with {self.dims[0]}")
        if self.branch_kernel < 1 or self.branch_kernel % 2 == 0:
            raise RecordError(f"config: expected a positive odd branch_kernel, got {self.branch_kernel}")
        if self.unit == "fire" and any(width % 2 for width in self.dims):
            raise RecordError(f"config: fire units halve their width: expected even dims, got {list(self.dims)}")

    @property
    def stride(self) -> int:
        """Input pixels a cell of the corner maps."""
        return int(2 ** len(self.stem))

    @property
    def modulus(self) -> int:
        """A side of the input is one less than a multiple of this."""
        return int(self.stride * 2 ** (len(self.dims) - 1))


PRESETS = {
    preset.name: preset
    for preset in (
        CornerNetConfig(
            name="cornernet-104",
            classes=80,
            stacks=2,
            stem=(128, 256),
            dims=(256, 256, 384, 384, 384, 512),
            modules=(2, 2, 2, 2, 2, 4),
        ),
        CornerNetConfig(
            name="cornernet-squeeze",
            classes=80,
            stacks=2,
            stem=(128, 256, 256),
            dims=(256, 256, 384, 384, 512),
            modules=(2, 2, 2, 2, 4),
            unit="fire",
            upsample="deconvolution",
            branch_kernel=1,
        ),
        CornerNetConfig(
            name="cornernet-tiny",
            classes=6,
            stacks=2,
            stem=(32, 48),
            dims=(48, 48, 64, 64),
            modules=(1, 1, 1, 1),
            pool_width=32,
        ),
    )
}


def preset(name: str, *, classes: int | None = None, stacks: int | None = None) -> CornerNetConfig:
    """Return a named shape, with other counts of classes or stacks if given.

    Raises:
        ModelError: No shape has this name.
    """
    if name not in PRESETS:
        raise ModelError(f"no architecture is called {name!r}; there are {', '.join(PRESETS)}")
    found = PRESETS[name]
    return replace(
        found,
        classes=found.classes if classes is None else classes,
        stacks=found.stacks if stacks is None else stacks,
    )
