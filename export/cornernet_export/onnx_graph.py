"""The network as one ONNX file that every runtime can take.

The exported graph has standard operators and one custom node a corner. A function body for each of the two is appended
afterwards, for the exporter would inline it.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import helper

from cornernet_export.corner_pool import OPSET, pool_function
from cornernet_export.model.corner_pool import Corner
from cornernet_runtime.backends.onnx_file import METADATA_KEY
from cornernet_runtime.bundle.spec import ModelSpec, spec_to_text
from cornernet_runtime.processing.maps import INPUT_NAME, OUTPUT_NAMES
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cornernet_export.model import CornerNet


def build_onnx(model: CornerNet, spec: ModelSpec) -> onnx.ModelProto:
    """Export the inference graph for all that the spec accepts.

    Args:
        model: In inference mode; batch norms are folded into the convolutions before them.
        spec: Goes into the file's metadata.

    Returns:
        A model with input ``image`` float32 [N, 3, H, W] and the six outputs of ``cornernet_runtime.processing.maps``.
        H and W are free where the spec has several sizes, N where it has several batches; a fixed N is 1.
    """
    example, free = _example(spec)
    with _quiet_exporter():
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
            dynamic_shapes=free,
            verbose=False,
        )
    if program is None:  # only with a file name given
        raise AssertionError("torch.onnx.export returned no program")
    exported = program.model_proto
    for part in (*exported.graph.node, *exported.graph.input, *exported.graph.output):
        del part.metadata_props[:]  # stack traces with the paths of this machine
    del exported.graph.value_info[:]
    del exported.graph.metadata_props[:]
    _name_free_sides(exported.graph)
    largest_map = max(spec.largest_size) // spec.stride + 1
    exported.functions.extend(pool_function(corner, largest_map) for corner in Corner)
    exported.producer_name, exported.producer_version = "cornernet-trt", __version__
    helper.set_model_props(exported, {METADATA_KEY: spec_to_text(spec)})
    return exported


def _example(spec: ModelSpec) -> tuple[torch.Tensor, tuple[dict[int, Any]] | None]:
    """Return an input to trace with, and which of its dimensions are free."""
    # The tracer takes a dimension of 1 for a constant, so no free one may be 1.
    batch = 2 if spec.free_batch else 1
    free: dict[int, Any] = {0: torch.export.Dim("batch", min=1)} if spec.free_batch else {}
    if spec.fixed:
        return torch.zeros(batch, 3, *spec.input_size), (free,) if free else None
    most = max(3, max(spec.largest_size) // spec.modulus + 1)  # for the tracer, which has to see the example below
    rows, columns = (torch.export.Dim(name, min=1, max=most) for name in ("rows", "columns"))
    free |= {2: spec.modulus * rows - 1, 3: spec.modulus * columns - 1}
    return torch.zeros(batch, 3, 2 * spec.modulus - 1, 3 * spec.modulus - 1), (free,)


def _name_free_sides(graph: onnx.GraphProto) -> None:
    """Give the free dimensions names for people; the exporter's are formulas such as ``8*s30``."""
    for parts, names in (
        (graph.input, ("batch", "", "height", "width")),
        (graph.output, ("batch", "", "map_height", "map_width")),
    ):
        for part in parts:
            for side, name in zip(part.type.tensor_type.shape.dim, names, strict=True):
                if side.HasField("dim_param"):
                    side.dim_param = name


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter's remarks on torchvision and on its own deprecated calls from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)
