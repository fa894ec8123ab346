"""The losses of CornerNet (sections 3.2 and 3.3, equations 1 to 5), in float32 whatever the network computes in."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from cornernet_train.recipe import LossWeights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cornernet_export.model import CornerTensors

PAPER = LossWeights()

CLAMP = 1e-4  # of probabilities, so that no logarithm runs away


class TargetBatch(NamedTuple):
    """Targets of a batch; objects are padded to the most that a picture of it has.

    Attributes:
        tl_heat: float32 [N, C, h, w].
        br_heat: float32 [N, C, h, w].
        tl_cells: int64 [N, M], flat cell index.
        br_cells: int64 [N, M].
        tl_offsets: float32 [N, M, 2], x y.
        br_offsets: float32 [N, M, 2].
        labels: int64 [N, M].
        present: bool [N, M], False where padded.
    """

    tl_heat: torch.Tensor
    br_heat: torch.Tensor
    tl_cells: torch.Tensor
    br_cells: torch.Tensor
    tl_offsets: torch.Tensor
    br_offsets: torch.Tensor
    labels: torch.Tensor
    present: torch.Tensor


class Losses(NamedTuple):
    """The parts of the loss, scalars, already weighted; ``total`` is their sum."""

    detection: torch.Tensor
    pull: torch.Tensor
    push: torch.Tensor
    offset: torch.Tensor

    @property
    def total(self) -> torch.Tensor:
        """Return the sum of the parts."""
        return self.detection + self.pull + self.push + self.offset


def corner_losses(stacks: Sequence[CornerTensors], targets: TargetBatch, weights: LossWeights = PAPER) -> Losses:
    """Return the losses averaged over the stacks.

    Args:
        stacks: Maps of every stack.
        targets: What they should hold.
        weights: What each part counts.
    """
    parts = [_stack_losses(maps, targets, weights) for maps in stacks]
    return Losses(*(torch.stack(part).mean() for part in zip(*parts, strict=True)))


def focal_loss(heat: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Variant focal loss (equation 1), alpha 2 and beta 4, over the number of objects.

    Args:
        heat: Logits [N, C, h, w].
        target: [N, C, h, w], 1 at corners and less around them.

    Returns:
        Scalar. Without any object the sum over background is not divided.
    """
    probability = torch.sigmoid(heat.float()).clamp(CLAMP, 1 - CLAMP)
    corner = target == 1
    positive = torch.log(probability) * (1 - probability) ** 2
    negative = torch.log(1 - probability) * probability**2 * (1 - target) ** 4
    return -torch.where(corner, positive, negative).sum() / corner.sum().clamp(min=1)


def pull_push_loss(
    tl_embed: torch.Tensor, br_embed: torch.Tensor, present: torch.Tensor, labels: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Associative embedding losses (equations 4 and 5), each picture's divided by its objects, summed over pictures.

    The sum is the published code's: a mean over the batch is that much weaker, and corners of different objects pair.

    Args:
        tl_embed: [N, M], embedding at each object's top-left corner.
        br_embed: [N, M], at its bottom-right corner.
        present: bool [N, M].
        labels: int64 [N, M], to push only objects of one class apart.

    Returns:
        Scalars: corners of one object pulled together; means of different objects pushed at least 1 apart.
    """
    mean = (tl_embed + br_embed) / 2
    count = present.sum(1).clamp(min=1).float()
    apart = ((tl_embed - mean) ** 2 + (br_embed - mean) ** 2) * present
    pull = (apart.sum(1) / count).sum()
    pairs = present[:, :, None] & present[:, None, :]
    pairs &= ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    if labels is not None:
        pairs &= labels[:, :, None] == labels[:, None, :]
    near = functional.relu(1 - (mean[:, :, None] - mean[:, None, :]).abs()) * pairs
    push = (near.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)).sum()
    return pull, push


def _stack_losses(maps: CornerTensors, targets: TargetBatch, weights: LossWeights) -> Losses:
    tl_embed = _gather(maps.tl_embed, targets.tl_cells)[..., 0]
    br_embed = _gather(maps.br_embed, targets.br_cells)[..., 0]
    labels = targets.labels if weights.push_within_class else None
    pull, push = pull_push_loss(tl_embed, br_embed, targets.present, labels)
    offset = _offset_loss(_gather(maps.tl_offset, targets.tl_cells), targets.tl_offsets, targets.present)
    offset = offset + _offset_loss(_gather(maps.br_offset, targets.br_cells), targets.br_offsets, targets.present)
    detection = focal_loss(maps.tl_heat, targets.tl_heat) + focal_loss(maps.br_heat, targets.br_heat)
    return Losses(detection, weights.pull * pull, weights.push * push, weights.offset * offset)


def _offset_loss(offset: torch.Tensor, target: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Smooth L1 (equation 3) over x and y, summed and divided by the number of objects."""
    loss = functional.smooth_l1_loss(offset, target, reduction="none").sum(2) * present
    return loss.sum() / present.sum().clamp(min=1)


def _gather(maps: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Return float32 [N, M, C]: the values of [N, C, h, w] at flat cells [N, M]."""
    flat = maps.float().flatten(2).transpose(1, 2)
    return flat.gather(1, cells[..., None].expand(-1, -1, flat.shape[2]))
