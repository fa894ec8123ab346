"""Ways to write corner pooling in standard ONNX operators, timed: ``python -m cornernet_bench.steps.corner_pool``.

The exported function body is the first. The others are what it was chosen from: doubling by slices, and one max-pooling
window that spans the map. PyTorch's cummax, the reference, runs beside them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import TensorProto, helper
from rich.console import Console

from cornernet_bench.measuring.timing import environment, interleave, timing_table
from cornernet_export.corner_pool import OPSET, pool_function
from cornernet_export.model.corner_pool import PLUGIN_NAMESPACE, Corner, corner_pool

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = ((1, 32, 64, 64), (1, 128, 128, 128))  # cornernet-tiny at 255x255, CornerNet-104 at 511x511
ROUNDS = 20
END = np.iinfo(np.int64).max


def main() -> None:
    """Print one table a shape; every contestant's result is compared with the reference first."""
    console, rng = Console(highlight=False), np.random.default_rng(0)
    console.print(environment("torch", "onnx", "onnxruntime"))
    console.print(f"top-left pooling, float32, {ROUNDS} rounds after 3 to warm up")
    for shape in SHAPES:
        maps = [rng.standard_normal(shape, np.float32) for _ in range(2)]
        vertical, horizontal = (torch.from_numpy(values) for values in maps)
        expected = corner_pool(vertical, horizontal, Corner.TOP_LEFT).numpy()
        contestants: dict[str, Callable[[], object]] = {}
        for name, function in bodies(max(shape[2:])).items():
            session = ort.InferenceSession(pool_model(function, shape).SerializeToString())
            feed = dict(zip(("vertical", "horizontal"), maps, strict=True))
            np.testing.assert_array_equal(session.run(None, feed)[0], expected)
            contestants[name] = partial(session.run, None, feed)
        contestants["PyTorch cummax"] = partial(corner_pool, vertical, horizontal, Corner.TOP_LEFT)
        with torch.inference_mode():
            times = interleave(contestants, ROUNDS)
        console.print(timing_table("x".join(map(str, shape)), times, "PyTorch cummax"))


def bodies(side: int) -> dict[str, onnx.FunctionProto]:
    """Return top-left pooling in each way of writing it, for square maps of ``side`` cells."""
    steps = (side - 1).bit_length()
    return {
        "gathered rows (exported)": pool_function(Corner.TOP_LEFT, side),
        "slices": _function([*_by_slices("vertical", 2, steps), *_by_slices("horizontal", 3, steps)]),
        "spanning window": _function([_by_window("vertical", 2, side), _by_window("horizontal", 3, side)]),
    }


def pool_model(function: onnx.FunctionProto, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return a model of one custom node and its function body."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in function.input]
    output = helper.make_tensor_value_info("pooled", TensorProto.FLOAT, shape)
    node = helper.make_node(function.name, list(function.input), ["pooled"], domain=function.domain)
    graph = helper.make_graph([node], "corner_pool", inputs, [output])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(function.domain, 1)]
    return helper.make_model(graph, functions=[function], opset_imports=opsets, ir_version=10)


def _function(nodes: list[onnx.NodeProto]) -> onnx.FunctionProto:
    total = helper.make_node("Add", ["vertical_out", "horizontal_out"], ["pooled"])
    opset = helper.make_opsetid("", OPSET)
    name = Corner.TOP_LEFT.value
    return helper.make_function(
        PLUGIN_NAMESPACE, name, ["vertical", "horizontal"], ["pooled"], [*nodes, total], [opset]
    )


def _by_window(source: str, axis: int, side: int) -> onnx.NodeProto:
    """One window as long as the map, hanging over its far end. Drops NaN, and the reference evaluator cannot run it."""
    kernel, pads = [1, 1], [0, 0, 0, 0]
    kernel[axis - 2] = side
    pads[axis] = side - 1
    return helper.make_node("MaxPool", [source], [f"{source}_out"], kernel_shape=kernel, pads=pads)


def _by_slices(source: str, axis: int, steps: int) -> list[onnx.NodeProto]:
    """Doubling: the map against itself shifted, the rest of it appended unchanged."""

    def constant(name: str, value: int) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [f"{source}_{name}"], value_ints=[value])

    def cut(data: str, start: str, end: str, output: str) -> onnx.NodeProto:
        names = [data, *(f"{source}_{bound}" for bound in (start, end, "axis"))]
        return helper.make_node("Slice", names, [f"{source}_{output}"])

    nodes = [constant("axis", axis), constant("begin", 0), constant("end", END)]
    current = source
    for step in range(steps):
        result = f"{source}_out" if step == steps - 1 else f"{source}_{step}"
        nodes += [
            constant(f"plus{step}", 2**step),
            constant(f"minus{step}", -(2**step)),
            cut(current, "begin", f"minus{step}", f"low{step}"),
            cut(current, f"plus{step}", "end", f"high{step}"),
            cut(current, f"minus{step}", "end", f"rest{step}"),
            helper.make_node("Max", [f"{source}_low{step}", f"{source}_high{step}"], [f"{source}_max{step}"]),
            helper.make_node("Concat", [f"{source}_max{step}", f"{source}_rest{step}"], [result], axis=axis),
        ]
        current = result
    return nodes


if __name__ == "__main__":
    main()
