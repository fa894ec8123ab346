"""The published pipeline, written down plainly: what this project is measured against.

princeton-vl's CornerNet takes a frame to boxes in these steps, and ``PublishedPipeline`` takes them in the same order
and on the same devices: the frame resized, padded and normalised in NumPy, its mirror image appended; the network in
PyTorch, float32, as written; corners decoded in PyTorch; boxes brought back and suppressed class by class on the CPU.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cornernet_bench.baseline.nms import cut, suppress_class
from cornernet_export.model.corner_pool import Corner
from cornernet_runtime.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cornernet_export.model import CornerNet, CornerTensors
    from cornernet_runtime.bundle.spec import ModelSpec, Size

CROSS_CLASS = -1.0  # score of a pair that is none


class PublishedPipeline:
    """A CornerNet run as it was published, at one scale.

    Two things differ from the original: rows that soft-NMS has dropped do not stay in its result, and soft-NMS,
    compiled from Cython there, is written in NumPy here.

    Args:
        model: The network; it is moved to ``device``, and its corner pools become the original's.
        spec: How to use it.
        flip: Whether the mirror image is looked at as well, which the original always does.
        input_size: Height and width of the input, into which frames are then fitted; None takes a frame at its own size
            in the next input that holds it, as the original does.
        device: Of PyTorch.

    Attributes:
        stages: Called with the name of each step; the context that it returns is open during the step.
    """

    def __init__(
        self,
        model: CornerNet,
        spec: ModelSpec,
        *,
        flip: bool = True,
        input_size: Size | None = None,
        device: str = "cpu",
    ) -> None:
        self._model = with_published_pools(model).eval().to(device)
        self._spec, self._flip, self._input_size = spec, flip, input_size
        self._device = device
        self.stages: Callable[[str], AbstractContextManager[object]] = nullcontext

    @torch.inference_mode()
    def __call__(self, frame: NDArray[np.uint8]) -> Detections:
        """Detect the objects of a frame, uint8 [H, W, 3], BGR, as ``Detector`` does."""
        parameters = self._spec.decode
        with self.stages("preprocess"):
            view = self._place(frame.shape[0], frame.shape[1])
            images = self._prepare(frame, view)
        with self.stages("upload"):
            tensor = torch.from_numpy(images).to(self._device)
        with self.stages("network"):
            maps = self._model(tensor)
        with self.stages("decode"):
            found = decode_in_torch(
                maps,
                top_k=parameters.top_k,
                candidates=parameters.candidates,
                embedding_distance=parameters.embedding_distance,
                reject_empty=parameters.reject_empty,
            )
        with self.stages("download"):
            boxes, scores, labels = (tensor.cpu().numpy() for tensor in found)
        with self.stages("decode"):
            boxes = view.to_frame(boxes)
        with self.stages("soft_nms"):
            return self._suppress(boxes.reshape(-1, 4), scores.reshape(-1), labels.reshape(-1))

    def _place(self, height: int, width: int) -> _View:
        """Return how the frame goes into the input: its size there, and the border left and above."""
        modulus, stride = self._spec.modulus, self._spec.stride
        if self._input_size is None:
            new = (height, width)
            size = (height | modulus - 1, width | modulus - 1)
        else:
            size = self._input_size
            scale = min(size[0] / height, size[1] / width)
            new = (max(1, min(size[0], round(height * scale))), max(1, min(size[1], round(width * scale))))
        return _View(
            frame=(height, width),
            resized=new,
            input=size,
            maps=((size[0] + 1) // stride, (size[1] + 1) // stride),
            top=size[0] // 2 - new[0] // 2,
            left=size[1] // 2 - new[1] // 2,
        )

    def _prepare(self, frame: NDArray[np.uint8], view: _View) -> NDArray[np.float32]:
        """Return the input, float32 [1 or 2, 3, H, W]: resized, pasted from its middle, normalised, mirrored."""
        normalisation = self._spec.normalisation
        resized = cv2.resize(frame, (view.resized[1], view.resized[0]))
        if normalisation.channel_order == "rgb":
            resized = resized[:, :, ::-1]
        pad = np.array(normalisation.pad)
        canvas = np.full((*view.input, 3), pad, np.uint8 if (pad == pad.round()).all() else np.float64)
        # A half of the input on either side of its middle: a side that fits exactly loses its last row or column.
        rows = min(view.resized[0], 2 * (view.input[0] // 2))
        columns = min(view.resized[1], 2 * (view.input[1] // 2))
        canvas[view.top : view.top + rows, view.left : view.left + columns] = resized[:rows, :columns]
        levels = canvas / 255.0
        levels -= normalisation.mean
        levels /= normalisation.std
        images = np.zeros((1, 3, *view.input), np.float32)
        images[0] = levels.transpose(2, 0, 1)
        return np.concatenate((images, images[:, :, :, ::-1]), axis=0) if self._flip else images

    def _suppress(
        self, boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> Detections:
        possible = scores > CROSS_CLASS
        boxes, scores, labels = boxes[possible], scores[possible], labels[possible]
        kept_boxes, kept_scores, kept_labels = [], [], []
        for label in range(len(self._spec.class_names)):
            own = labels == label
            survivors, final = suppress_class(boxes[own], scores[own], self._spec.nms)
            kept_boxes.append(boxes[own][survivors])
            kept_scores.append(final)
            kept_labels.append(np.full(len(final), label))
        every = np.concatenate(kept_scores)
        best = cut(every, self._spec.nms.max_detections)
        return Detections(
            np.concatenate(kept_boxes)[best], every[best], np.concatenate(kept_labels)[best], self._spec.class_names
        )


class _View(NamedTuple):
    """A frame in the input: heights and widths of frame, resized frame, input and maps; border above and left."""

    frame: Size
    resized: Size
    input: Size
    maps: Size
    top: int
    left: int

    def to_frame(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map boxes [1 or 2, M, 4] in cells, the second image's mirrored, to pixels of the frame, cut to it."""
        boxes = boxes.copy()
        if len(boxes) == 2:
            boxes[1][:, [0, 2]] = self.maps[1] - boxes[1][:, [2, 0]]
        for axis, border in ((1, self.top), (0, self.left)):
            side = 1 - axis  # of the pairs of heights and widths
            values = boxes[:, :, axis::2]
            values /= self.maps[side] / self.input[side]
            values -= border
            np.clip(values, 0, self.resized[side], out=values)
            values /= self.resized[side] / self.frame[side]
        return boxes


