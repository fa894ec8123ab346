"""TensorRT without TensorRT: doubles of its classes that act as their documentation says, with ONNX Runtime inside.

A plan is a JSON text that names the ONNX file. What the real library does when something is wrong, a test tells
``TensorRT`` to do. Rules of the real library that a user can break are kept: a graph whose context was changed after
capture, a capture before the first run, a shape outside the profile, a logger whose base was not initialised.
"""

from __future__ import annotations

import ctypes
import json
import threading
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
from doubles.checked import Checked, CheckedClass, SurfaceError, module, subclassable

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
            "Builder": CheckedClass(surface, "Builder", lambda logger: self._start(_Builder(self, logger), logger)),
            "Runtime": CheckedClass(surface, "Runtime", lambda logger: self._start(_Runtime(self, logger), logger)),
            "OnnxParser": CheckedClass(surface, "OnnxParser", lambda network, logger: _Parser(self, network, logger)),
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


class _Builder:
    def __init__(self, trt, logger):
        self._trt, self._logger = trt, logger

    def create_network(self, flags=0):
        strongly_typed = self._trt.surface.enums["NetworkDefinitionCreationFlag"].STRONGLY_TYPED
        assert flags == 1 << int(strongly_typed)
        return self._trt.checked("INetworkDefinition", _Network())

    def create_builder_config(self):
        config = _Config(self._trt)
        self._trt.configs.append(config)
        return self._trt.checked("IBuilderConfig", config)

    def create_optimization_profile(self):
        return self._trt.checked("IOptimizationProfile", _Profile())

    def build_serialized_network(self, network, config):
        trt, acts, monitor = self._trt, config._acts, config._acts.progress_monitor
        assert network._acts._model is not None
        monitor.phase_start("Building Engine", None, 3)

        def steps():
            trt.monitor_threads.add(threading.get_ident())
            for step in range(3):
                trt.phases()
                if not monitor.step_complete("Building Engine", step):
                    return
            monitor.phase_finish("Building Engine")
            results.append(True)

        results = []
        worker = threading.Thread(target=steps)  # as TensorRT, from a thread of its own
        worker.start()
        worker.join()
        acts._cache._acts._entries.add(trt.measured)
        if not results:
            return None
        if trt.build_errors is not None:
            trt.log(self._logger, trt.build_errors)
            return None
        plan = {"model": network._acts._model, "profiles": acts._profiles}
        return trt.checked("IHostMemory", _Memory(json.dumps(plan).encode()))


class _Network:
    def __init__(self):
        self._model = None
        self._kinds = []

    @property
    def num_layers(self):
        return len(self._kinds)

    def get_layer(self, index):
        return SimpleNamespace(type=self._kinds[index])


class _Parser:
    def __init__(self, trt, network, logger):
        assert logger.made
        self._trt, self._network = trt, network

    @property
    def num_errors(self):
        return len(self._trt.parser_errors or ())

    def parse_from_file(self, model):
        if self._trt.parser_errors is not None:
            return False
        kinds = self._trt.surface.enums["LayerType"]
        pools = sum(node.domain == "cornernet" for node in onnx.load(model, load_external_data=False).graph.node)
        taken = pools if self._trt.takes_plugins and self._trt.registered else 0
        plugins = [kinds.PLUGIN_V3] * (taken + self._trt.extra_plugin_layers)
        self._network._acts._kinds = [kinds.CONVOLUTION, *plugins, kinds.ACTIVATION]
        self._network._acts._model = model
        return True

    def get_error(self, index):
        return self._trt.checked("ParserError", _ParserError(*self._trt.parser_errors[index]))


class _ParserError:
    def __init__(self, name, operator, description, functions):
        self._answers = name, operator, description, functions

    def node_name(self):
        return self._answers[0]

    def node(self):
        return 7

    def node_operator(self):
        return self._answers[1]

    def desc(self):
        return self._answers[2]

    def local_function_stack(self):
        return list(self._answers[3])


class _Config:
    def __init__(self, trt):
        self._trt = trt
        self._flags = {trt.surface.enums["BuilderFlag"].TF32}
        self._limits, self._profiles, self._cache = {}, [], None
        self.builder_optimization_level = 3
        self.profiling_verbosity = self.hardware_compatibility_level = self.progress_monitor = None
        self.plugins_to_serialize = []

    def set_memory_pool_limit(self, pool, pool_size):
        self._limits[pool.name] = pool_size

    def set_flag(self, flag):
        self._flags.add(flag)

    def clear_flag(self, flag):
        self._flags.discard(flag)

    def add_optimization_profile(self, profile):
        self._profiles.append(profile._acts._shapes)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache):
        if serialized_timing_cache and not serialized_timing_cache.startswith(b"TIMINGS "):
            return None
        entries = serialized_timing_cache.decode().removeprefix("TIMINGS ").split(";")
        return self._trt.checked("ITimingCache", _TimingCache(self._trt, set(filter(None, entries))))

    def set_timing_cache(self, cache, ignore_mismatch):
        if "other gpu" in cache._acts._entries and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self):
        return self._cache


class _TimingCache:
    def __init__(self, trt, entries):
        self._trt, self._entries = trt, entries

    def combine(self, input_cache, ignore_mismatch):
        if "other gpu" in self._entries and not ignore_mismatch:
            return False
        self._entries |= input_cache._acts._entries
        return True

    def serialize(self):
        return self._trt.checked("IHostMemory", _Memory(f"TIMINGS {';'.join(sorted(self._entries))}".encode()))


class _Profile:
    def __init__(self):
        self._shapes = None

    def set_shape(self, input, min, opt, max):  # noqa: A002 - the real names
        assert input == "image"
        self._shapes = [list(shape) for shape in (min, opt, max)]


class _Memory:
    def __init__(self, content):
        self._content = content

    def __bytes__(self):
        return self._content


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
        for name, found in zip(names, self._engine._session.run(names, {"image": image}), strict=True):
            _array(self._addresses[name], found.shape)[:] = found + self._trt.error * np.abs(found).max()


def _array(address, shape):
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)
