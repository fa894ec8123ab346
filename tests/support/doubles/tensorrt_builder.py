"""Doubles of the classes that build an engine; a test says to ``TensorRT`` of tensorrt_doubles what goes wrong."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace

import onnx


class Builder:
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


class Parser:
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
