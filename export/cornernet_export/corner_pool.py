"""Corner pooling in an ONNX file: the function body of standard operators beside each custom node.

A runtime that has the CUDA plugin replaces the node; every other one runs the body.
"""

from __future__ import annotations

from typing import Any, cast

import onnx
from onnx import helper

from cornernet_export.model.corner_pool import PLUGIN_NAMESPACE, Corner

OPSET = 20


def pool_function(corner: Corner, largest_side: int) -> onnx.FunctionProto:
    """Return the body of one corner's pooling.

    Running maxima by doubling: after step k a cell holds the maximum of the 2**k cells from it on, and takes in that of
    the cell 2**k further. Beyond the border the last cell is taken again, which changes no maximum, so the result is
    exact in every type, NaN included. Rows are gathered as blocks; columns are pooled as rows of the transposed map.

    Args:
        corner: Which corner.
        largest_side: Largest side of a map, cells. The result is wrong beyond the next power of two.
    """
    steps = (largest_side - 1).bit_length()
    vertical = _running_maximum("vertical", corner, steps, prefix="v")
    columns = helper.make_node("Transpose", ["horizontal"], ["h_in"], perm=[0, 1, 3, 2])
    horizontal = _running_maximum("h_in", corner, steps, prefix="h")
    rows = helper.make_node("Transpose", ["h_out"], ["h_rows"], perm=[0, 1, 3, 2])
    total = helper.make_node("Add", ["v_out", "h_rows"], ["pooled"])
    return helper.make_function(
        PLUGIN_NAMESPACE,
        corner.value,
        ["vertical", "horizontal"],
        ["pooled"],
        [*vertical, columns, *horizontal, rows, total],
        [helper.make_opsetid("", OPSET)],
        attributes=["plugin_namespace", "plugin_version"],
    )


def _running_maximum(source: str, corner: Corner, steps: int, prefix: str) -> list[onnx.NodeProto]:
    """Return nodes from ``source`` [N, C, H, W] to ``{prefix}_out``: maxima along H towards the corner."""

    def node(operator: str, inputs: list[str], output: str, **attributes: int) -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [output], name=output, **cast("Any", attributes))

    def name(stem: str) -> str:
        return f"{prefix}_{stem}"

    forward = corner is Corner.TOP_LEFT  # looks down and right, to higher indices
    nodes = [
        node("Constant", [], name("zero"), value_int=0),
        node("Constant", [], name("one"), value_int=1),
        node("Shape", [source], name("shape"), start=2, end=3),
        node("Squeeze", [name("shape")], name("side")),
        node("Sub", [name("side"), name("one")], name("last")),
        node("Range", [name("zero"), name("side"), name("one")], name("cell")),
    ]
    current = source
    for step in range(steps):
        result = name("out") if step == steps - 1 else name(f"max_{step}")
        border, limit = ("Min", name("last")) if forward else ("Max", name("zero"))
        nodes += [
            node("Constant", [], name(f"shift_{step}"), value_int=2**step if forward else -(2**step)),
            node("Add", [name("cell"), name(f"shift_{step}")], name(f"beyond_{step}")),
            node(border, [name(f"beyond_{step}"), limit], name(f"other_{step}")),
            node("Gather", [current, name(f"other_{step}")], name(f"shifted_{step}"), axis=2),
            node("Max", [current, name(f"shifted_{step}")], result),
        ]
        current = result
    if steps == 0:
        nodes.append(node("Identity", [source], name("out")))
    return nodes
