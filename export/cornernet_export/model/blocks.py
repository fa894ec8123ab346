"""Convolution blocks and the hourglass (CornerNet, section 3.4; CornerNet-Lite, section 4 for the fire unit)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from cornernet_export.model.config import Unit, Upsample


def convolution(kernel: int, inputs: int, outputs: int, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Return conv, BN and, unless switched off, ReLU; the padding keeps the size at stride 1."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if relu:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two 3x3 convolutions beside a skip, which is a 1x1 convolution where stride or width change."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = convolution(3, inputs, outputs, stride)
        self.second = convolution(3, outputs, outputs, relu=False)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else convolution(1, inputs, outputs, stride, relu=False)
        self.relu = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        return self.relu(self.second(self.first(features)) + self.skip(features))  # type: ignore[no-any-return]


class Fire(nn.Module):
    """A fire module: a 1x1 convolution to half the width, then a 1x1 and a depthwise 3x3 side by side.

    There is no ReLU after the squeezing convolution, and the input is added only where stride and width keep.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        self.squeeze = convolution(1, inputs, half, relu=False)
        self.pointwise = nn.Conv2d(half, half, 1, stride, bias=False)
        self.depthwise = nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.has_skip = stride == 1 and inputs == outputs
        self.relu = nn.ReLU()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map [N, inputs, H, W] to [N, outputs, H/stride, W/stride]."""
        squeezed = self.squeeze(features)
        expanded = self.norm(torch.cat((self.pointwise(squeezed), self.depthwise(squeezed)), 1))
        return self.relu(expanded + features if self.has_skip else expanded)  # type: ignore[no-any-return]


UNITS: dict[Unit, type[Residual | Fire]] = {"residual": Residual, "fire": Fire}


class Hourglass(nn.Module):
    """Down to the innermost depth and up again, with a branch of units kept at every depth.

    Args:
        dims: Width at this depth and at those within.
        modules: Units at this depth and at those within.
        unit: Building block.
        upsample: Nearest neighbour, or a 4x4 transposed convolution of stride 2.
    """

    def __init__(self, dims: tuple[int, ...], modules: tuple[int, ...], unit: Unit, upsample: Upsample) -> None:
        super().__init__()
        block = UNITS[unit]
        here, below = dims[0], dims[1]
        count = modules[0]
        self.keep = nn.Sequential(*(block(here, here) for _ in range(count)))
        self.down = nn.Sequential(block(here, below, 2), *(block(below, below) for _ in range(count - 1)))
        self.inner: nn.Module
        if len(dims) > 2:
            self.inner = Hourglass(dims[1:], modules[1:], unit, upsample)
        else:
            self.inner = nn.Sequential(*(block(below, below) for _ in range(modules[1])))
        self.back = nn.Sequential(*(block(below, below) for _ in range(count - 1)), block(below, here))
        self.up: nn.Module = (
            nn.Upsample(scale_factor=2) if upsample == "nearest" else nn.ConvTranspose2d(here, here, 4, 2, 1)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Map [N, dims[0], H, W] to the same shape; H and W divisible by 2 ** depth."""
        return self.keep(features) + self.up(self.back(self.inner(self.down(features))))  # type: ignore[no-any-return]
