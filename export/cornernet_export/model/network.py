"""CornerNet: stem, stacked hourglasses, and for each corner a pooling head with three prediction branches."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from cornernet_export.model.blocks import Hourglass, Residual, convolution
from cornernet_export.model.corner_pool import Corner, CornerPool

if TYPE_CHECKING:
    from cornernet_export.model.config import CornerNetConfig

HEAT_BIAS = -2.19  # sigmoid of it is 0.1: at the start nearly every cell is background


class CornerTensors(NamedTuple):
    """The six maps of one stack, ordered and named as in ``cornernet_runtime.processing.maps.CornerMaps``."""

    tl_heat: torch.Tensor
    br_heat: torch.Tensor
    tl_embed: torch.Tensor
    br_embed: torch.Tensor
    tl_offset: torch.Tensor
    br_offset: torch.Tensor


class CornerHead(nn.Module):
    """From the features of a stack to heat, embedding and offset of one corner.

    Two 3x3 convolutions feed corner pooling; its result and a 1x1 skip are added, activated and refined before three
    branches predict.
    """

    def __init__(self, config: CornerNetConfig, corner: Corner) -> None:
        super().__init__()
        width, pool_width = config.dims[0], config.pool_width
        self.vertical = convolution(3, width, pool_width)
        self.horizontal = convolution(3, width, pool_width)
        self.pool = CornerPool(corner)
        self.after_pool = convolution(3, pool_width, width, relu=False)
        self.skip = convolution(1, width, width, relu=False)
        self.relu = nn.ReLU()
        self.refine = convolution(3, width, width)
        self.heat = _branch(width, config.classes, config.branch_kernel)
        self.embed = _branch(width, 1, config.branch_kernel)
        self.offset = _branch(width, 2, config.branch_kernel)
        nn.init.constant_(self.heat[-1].bias, HEAT_BIAS)  # type: ignore[arg-type]  # a Conv2d with bias

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map [N, dims[0], h, w] to heat logits [N, C, h, w], embedding [N, 1, h, w] and offset [N, 2, h, w]."""
        pooled = self.pool(self.vertical(features), self.horizontal(features))
        refined = self.refine(self.relu(self.after_pool(pooled) + self.skip(features)))
        return self.heat(refined), self.embed(refined), self.offset(refined)


class CornerNet(nn.Module):
    """The whole network.

    Args:
        config: Its shape.
    """

    def __init__(self, config: CornerNetConfig) -> None:
        super().__init__()
        self.config = config
        width, between = config.dims[0], config.stacks - 1
        self.stem = nn.Sequential(
            convolution(7, 3, config.stem[0], 2),
            *(Residual(a, b, 2) for a, b in zip(config.stem, config.stem[1:], strict=False)),
        )
        self.hourglasses = nn.ModuleList(
            Hourglass(config.dims, config.modules, config.unit, config.upsample) for _ in range(config.stacks)
        )
        self.outputs = nn.ModuleList(convolution(3, width, width) for _ in range(config.stacks))
        self.merge_inputs = nn.ModuleList(convolution(1, width, width, relu=False) for _ in range(between))
        self.merge_outputs = nn.ModuleList(convolution(1, width, width, relu=False) for _ in range(between))
        self.merged = nn.ModuleList(Residual(width, width) for _ in range(between))
        self.top_left = nn.ModuleList(CornerHead(config, Corner.TOP_LEFT) for _ in range(config.stacks))
        self.bottom_right = nn.ModuleList(CornerHead(config, Corner.BOTTOM_RIGHT) for _ in range(config.stacks))

    def forward(self, image: torch.Tensor) -> CornerTensors:
        """Return the maps of the last stack; the heads of the others are not run.

        Args:
            image: float [N, 3, H, W], normalised; H and W one less than a multiple of ``config.modulus``.
        """
        return self._predict(self.config.stacks - 1, self._features(image)[-1])

    def all_stacks(self, image: torch.Tensor) -> list[CornerTensors]:
        """Return the maps of every stack, first to last, for training with intermediate supervision."""
        return [self._predict(stack, features) for stack, features in enumerate(self._features(image))]

    def _features(self, image: torch.Tensor) -> list[torch.Tensor]:
        merged = self.stem(image)
        features = []
        for stack, (hourglass, output) in enumerate(zip(self.hourglasses, self.outputs, strict=True)):
            features.append(output(hourglass(merged)))
            if stack < self.config.stacks - 1:
                both = self.merge_inputs[stack](merged) + self.merge_outputs[stack](features[-1])
                merged = self.merged[stack](torch.relu(both))
        return features

    def _predict(self, stack: int, features: torch.Tensor) -> CornerTensors:
        tl_heat, tl_embed, tl_offset = self.top_left[stack](features)
        br_heat, br_embed, br_offset = self.bottom_right[stack](features)
        return CornerTensors(tl_heat, br_heat, tl_embed, br_embed, tl_offset, br_offset)


def _branch(width: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, kernel, padding=(kernel - 1) // 2),
        nn.ReLU(),
        nn.Conv2d(width, outputs, 1),
    )
