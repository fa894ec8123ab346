"""From an ONNX file to a TensorRT network: parsed, its plugin layers counted, its shapes given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx

from cornernet_runtime.backends.tensorrt_plugin import NAMESPACE
from cornernet_runtime.bundle.engine_record import EngineProfile
from cornernet_runtime.errors import EngineError
from cornernet_runtime.processing.maps import INPUT_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from cornernet_runtime.backends.tensorrt_log import Remarks
    from cornernet_runtime.bundle.engine_record import Shape
    from cornernet_runtime.bundle.spec import ModelSpec, Size


@dataclass(frozen=True, slots=True)
class ParsedNetwork:
    """A ``tensorrt.INetworkDefinition``, and its parser, which owns the weights until the engine is built."""

    network: Any
    parser: Any


def parse_network(trt: Any, builder: Any, path: Path, remarks: Remarks) -> ParsedNetwork:  # noqa: ANN401 - an extra
    """Return the strongly typed network of an ONNX file: every tensor is of the type that the file says.

    Raises:
        EngineError: TensorRT does not understand the file; the node and the reason are named.
    """
    # TensorRT 11 knows no other kind of network and keeps the flag; in 10 it must be asked for. Its number differs.
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = remarks.made(builder.create_network(flags), "TensorRT cannot make a network")
    parser = remarks.construct(trt.OnnxParser, network, remarks.logger)
    # By its path, so that weights beside the file are found.
    if not parser.parse_from_file(str(path)):
        problems = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
        raise EngineError(f"{path}: TensorRT cannot read it: {'; '.join(problems) or remarks.reason()}")
    return ParsedNetwork(network, parser)


def count_pools(path: Path) -> int:
    """Return how many corner pools the graph of an ONNX file has, each of which the plugin should compute."""
    graph = onnx.load(path, load_external_data=False).graph
    return sum(node.domain == NAMESPACE for node in graph.node)


def count_plugin_layers(trt: Any, network: Any) -> int:  # noqa: ANN401
    """Return how many layers of a network are plugins."""
    kinds = [network.get_layer(index).type for index in range(network.num_layers)]
    return sum(kind == trt.LayerType.PLUGIN_V3 for kind in kinds)


def profiles_of(spec: ModelSpec) -> tuple[EngineProfile, ...]:
    """Return what an engine of a model accepts: one profile a size, or one for all sizes where any goes."""

    def shape(batch: int, size: Size) -> Shape:
        return batch, 3, *size

    smallest, usual, most = spec.batch
    if spec.dynamic:
        least = spec.modulus - 1, spec.modulus - 1
        sizes = [(least, spec.input_size, spec.largest_size)]
    else:
        sizes = [(size, size, size) for size in spec.sizes]
    return tuple(
        EngineProfile(shape(smallest, low), shape(usual, middle), shape(most, high)) for low, middle, high in sizes
    )


def add_profiles(builder: Any, config: Any, profiles: tuple[EngineProfile, ...]) -> None:  # noqa: ANN401
    """Give a builder's configuration the profiles.

    Raises:
        EngineError: TensorRT does not take one.
    """
    for profile in profiles:
        entry = builder.create_optimization_profile()
        entry.set_shape(INPUT_NAME, profile.minimum, profile.optimum, profile.maximum)
        if config.add_optimization_profile(entry) < 0:
            raise EngineError(f"TensorRT refuses the input shapes {profile}")


def _describe(error: Any) -> str:  # noqa: ANN401
    """Return where in the file an error of the parser is, and what."""
    name, operator = error.node_name(), error.node_operator()
    inside = "".join(f" in function {function}" for function in error.local_function_stack())
    return f"node {name or error.node()} ({operator or 'unknown operator'}){inside}: {' '.join(error.desc().split())}"
