"""TensorRT without TensorRT: doubles of its classes that act as their documentation says, with ONNX Runtime inside.

A plan is a JSON text that names the ONNX file. What the real library does when something is wrong, a test tells
``TensorRT`` to do. Rules of the real library that a user can break are kept: a graph whose context was changed after
capture, a capture before the first run, a shape outside the profile, a logger whose base was not initialised.
"""

from __future__ import annotations

import ctypes
import json

import numpy as np
import onnxruntime as ort
from doubles.checked import Checked, CheckedClass, SurfaceError, module, subclassable
from doubles.tensorrt_builder import Builder, Parser
from noise import rounding

FLOAT = np.dtype(np.float32)


class TensorRT:
    """What a test says about TensorRT; attributes are what it may change.

    Attributes:
        takes_plugins: Whether the parser takes registered plugins for the pools.
        registered: Names of registered plugin creators.
        library_creators: Names that a plugin library brings; none makes load_library return None.
        parser_errors: node name, operator, description and function stack, each.
        build_errors: What is logged when no engine is built; None builds one.
        start_errors: What is logged when Builder or Runtime cannot be made; None makes them.
        starts_broken: Whether they are made all the same then, as those of 11.4 are without a driver.
        read_errors: What is logged when a plan is not read; None reads it.
        describe: Given a profile's number, the inspector's JSON.
        phases: Called as each step of a build is complete, to interrupt it.
        error: Added to every output, relative to its largest value.
    """

    def __init__(self, surface, gpu):
        self.surface, self.gpu = surface, gpu
        self.version = surface.version
        self.takes_plugins, self.registered = True, set()
        self.library_creators = ("TopLeftPool", "BottomRightPool")
        self.parser_errors = self.build_errors = self.start_errors = self.read_errors = None
        self.starts_broken = False
        self.extra_plugin_layers = 0
        self.phases = lambda: None
        self.error = 0.0
        self.half = False
        self.describe = self._describe
        self.measured = "conv 1"
        self.sessions = {}
        self.configs = []
        self.monitor_threads = set()

    def module(self):
        """Return what stands for the module ``tensorrt``."""
        surface = self.surface
        contents = {name: values for name, values in surface.enums.items() if "." not in name}
        contents |= {name: subclassable(surface, name) for name in ("ILogger", "IProgressMonitor")}
        contents |= {
            "__version__": self.version,
            "Builder": CheckedClass(surface, "Builder", lambda logger: self._start(Builder(self, logger), logger)),
            "Runtime": CheckedClass(surface, "Runtime", lambda logger: self._start(_Runtime(self, logger), logger)),
            "OnnxParser": CheckedClass(surface, "OnnxParser", lambda network, logger: Parser(self, network, logger)),
            "get_plugin_registry": self._registry,
        }
        return module("tensorrt", contents)

    def log(self, logger, lines, severity="ERROR"):
        for line in lines or ():
            logger.log(self.surface.enums["ILogger.Severity"][severity], line)

    def checked(self, kind, acts):
        return Checked(self.surface, kind, acts)

    def _start(self, thing, logger):
        if not getattr(logger, "made", False):
            raise TypeError("ILogger.__init__() must be called when overriding __init__")
        if self.start_errors is not None:
            self.log(logger, self.start_errors)
            if not self.starts_broken:
                raise TypeError("pybind11::init(): factory function returned nullptr")
        return thing

    def _registry(self):
        self.surface.check_function("get_plugin_registry")
        return self.checked("IPluginRegistry", _Registry(self))

    def _describe(self, _number):
        precision = "FP16" if self.half else "FP32"
        tensor = {"Name": "x", "Dimensions": [1, 8, 16, 24], "Format/Datatype": f"Row major linear {precision} format"}
        last = {**tensor, "Format/Datatype": "Row major linear FP32"}
        kinds = ["Reformat", "CaskConvolution", *(["PluginV3"] * 2 if self.registered else [])]
        layers = [{"Name": kind, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor]} for kind in kinds]
        layers.append({"Name": "cast", "LayerType": "Cast", "Inputs": [tensor], "Outputs": [last]})
        return json.dumps({"Layers": layers, "Bindings" if self.version.startswith("10") else "I/O Tensors": ["image"]})


class _Registry:
    def __init__(self, trt):
        self._trt = trt

    def load_library(self, plugin_path):
        del plugin_path
        if not self._trt.library_creators or self._trt.registered:
            return None
        self._trt.registered |= set(self._trt.library_creators)
        return object()

    def get_creator(self, type, version, plugin_namespace=""):  # noqa: A002 - the real name
        known = type in self._trt.registered and (version, plugin_namespace) == ("1", "cornernet")
        return object() if known else None


