"""What the engine builder and the GPU path use of TensorRT and cuda.core, to be held against the installed versions.

A line is ``Class.method(2, stream)`` for a call with two arguments by position and one by name, ``function(1)``, or
``Class.property`` and ``Enum.MEMBER``. Tests hold the lists against what the code calls.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cornernet_bench.selftest.api_surface import Parameter, Surface

TENSORRT_USES = (
    "Builder.__init__(1)",
    "Builder.build_serialized_network(2)",
    "Builder.create_builder_config()",
    "Builder.create_network(1)",
    "Builder.create_optimization_profile()",
    "BuilderFlag.TF32",
    "BuilderFlag.VERSION_COMPATIBLE",
    "DataType.FLOAT",
    "EngineInspector.execution_context",
    "EngineInspector.get_engine_information(1)",
    "ExecutionContextAllocationStrategy.USER_MANAGED",
    "HardwareCompatibilityLevel.AMPERE_PLUS",
    "HardwareCompatibilityLevel.NONE",
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY",
    "IBuilderConfig.add_optimization_profile(1)",
    "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.clear_flag(1)",
    "IBuilderConfig.create_timing_cache(1)",
    "IBuilderConfig.get_timing_cache()",
    "IBuilderConfig.hardware_compatibility_level",
    "IBuilderConfig.plugins_to_serialize",
    "IBuilderConfig.profiling_verbosity",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_flag(1)",
    "IBuilderConfig.set_memory_pool_limit(2)",
    "IBuilderConfig.set_timing_cache(2)",
    "ICudaEngine.create_engine_inspector()",
    "ICudaEngine.create_execution_context(1)",
    "ICudaEngine.device_memory_size_v2",
    "ICudaEngine.get_tensor_dtype(1)",
    "ICudaEngine.get_tensor_mode(1)",
    "ICudaEngine.get_tensor_name(1)",
    "ICudaEngine.get_tensor_shape(1)",
    "ICudaEngine.num_io_tensors",
    "ICudaEngine.num_optimization_profiles",
    "IExecutionContext.execute_async_v3(1)",
    "IExecutionContext.get_tensor_shape(1)",
    "IExecutionContext.infer_shapes()",
    "IExecutionContext.nvtx_verbosity",
    "IExecutionContext.set_device_memory(2)",
    "IExecutionContext.set_input_shape(2)",
    "IExecutionContext.set_optimization_profile_async(2)",
    "IExecutionContext.set_tensor_address(2)",
    "ILogger.Severity.ERROR",
    "ILogger.Severity.INTERNAL_ERROR",
    "ILogger.Severity.WARNING",
    "ILogger.log(2)",
    "INetworkDefinition.get_layer(1)",
    "INetworkDefinition.num_layers",
    "IOptimizationProfile.set_shape(4)",
    "IPluginRegistry.get_creator(3)",
    "IPluginRegistry.load_library(1)",
    "IProgressMonitor.phase_finish(1)",
    "IProgressMonitor.phase_start(3)",
    "IProgressMonitor.step_complete(2)",
    "ITimingCache.combine(2)",
    "ITimingCache.serialize()",
    "LayerInformationFormat.JSON",
    "LayerType.PLUGIN_V3",
    "MemoryPoolType.WORKSPACE",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "OnnxParser.__init__(2)",
    "OnnxParser.parse_from_file(1)",
    "ProfilingVerbosity.DETAILED",
    "ProfilingVerbosity.NONE",
    "Runtime.__init__(1)",
    "Runtime.deserialize_cuda_engine(1)",
    "Runtime.engine_host_code_allowed",
    "TensorIOMode.INPUT",
    "get_plugin_registry()",
)
CUDA_USES = (
    "Buffer.close()",
    "Buffer.close(1)",
    "Buffer.copy_from(1, stream)",
    "Buffer.from_handle(2)",
    "Buffer.handle",
    "Buffer.size",
    "Device.__init__(1)",
    "Device.allocate(1, stream)",
    "Device.compute_capability",
    "Device.create_event(1)",
    "Device.create_stream()",
    "Device.name",
    "Device.properties",
    "Device.set_current()",
    "Event.close()",
    "Event.sync()",
    "Graph.close()",
    "Graph.launch(1)",
    "GraphBuilder.begin_building(1)",
    "GraphBuilder.close()",
    "GraphBuilder.complete()",
    "GraphBuilder.end_building()",
    "Kernel.handle",
    "LegacyPinnedMemoryResource.__init__()",
    "LegacyPinnedMemoryResource.allocate(1)",
    "ObjectCode.from_cubin(1, name)",
    "ObjectCode.from_ptx(1, name)",
    "ObjectCode.get_kernel(1)",
    "Stream.close()",
    "Stream.create_graph_builder()",
    "Stream.handle",
    "Stream.record(1)",
    "Stream.sync()",
    "Stream.wait(1)",
    "StridedMemoryView.from_any_interface(1, stream_ptr)",
    "cuCtxGetCurrent()",
    "cuFuncLoad(1)",
    "cuKernelGetFunction(1)",
    "cuLaunchKernel(11)",
    "cuMemGetInfo()",
    "cuStreamEndCapture(1)",
    "cuThreadExchangeStreamCaptureMode(1)",
)

_USE = re.compile(r"(?:(?P<owner>[\w.]+)\.)?(?P<name>\w+)(?:\((?P<arguments>.*)\))?")


def lacking(surface: Surface, uses: Iterable[str]) -> list[str]:
    """Return the uses that an installed version does not allow, each with what it has instead.

    Args:
        surface: Of ``api_surface``.
        uses: Lines as above.
    """
    return [problem for use in uses if (problem := _problem(surface, use))]


def _problem(surface: Surface, use: str) -> str | None:
    match = _USE.fullmatch(use)
    if match is None:
        raise AssertionError(f"no use: {use!r}")
    owner, name, arguments = match["owner"], match["name"], match["arguments"]
    if owner is not None and owner not in surface["classes"]:
        return f"{use}: there is no {owner}"
    if arguments is None:
        entry = surface["classes"][owner]
        found = name in (entry["members"] or ()) or _lookup(surface, owner, "properties", name) is not None
        return None if found else f"{use} is not there"
    overloads = surface["functions"].get(name) if owner is None else _lookup(surface, owner, "methods", name)
    if overloads is None:
        return f"{use} is not there"
    if not overloads or any(_takes(parameters, arguments) for parameters in overloads):
        return None  # with no overload known, it does not tell
    return f"{use}: takes {' or '.join(_text(parameters) for parameters in overloads)}"


def _lookup(surface: Surface, kind: str, part: str, name: str) -> Any:  # noqa: ANN401
    """Return an entry of a class or of one of its bases, or None."""
    classes = surface["classes"]
    owners = (classes[one] for one in (kind, *classes[kind]["bases"]) if one in classes)
    return next((owner[part][name] for owner in owners if name in owner[part]), None)


def _takes(parameters: list[Parameter], arguments: str) -> bool:
    """Return whether a call of so many arguments by position and such by name can be bound."""
    given = [part for part in arguments.split(", ") if part]
    count = int(given.pop(0)) if given and given[0].isdecimal() else 0
    positional = [one["name"] for one in parameters if not one["keyword_only"]]
    bound = {*positional[:count], *given}
    known = {one["name"] for one in parameters} - {*positional[:count]}
    required = {one["name"] for one in parameters if not one["optional"]}
    return count <= len(positional) and {*given} <= known and required <= bound


def _text(parameters: list[Parameter]) -> str:
    return f"({', '.join(one['name'] + ('=' if one['optional'] else '') for one in parameters)})"
