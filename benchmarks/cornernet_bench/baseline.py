"""The steps of the published pipeline, written down plainly: what this project is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from cornernet_export.model import CornerTensors


class BaselineCandidates(NamedTuple):
    """Pairs of corners of a batch, best first: boxes [N, M, 4] in cells, scores [N, M] (-1 where rejected), labels."""

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


def decode_in_torch(
    maps: CornerTensors, *, top_k: int = 100, candidates: int = 1000, embedding_distance: float = 0.5
) -> BaselineCandidates:
    """Decode in the plain way: sigmoid everywhere, peaks by max-pooling, top-K, all pairs, top-M.

    Args:
        maps: Of a batch, [N, C, h, w] logits, [N, 1, h, w] embeddings, [N, 2, h, w] offsets.
        top_k: Corners of each kind, over all classes.
        candidates: Pairs kept.
        embedding_distance: Pairs whose embeddings differ by more are rejected.
    """
    tl = _top_corners(maps.tl_heat, maps.tl_embed, maps.tl_offset, top_k)
    br = _top_corners(maps.br_heat, maps.br_embed, maps.br_offset, top_k)
    first = _Corners(*(value.unsqueeze(2).expand(-1, -1, value.shape[1]) for value in tl))
    second = _Corners(*(value.unsqueeze(1).expand(-1, value.shape[1], -1) for value in br))
    scores = (first.scores + second.scores) / 2
    rejected = first.labels != second.labels
    rejected |= (first.embedding - second.embedding).abs() > embedding_distance
    rejected |= (second.x < first.x) | (second.y < first.y)
    scores = torch.where(rejected, -1.0, scores).flatten(1)
    boxes = torch.stack([first.x, first.y, second.x, second.y], dim=3).flatten(1, 2)
    best, index = scores.topk(min(candidates, scores.shape[1]), dim=1)
    return BaselineCandidates(
        boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4)), best, first.labels.flatten(1).gather(1, index)
    )


class _Corners(NamedTuple):
    """The best corners of one kind, [N, K] each."""

    x: torch.Tensor
    y: torch.Tensor
    embedding: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


def _top_corners(heat: torch.Tensor, embed: torch.Tensor, offset: torch.Tensor, count: int) -> _Corners:
    _, classes, height, width = heat.shape
    probability = heat.sigmoid()
    peak = functional.max_pool2d(probability, 3, stride=1, padding=1) == probability
    scores, index = (probability * peak).flatten(1).topk(min(count, classes * height * width))
    cell = index % (height * width)
    shift = offset.flatten(2)
    return _Corners(
        x=(cell % width) + shift[:, 0].gather(1, cell),
        y=(cell // width) + shift[:, 1].gather(1, cell),
        embedding=embed.flatten(1).gather(1, cell),
        scores=scores,
        labels=index // (height * width),
    )
