"""Between which values each tensor of a network lies on real pictures: what eight bits have to cover.

ONNX Runtime's own calibrators take the same statistic, but hold every tensor of all pictures at once, which for
CornerNet-104 is 2 GB a picture. Here a picture's tensors are counted and forgotten, and of large ones not all are kept
at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper

from cornernet_runtime.backends.threads import default_threads
from cornernet_runtime.errors import VerificationError
from cornernet_runtime.processing.maps import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

Range = tuple[float, float]

BINS = 4096  # at least a quarter of them within the range, whatever the values: four times as fine as eight bits
SHARE = 1e-5  # of the values that may lie outside, half of them on each side: the 99.999th percentile
MEMORY = 1 << 30  # bytes of tensors kept at a time
_SMALL = 1024  # values of a constant that shapes may depend on


class Histogram:
    """Counts of values in bins between ``-limit`` and ``limit``, which doubles until it holds all of them."""

    def __init__(self) -> None:
        self.limit = 2.0**-20
        self.counts = np.zeros(BINS, np.int64)
        self.lowest, self.highest = 0.0, 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count finite values."""
        lowest, highest = float(values.min()), float(values.max())
        while max(-lowest, highest) >= self.limit:
            inner = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(inner, BINS // 4)
            self.limit *= 2
        bins = ((values.ravel() + np.float32(self.limit)) * np.float32(BINS / 2 / self.limit)).astype(np.int32)
        self.counts += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)

    def range(self, share: float = SHARE) -> Range:
        """Return the narrowest bins that leave out no more than half of ``share`` of the values on either side.

        Zero is always within, since borders are padded with it.
        """
        edges = np.linspace(-self.limit, self.limit, BINS + 1)
        below = np.cumsum(self.counts)
        outside = int(below[-1] * share / 2)
        first = int(np.searchsorted(below, outside, side="right"))
        last = int(np.searchsorted(below, below[-1] - outside))
        return max(self.lowest, min(edges[first], 0.0)), min(self.highest, max(edges[last + 1], 0.0))


def collect_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], images: Iterable[NDArray[np.float32]]
) -> dict[str, Range]:
    """Run a float32 network on pictures and return the range of each tensor.

    Args:
        model: As ``build_onnx`` made it.
        tensors: Names of what to watch: the input and outputs of nodes.
        images: Network inputs, float32 [N, 3, H, W] each.

    Returns:
        Lowest and highest value of each tensor, all but ``SHARE`` of its values lying between; zero is included.

    Raises:
        VerificationError: A tensor has values that are not finite.
    """
    import onnxruntime as ort  # noqa: PLC0415 - slow to import

    inner = [name for name in tensors if name != INPUT_NAME]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    kept = {output.name for output in model.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name not in kept)
    options = ort.SessionOptions()
    options.intra_op_num_threads = default_threads()  # left to itself it pins one to each core of the machine
    options.log_severity_level = 3
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    del watched
    histograms = {name: Histogram() for name in tensors}
    slices: dict[tuple[int, ...], list[list[str]]] = {}
    for image in images:
        if image.shape not in slices:
            slices[image.shape] = _slices(tensor_sizes(model, image.shape), inner)
        _count(histograms, INPUT_NAME, image)
        for names in slices[image.shape]:
            for name, values in zip(names, session.run(names, {INPUT_NAME: image}), strict=True):
                _count(histograms, name, values)
    return {name: histogram.range() for name, histogram in histograms.items()}


def tensor_sizes(model: onnx.ModelProto, shape: Sequence[int]) -> dict[str, int]:
    """Return how many values each tensor of the graph has, for an input of this shape."""
    graph = model.graph
    image = helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.FLOAT, shape)
    # Weights become inputs: for the shapes that follow theirs are enough, and the copy stays small.
    large = [item for item in graph.initializer if np.prod(item.dims) > _SMALL]
    small = [item for item in graph.initializer if np.prod(item.dims) <= _SMALL]
    weights = [helper.make_tensor_value_info(item.name, item.data_type, item.dims) for item in large]
    outputs = [onnx.ValueInfoProto(name=output.name) for output in graph.output]
    skeleton = helper.make_graph(graph.node, "skeleton", [image, *weights], outputs, small)
    bare = helper.make_model(skeleton, opset_imports=model.opset_import, functions=model.functions)
    bare.ir_version = model.ir_version
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    return {
        item.name: int(np.prod([side.dim_value for side in item.type.tensor_type.shape.dim]))
        for item in (*inferred.input, *inferred.value_info, *inferred.output)
    }


def _slices(sizes: dict[str, int], names: Sequence[str]) -> list[list[str]]:
    """Divide tensors into groups that are kept in memory together; every group costs a run of the network."""
    groups: list[list[str]] = [[]]
    room = MEMORY
    for name in names:
        room -= 4 * sizes[name]
        if room < 0 and groups[-1]:
            groups.append([])
            room = MEMORY - 4 * sizes[name]
        groups[-1].append(name)
    return groups


def _count(histograms: dict[str, Histogram], name: str, values: NDArray[np.float32]) -> None:
    if name not in histograms:
        return
    if not np.isfinite(values).all():
        raise VerificationError(f"{name} is not finite on a calibration picture: int8 cannot hold it; export in fp32")
    histograms[name].add(values)
