"""From any checkpoint to a network with other classes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cornernet_export.model import CornerNet
from cornernet_runtime.bundle.records import RecordError
from cornernet_runtime.errors import ModelError, SizeError

if TYPE_CHECKING:
    import torch

    from cornernet_export.checkpoint import Checkpoint
    from cornernet_runtime.bundle.spec import ModelSpec


def adapt(
    checkpoint: Checkpoint, class_names: tuple[str, ...], input_size: tuple[int, int]
) -> tuple[CornerNet, ModelSpec, list[str]]:
    """Return a network with the checkpoint's weights and these classes.

    The last layer of each heat branch keeps its weights only where the classes are the same, name by name. All other
    tensors are those of the checkpoint, and so are normalisation, decode and soft-NMS.

    Returns:
        The network, its spec, and one line for people that says what begins anew, if anything does.

    Raises:
        ModelError: The network cannot take this input size.
    """
    try:
        spec = replace(checkpoint.spec, class_names=class_names, input_size=input_size, largest_size=input_size)
    except (RecordError, SizeError) as error:
        raise ModelError(f"a {checkpoint.spec.name} cannot be trained so: {error}") from error
    model = CornerNet(replace(checkpoint.model.config, classes=len(class_names)))
    if class_names == checkpoint.spec.class_names:
        model.load_state_dict(checkpoint.model.state_dict())
        return model, spec, []
    fresh = model.state_dict()
    anew = [name for name in fresh if ".heat.2." in name]
    kept = {name: tensor for name, tensor in checkpoint.model.state_dict().items() if name not in anew}
    _check_shapes(fresh, kept)
    model.load_state_dict(kept, strict=False)
    return model, spec, [f"the last layers of the heat branches begin anew, for {len(class_names)} classes"]


def _check_shapes(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Only the heat layers know the number of classes; anything else here is a defect of ours."""
    other = [name for name, tensor in found.items() if tensor.shape != expected[name].shape]
    if other:
        raise ModelError(f"expected the shapes of the checkpoint, got others in {other}")
