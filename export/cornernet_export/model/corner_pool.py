"""Corner pooling (CornerNet, section 3.3, equations 1 to 4): the reference, and its node in an exported graph."""

from __future__ import annotations

from enum import Enum

import torch
from torch import nn

PLUGIN_NAMESPACE = "cornernet"
PLUGIN_VERSION = "1"


class Corner(Enum):
    """The two corners of a box, each with the name of its operator in ONNX and TensorRT."""

    TOP_LEFT = "TopLeftPool"
    BOTTOM_RIGHT = "BottomRightPool"


def corner_pool(vertical: torch.Tensor, horizontal: torch.Tensor, corner: Corner) -> torch.Tensor:
    """Sum the running maxima of two maps towards a corner; differentiable.

    Top-left: ``out[y, x] = max(vertical[y:, x]) + max(horizontal[y, x:])``, for one looks down and right for the edges
    of the object. Bottom-right: ``out[y, x] = max(vertical[:y+1, x]) + max(horizontal[y, :x+1])``.

    Args:
        vertical: [N, C, H, W], pooled along y.
        horizontal: [N, C, H, W], pooled along x.
        corner: Which corner.

    Returns:
        [N, C, H, W] of the same type. A NaN spreads along its direction.
    """
    if corner is Corner.BOTTOM_RIGHT:
        return vertical.cummax(2).values + horizontal.cummax(3).values
    return vertical.flip(2).cummax(2).values.flip(2) + horizontal.flip(3).cummax(3).values.flip(3)


class CornerPool(nn.Module):
    """Corner pooling as a layer: computed in eager mode, one custom node in an exported ONNX graph."""

    def __init__(self, corner: Corner) -> None:
        super().__init__()
        self.corner = corner

    def forward(self, vertical: torch.Tensor, horizontal: torch.Tensor) -> torch.Tensor:
        """Map two [N, C, H, W] to one of the same shape."""
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic(
                f"{PLUGIN_NAMESPACE}::{self.corner.value}",
                (vertical, horizontal),
                attrs={"plugin_namespace": PLUGIN_NAMESPACE, "plugin_version": PLUGIN_VERSION},
                dtype=vertical.dtype,
                shape=vertical.shape,
                version=1,
            )
        return corner_pool(vertical, horizontal, self.corner)