class _Runtime:
    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine):
        if self._trt.read_errors is not None:
            self._trt.log(self._logger, self._trt.read_errors)
            return None
        return self._trt.checked("ICudaEngine", _Engine(self._trt, json.loads(bytes(serialized_engine))))


class _Engine:
    def __init__(self, trt, plan):
        self._trt, self._plan = trt, plan
        self._session = trt.sessions.get(plan["model"])
        if self._session is None:
            options = ort.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = trt.sessions[plan["model"]] = ort.InferenceSession(plan["model"], options)
        self._tensors = {one.name: one for one in (*self._session.get_inputs(), *self._session.get_outputs())}
        self.num_io_tensors = len(self._tensors)
        self.num_optimization_profiles = len(plan["profiles"])
        self.device_memory_size_v2 = 4096

    def get_tensor_name(self, index):
        return list(self._tensors)[index]

    def get_tensor_mode(self, name):
        modes = self._trt.surface.enums["TensorIOMode"]
        return modes.INPUT if name == "image" else modes.OUTPUT

    def get_tensor_dtype(self, name):
        kinds = self._trt.surface.enums["DataType"]
        return kinds.FLOAT if self._tensors[name].type == "tensor(float)" else kinds.HALF

    def get_tensor_shape(self, name):
        return [side if isinstance(side, int) else -1 for side in self._tensors[name].shape]

    def get_tensor_profile_shape(self, name, profile_index):
        assert name == "image"
        return self._plan["profiles"][profile_index]

    def create_execution_context(self, strategy=None):
        return self._trt.checked("IExecutionContext", _Context(self._trt, self, strategy))

    def create_engine_inspector(self):
        return self._trt.checked("EngineInspector", _Inspector(self._trt))


class _Inspector:
    def __init__(self, trt):
        self._trt = trt
        self.execution_context = None

    def get_engine_information(self, format):  # noqa: A002 - the real name
        assert format == self._trt.surface.enums["LayerInformationFormat"].JSON
        context = self.execution_context
        if context is None or context._acts._shape is None:
            tensor = {"Name": "x", "Format/Datatype": "N/A due to dynamic shapes"}
            return json.dumps({"Layers": [{"Name": "a", "LayerType": "NoOp", "Inputs": [], "Outputs": [tensor]}]})
        return self._trt.describe(context._acts._number)


class _Context:
    def __init__(self, trt, engine, strategy):
        self._trt, self._engine, self._strategy = trt, engine, strategy
        self._number, self._shape, self._addresses = 0, None, {}
        self._memory = None
        self._changes, self._flushed = 0, -1
        self.nvtx_verbosity = None

    def _changed(self):
        self._changes += 1
        return True

    def set_device_memory(self, memory, size):
        assert memory % 16 == 0
        assert size >= self._engine.device_memory_size_v2
        self._memory = memory
        self._changed()

    def set_optimization_profile_async(self, profile_index, stream_handle):
        assert int(stream_handle) in self._trt.gpu.streams, "not a stream that was made"
        self._number = profile_index
        return self._changed()

    def set_input_shape(self, name, shape):
        assert name == "image"
        low, _, high = self._engine._plan["profiles"][self._number]
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            return False
        self._shape = tuple(shape)
        return self._changed()

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return self._changed()

    def infer_shapes(self):
        return [] if self._shape else ["image"]

    def get_tensor_shape(self, name):
        count, _, height, width = self._shape
        return [count, self._engine.get_tensor_shape(name)[1], (height + 1) // 4, (width + 1) // 4]

    def execute_async_v3(self, stream_handle):
        gpu, version = self._trt.gpu, self._changes
        if self._strategy is not None and self._strategy.name == "USER_MANAGED" and self._memory is None:
            raise SurfaceError("an execution context without memory was run")
        if set(self._addresses) != set(self._engine._tensors):
            return False
        if gpu.streams[int(stream_handle)]._recorded is not None and self._flushed != version:
            gpu.captures_fail = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"  # the put-off preparation cannot be captured
        self._flushed = version
        gpu.enqueue(int(stream_handle), lambda: self._compute(version))
        return True

    def _compute(self, version):
        if version != self._changes:
            raise SurfaceError("a graph was launched whose context was changed after its capture")
        image = _array(self._addresses["image"], self._shape)
        names = [one.name for one in self._engine._session.get_outputs()]
        outputs = rounding.asked_for(self._engine._session.run(names, {"image": image}), image, "tensorrt")
        for name, found in zip(names, outputs, strict=True):
            _array(self._addresses[name], found.shape)[:] = found + self._trt.error * np.abs(found).max()


def _array(address, shape):
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
