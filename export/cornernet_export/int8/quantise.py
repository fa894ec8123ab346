"""A float32 network to INT8: quantisation (Q) and its inverse (DQ) around the operators that shall compute in integers.

Where the pairs stand depends on who runs the file. ONNX Runtime on a CPU computes an operator in integers when each of
its inputs comes from a DQ and its output goes to a Q. TensorRT fuses a convolution with what follows, and wants a
pair before each convolution and on the other branch of an addition, but none behind a convolution; nor does it take
biases or zero points. ``onnxruntime.quantization`` knows the first of the two rules only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cornernet_runtime.processing.maps import INPUT_NAME

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from cornernet_export.int8.ranges import Range
    from cornernet_runtime.bundle.spec import Int8Target

# Without VNNI, x86 adds two products of a byte and a weight in sixteen bits that saturate: 2 * 255 * 127 exceeds them,
# 2 * 255 * 64 does not. So weights have seven bits on the CPU; AP did not change (docs/int8.md).
LARGEST_WEIGHT = {"cpu": 64, "tensorrt": 127}
LARGEST_BIAS = 2.0**30  # in steps; a convolution's sum stays far below as well, so that both fit into 32 bits
CONVOLUTIONS = {
    "cpu": {"Conv"},
    "tensorrt": {"Conv", "ConvTranspose"},
}  # ONNX Runtime has no transposed one in integers
JOINING = {"Add", "Resize", "Concat"}  # in integers on the CPU, so that maps stay bytes from convolution to convolution


@dataclass(frozen=True, slots=True)
class Plan:
    """Which tensors get a pair of Q and DQ, and who reads the result.

    Attributes:
        convolutions: Names of those that compute in INT8.
        readers: For each tensor, the nodes, by name, that read it quantised; on the CPU also some in float32.
        same_range: Tensors whose values are those of another one.
    """

    convolutions: set[str]
    readers: dict[str, set[str]]
    same_range: dict[str, str]


def plan_pairs(graph: onnx.GraphProto, target: Int8Target, float_nodes: Collection[str] = ()) -> Plan:
    """Decide where the pairs stand.

    Args:
        graph: As ``build_onnx`` made it.
        target: Who is to run the file.
        float_nodes: Names of nodes to leave in float32. The last convolutions always are: eight bits of an embedding
            would decide which corners pair, and among 256 levels of heat neighbours tie, which are all peaks then.
    """
    outputs = {output.name for output in graph.output}
    kept = {node.name for node in graph.node if outputs & set(node.output)} | set(float_nodes)
    convolutions = {node.name for node in graph.node if node.op_type in CONVOLUTIONS[target] and node.name not in kept}
    if target == "tensorrt":
        return _plan_for_tensorrt(graph, convolutions, kept)
    return _plan_for_cpu(graph, convolutions, kept)


def quantise(
    model: onnx.ModelProto, ranges: Mapping[str, Range], target: Int8Target, float_nodes: Collection[str] = ()
) -> onnx.ModelProto:
    """Return the network in INT8: weights per output channel and symmetric, activations per tensor.

    Args:
        model: In float32, as ``build_onnx`` made it; left as it is.
        ranges: Of the tensors of ``plan_pairs``, by ``collect_ranges``.
        target: ``cpu`` takes unsigned activations, ``tensorrt`` symmetric ones.
        float_nodes: As for ``plan_pairs``.
    """
    graph = model.graph
    plan = plan_pairs(graph, target, float_nodes)
    weights = {item.name: item for item in graph.initializer}
    builder = _Builder(target, weights)
    for name in plan.readers:
        builder.add_scale(name, ranges[plan.same_range.get(name, name)])
    nodes = builder.pair(INPUT_NAME) if INPUT_NAME in plan.readers else []
    for node in graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for position, name in enumerate(node.input):
            if node.name in plan.readers.get(name, ()):
                copy.input[position] = f"{name}.read"
        if node.name in plan.convolutions:
            nodes += builder.weights(copy, node.input[0])
        nodes.append(copy)
        for name in node.output:
            nodes += builder.pair(name) if name in plan.readers else []
    read = {name for node in nodes for name in node.input}
    kept = [item for item in graph.initializer if item.name in read]
    quantised = helper.make_graph(nodes, graph.name, graph.input, graph.output, [*kept, *builder.constants])
    result = helper.make_model(quantised, opset_imports=model.opset_import, functions=model.functions)
    result.ir_version = model.ir_version
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    result.metadata_props.extend(model.metadata_props)
    return result


def _plan_for_cpu(graph: onnx.GraphProto, convolutions: set[str], kept: set[str]) -> Plan:
    readers_of = _readers(graph)
    constants = _constants(graph)  # a step of their own would be wasted on them, so what takes one stays in float32
    quantised = convolutions | {
        node.name
        for node in graph.node
        if node.op_type in JOINING and node.name not in kept and constants.isdisjoint(_activations(node))
    }
    readers: dict[str, set[str]] = {}
    same: dict[str, str] = {}
    for node in graph.node:
        if node.name not in quantised:
            continue
        for name in _activations(node):
            readers.setdefault(name, set()).add(node.name)
        after = readers_of[node.output[0]]
        # A ReLU behind it is part of it: what is cut off at zero needs no step.
        output = after[0].output[0] if [one.op_type for one in after] == ["Relu"] else node.output[0]
        # Whoever reads the result reads the bytes, for there is no other form of it.
        readers.setdefault(output, set()).update(reader.name for reader in readers_of[output])
        if node.op_type == "Resize":
            same[output] = same.get(node.input[0], node.input[0])
    return Plan(convolutions, readers, same)


def _plan_for_tensorrt(graph: onnx.GraphProto, convolutions: set[str], kept: set[str]) -> Plan:
    made_by = {name: node for node in graph.node for name in node.output}
    constants = _constants(graph)
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        if node.name in convolutions:
            readers.setdefault(node.input[0], set()).add(node.name)
        elif node.op_type == "Add" and node.name not in kept:
            fused = [name for name in node.input if name in made_by and made_by[name].name in convolutions][:1]
            for name in node.input:
                if fused and name not in fused and name not in constants:
                    readers.setdefault(name, set()).add(node.name)
    return Plan(convolutions, readers, {})


def _constants(graph: onnx.GraphProto) -> set[str]:
    values = {name for node in graph.node if node.op_type == "Constant" for name in node.output}
    return values | {item.name for item in graph.initializer}


def _readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {name: [] for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _activations(node: onnx.NodeProto) -> list[str]:
    return list(node.input if node.op_type in {"Add", "Concat"} else node.input[:1])


class _Builder:
    """Makes the nodes and constants of the pairs, and remembers the scales."""

    def __init__(self, target: Int8Target, weights: Mapping[str, onnx.TensorProto]) -> None:
        self.constants: list[onnx.TensorProto] = []
        self._target = target
        self._weights = weights
        self._scales: dict[str, float] = {}

    def add_scale(self, name: str, limits: Range) -> None:
        """Choose the steps of a tensor, and store them."""
        low, high = limits
        zero: np.uint8 | np.int8
        if self._target == "cpu":
            scale = max(high - low, 1e-8) / 255
            zero = np.uint8(round(-low / scale))
        else:
            scale = max(-low, high, 1e-8) / 127
            zero = np.int8(0)
        self._scales[name] = float(np.float32(scale))
        self._constant(f"{name}.scale", np.float32(scale))
        self._constant(f"{name}.zero", zero)

    def pair(self, name: str) -> list[onnx.NodeProto]:
        """Return the two nodes behind a tensor; ``NAME.read`` is what comes out."""
        steps = [f"{name}.scale", f"{name}.zero"]
        return [
            helper.make_node("QuantizeLinear", [name, *steps], [f"{name}.int8"], name=f"{name}.quantise"),
            helper.make_node("DequantizeLinear", [f"{name}.int8", *steps], [f"{name}.read"], name=f"{name}.dequantise"),
        ]

    def weights(self, node: onnx.NodeProto, source: str) -> list[onnx.NodeProto]:
        """Give a convolution integer weights, and on the CPU an integer bias; return the nodes that read them.

        Args:
            node: Changed to read the new constants.
            source: Name of the tensor that it convolves.
        """
        axis = 1 if node.op_type == "ConvTranspose" else 0  # of the output channels
        weight = numpy_helper.to_array(self._weights[node.input[1]])
        others = tuple(side for side in range(weight.ndim) if side != axis)
        scale = np.maximum(np.abs(weight).max(others), 1e-20) / LARGEST_WEIGHT[self._target]
        bias = None
        if self._target == "cpu" and len(node.input) > 2:
            bias = numpy_helper.to_array(self._weights[node.input[2]]).astype(np.float64)
            # A channel of tiny weights and a large bias, as folding leaves, is its bias.
            scale = np.maximum(scale, np.abs(bias) / (self._scales[source] * LARGEST_BIAS))
        scale = scale.astype(np.float32)
        steps = np.rint(weight / np.expand_dims(scale, others)).astype(np.int8)
        nodes = [self._read_constant(node, 1, steps, scale, axis)]
        if bias is not None:
            unit = np.float32(self._scales[source]) * scale
            nodes.append(self._read_constant(node, 2, np.rint(bias / unit).astype(np.int32), unit, 0))
        return nodes

    def _read_constant(
        self,
        node: onnx.NodeProto,
        position: int,
        steps: NDArray[np.int8] | NDArray[np.int32],
        scale: NDArray[np.float32],
        axis: int,
    ) -> onnx.NodeProto:
        # Named after the node: equal biases are one initialiser in the file, in steps of two sizes here.
        name = f"{node.name}.{'weight' if position == 1 else 'bias'}"
        inputs = [f"{name}.int", f"{name}.scale", f"{name}.zero"]
        for constant, value in zip(inputs, (steps, scale, np.zeros(len(scale), steps.dtype)), strict=True):
            self._constant(constant, value)
        node.input[position] = f"{name}.read"
        return helper.make_node("DequantizeLinear", inputs, [f"{name}.read"], name=f"{name}.dequantise", axis=axis)

    def _constant(self, name: str, value: NDArray[np.generic] | np.generic) -> None:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
