"""A trained network rewritten for deployment: fewer stacks, batch norms folded away, half precision inside.

Each function returns a new network and leaves the given one as it is.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from cornernet_export.model.blocks import Fire, Hourglass
from cornernet_export.model.corner_pool import CornerPool
from cornernet_export.model.network import CornerHead, CornerNet
from cornernet_runtime.errors import ModelError


def cut_stacks(model: CornerNet, stacks: int) -> CornerNet:
    """Return the network up to its ``stacks``-th hourglass, whose heads intermediate supervision has trained.

    Raises:
        ModelError: The network has fewer stacks, or none is asked for.
    """
    config = model.config
    if not 1 <= stacks <= config.stacks:
        raise ModelError(f"{config.name} has {config.stacks} stacks; choose 1 to {config.stacks}, got {stacks}")
    shorter = CornerNet(replace(config, stacks=stacks))
    state = model.state_dict()
    shorter.load_state_dict({name: state[name] for name in shorter.state_dict()})
    return shorter.eval()


def fold_batch_norms(model: CornerNet) -> CornerNet:
    """Return the network in inference mode with every batch norm folded into the convolutions before it.

    A fire unit's batch norm stands behind two convolutions side by side; each takes its half of the channels.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        if isinstance(module, Fire):
            _fold_fire(module)
        elif isinstance(module, nn.Sequential):
            for before, norm in zip(range(len(module)), range(1, len(module)), strict=False):
                convolution, normaliser = module[before], module[norm]
                if isinstance(normaliser, nn.BatchNorm2d) and isinstance(convolution, nn.Conv2d):
                    module[before] = fuse_conv_bn_eval(convolution, normaliser)
                    module[norm] = nn.Identity()
    return folded


def to_half(folded: CornerNet) -> CornerNet:
    """Return the folded network with float16 inside and float32 at its input and outputs.

    The last convolution of embedding and offset runs in float32: float16 has steps of 1/64 and more beyond 16, which
    would decide which corners pair.
    """
    half = copy.deepcopy(folded).half()
    half.stem = nn.Sequential(Cast(torch.float16), *half.stem)
    for head in half.modules():
        if isinstance(head, CornerHead):
            head.heat = nn.Sequential(*head.heat, Cast(torch.float32))
            for name in ("embed", "offset"):
                *body, last = getattr(head, name)
                setattr(head, name, nn.Sequential(*body, Cast(torch.float32), last.float()))
    return half


def emulate_half(half: CornerNet) -> CornerNet:
    """Return what ``to_half`` gave as a float32 network that rounds wherever the float16 one does.

    For CPUs without float16 arithmetic, where PyTorch takes forty times as long for it. Sums inside a convolution stay
    float32, as they do in tensor cores.
    """
    emulated = copy.deepcopy(half).float()
    for name, module in emulated.named_modules():
        own = half.get_submodule(name)
        if any(parameter.dtype == torch.float32 for parameter in own.parameters(recurse=False)):
            continue  # the last convolution of embedding and offset
        if isinstance(module, Cast):
            module.dtype = torch.float32
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.ReLU, Hourglass, CornerPool, Cast)):
            module.register_forward_hook(_round_to_half)
    for merged in emulated.merged:
        merged.register_forward_pre_hook(lambda _module, inputs: tuple(value.half().float() for value in inputs))
    return emulated


def _round_to_half(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
    return output.half().float()


class Cast(nn.Module):
    """Converts to a floating type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the tensor in this type."""
        return features.to(self.dtype)


def _fold_fire(fire: Fire) -> None:
    norm = fire.norm
    half = norm.num_features // 2
    for name, channels in (("pointwise", slice(0, half)), ("depthwise", slice(half, None))):
        part = nn.BatchNorm2d(half, eps=norm.eps).eval()
        part.load_state_dict(
            {key: value[channels] if value.ndim else value for key, value in norm.state_dict().items()}
        )
        setattr(fire, name, fuse_conv_bn_eval(getattr(fire, name), part))
    fire.norm = nn.Identity()  # type: ignore[assignment]  # folded away