class BaselineCandidates(NamedTuple):
    """Pairs of corners of a batch, best first: boxes [N, M, 4] in cells, scores [N, M] (-1 where rejected), labels."""

    boxes: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor


def decode_in_torch(
    maps: CornerTensors,
    *,
    top_k: int = 100,
    candidates: int = 1000,
    embedding_distance: float = 0.5,
    reject_empty: bool = False,
) -> BaselineCandidates:
    """Decode in the published way: sigmoid everywhere, peaks by max-pooling, top-K, all pairs, top-M.

    Args:
        maps: Of a batch, [N, C, h, w] logits, [N, 1, h, w] embeddings, [N, 2, h, w] offsets.
        top_k: Corners of each kind, over all classes.
        candidates: Pairs kept.
        embedding_distance: Pairs whose embeddings differ by more are rejected.
        reject_empty: Whether pairs of no width or height are rejected too, as in mmdetection.
    """
    tl = _top_corners(maps.tl_heat, maps.tl_embed, maps.tl_offset, top_k)
    br = _top_corners(maps.br_heat, maps.br_embed, maps.br_offset, top_k)
    first = _Corners(*(value.unsqueeze(2).expand(-1, -1, value.shape[1]) for value in tl))
    second = _Corners(*(value.unsqueeze(1).expand(-1, value.shape[1], -1) for value in br))
    boxes = torch.stack([first.x, first.y, second.x, second.y], dim=3).flatten(1, 2)
    scores = (first.scores + second.scores) / 2
    # By index, one reason after the other, as published; on a GPU each waits for the one before.
    scores[first.labels != second.labels] = CROSS_CLASS
    scores[(first.embedding - second.embedding).abs() > embedding_distance] = CROSS_CLASS
    before = torch.less_equal if reject_empty else torch.less
    scores[before(second.x, first.x)] = CROSS_CLASS
    scores[before(second.y, first.y)] = CROSS_CLASS
    best, index = scores.flatten(1).topk(min(candidates, scores[0].numel()), dim=1)
    return BaselineCandidates(
        boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4)), best, first.labels.flatten(1).gather(1, index)
    )


def with_published_pools(model: CornerNet) -> CornerNet:
    """Replace the corner pools of a model, in place, by the published ones; the results are the same."""
    for heads, corner in ((model.top_left, Corner.TOP_LEFT), (model.bottom_right, Corner.BOTTOM_RIGHT)):
        for head in heads:
            head.pool = _RowByRow(corner)
    return model


class _RowByRow(nn.Module):
    """Corner pooling as in the original's extension: one maximum a row, and one a column, each with the one before."""

    def __init__(self, corner: Corner) -> None:
        super().__init__()
        self.corner = corner

    def forward(self, vertical: torch.Tensor, horizontal: torch.Tensor) -> torch.Tensor:
        backwards = self.corner is Corner.TOP_LEFT
        return _running_maximum(vertical, 2, backwards=backwards) + _running_maximum(horizontal, 3, backwards=backwards)


def _running_maximum(values: torch.Tensor, axis: int, *, backwards: bool) -> torch.Tensor:
    last = values.shape[axis] - 1
    order = range(last, -1, -1) if backwards else range(last + 1)
    result = torch.zeros_like(values)
    result.select(axis, order[0]).copy_(values.select(axis, order[0]))
    for before, place in pairwise(order):
        torch.maximum(values.select(axis, place), result.select(axis, before), out=result.select(axis, place))
    return result


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
    scores, index = (probability * peak.float()).flatten(1).topk(min(count, classes * height * width))
    cell = index % (height * width)
    # Channels last before gathering, as published: one copy of each map.
    shift = offset.permute(0, 2, 3, 1).contiguous().flatten(1, 2).gather(1, cell.unsqueeze(2).expand(-1, -1, 2))
    embedding = embed.permute(0, 2, 3, 1).contiguous().flatten(1).gather(1, cell)
    return _Corners(
        x=(cell % width) + shift[:, :, 0],
        y=(cell // width) + shift[:, :, 1],
        embedding=embedding,
        scores=scores,
        labels=index // (height * width),
    )
