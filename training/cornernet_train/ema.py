"""A running mean of a network's weights, which is steadier than any one step's."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from cornernet_export.model import CornerNet


class WeightAverage:
    """An exponential moving average of weights and of batch norm statistics.

    Early on the mean follows quickly, so that the random weights of the beginning are soon forgotten: after ``t`` steps
    the decay is at most ``(1 + t) / (10 + t)``.

    Args:
        model: What is averaged; its present state is where the mean begins.
        decay: Part of the mean that stays each step; 0 copies the weights.
    """

    def __init__(self, model: CornerNet, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: CornerNet, step: int) -> None:
        """Take in the weights after optimiser step ``step``, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        mean, new = self.model.state_dict(), model.state_dict()
        floating = [name for name, tensor in mean.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([mean[name] for name in floating], [new[name] for name in floating], 1 - decay)
        for name in mean.keys() - set(floating):
            mean[name].copy_(new[name])
