"""Whether a network's activations fit into float16, layer by layer, on real pictures.

ONNX Runtime computes a float16 graph in float32 on the CPU, so an overflow does not show there; it is looked for here,
in the folded float32 network, which is what the float16 one rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    from numpy.typing import NDArray

    from cornernet_export.model import CornerNet

HALF_LARGEST = 65504.0


@dataclass(frozen=True, slots=True)
class Activation:
    """The largest absolute value that a layer put out; infinite where a value was NaN."""

    layer: str
    largest: float


def largest_activations(folded: CornerNet, images: Iterable[NDArray[np.float32]]) -> list[Activation]:
    """Run a folded network and return every layer's largest output, in the order in which layers run first.

    Args:
        folded: In float32, batch norms folded: unfolded, values before a batch norm would count that never occur.
        images: Network inputs, float32 [N, 3, H, W] each.
    """
    largest: dict[str, float] = {}

    def watch(name: str) -> Any:  # noqa: ANN401 - PyTorch's type of a hook
        def hook(_module: torch.nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor):
                value = float(torch.nan_to_num(output.abs(), nan=float("inf"), posinf=float("inf")).max())
                largest[name] = max(largest.get(name, 0.0), value)

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in folded.named_modules() if name]
    try:
        with torch.inference_mode():
            for image in images:
                folded(torch.from_numpy(image))
    finally:
        for hook in hooks:
            hook.remove()
    return [Activation(name, value) for name, value in largest.items()]


def overflow_of(activations: Iterable[Activation]) -> str | None:
    """Return what to say of the first layer that does not fit into float16, or None if all do."""
    for activation in activations:
        if not activation.largest <= HALF_LARGEST:
            return (
                f"float16 overflows: layer {activation.layer} reaches {activation.largest:.4g}, float16 ends at "
                f"{HALF_LARGEST:.0f}"
            )
    return None


def largest_weights(folded: CornerNet) -> list[Activation]:
    """Return the largest absolute weight of every layer of a folded network."""
    return [Activation(name, float(value.detach().abs().max())) for name, value in folded.named_parameters()]
