"""A small network with random weights, which exports and runs in a moment."""

from __future__ import annotations

from dataclasses import replace

import torch

from cornernet_export.model import CornerNet, CornerNetConfig
from cornernet_runtime.bundle.spec import ModelSpec

SMALL = CornerNetConfig(
    name="small", classes=3, stacks=2, stem=(8, 16), dims=(16, 16, 24), modules=(1, 1, 1), pool_width=8
)
FIRE = replace(SMALL, unit="fire", upsample="deconvolution", branch_kernel=1)  # as in CornerNet-Squeeze
SMALL_SPEC = ModelSpec(
    name="small",
    class_names=("ant", "bee", "cat"),
    stride=4,
    modulus=16,
    input_size=(63, 95),
    largest_size=(63, 95),
)


def small_model(seed: int = 0, config: CornerNetConfig = SMALL) -> CornerNet:
    """Return the network in inference mode with lively random weights and batch norm statistics."""
    torch.manual_seed(seed)
    model = CornerNet(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return model.eval()
