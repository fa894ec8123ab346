"""What Triton gives to a Python model, with ONNX Runtime in place of the models that it calls.

Names, arguments and rules are those of triton_python_backend_utils.py and pb_stub.cc of Triton's python_backend, and of
how its core checks requests against config.pbtxt. Only what the real module has is here.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from types import ModuleType

import numpy as np
import onnxruntime as ort
import pytest
from noise import rounding

model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient")
json_format = pytest.importorskip("google.protobuf.json_format")
text_format = pytest.importorskip("google.protobuf.text_format")

OURS = "cornernet_runtime.backends.onnxruntime"
TYPES = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8, "TYPE_INT64": np.int64, "TYPE_INT32": np.int32}


def read_config(path):
    """Return a config.pbtxt as Triton's own definition reads it; an unknown field or member raises."""
    return text_format.Parse(path.read_text(encoding="utf-8"), model_config.ModelConfig())


def type_name(tensor):
    return model_config.DataType.Name(tensor.data_type)


def check_shape(shape, config, port):
    """Assert that Triton's core would let a tensor of this shape through."""
    dims = list(port.dims)
    if config.max_batch_size:
        assert 1 <= shape[0] <= config.max_batch_size, f"{port.name}: batch {shape[0]} of {config.max_batch_size}"
        shape = shape[1:]
    fits = len(dims) == len(shape) and all(dim in (-1, side) for dim, side in zip(dims, shape, strict=True))
    assert fits, f"{port.name}: {list(shape)} for {dims}"


class Tensor:
    def __init__(self, name, array):
        assert isinstance(name, str)
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, np.ascontiguousarray(array)

    def name(self):
        return self._name

    def as_numpy(self):
        return self._array


class TritonError:
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG = range(4)

    def __init__(self, message, code=INTERNAL):
        assert isinstance(message, str)
        self._message, self._code = message, code

    def message(self):
        return self._message

    def code(self):
        return self._code


class InferenceResponse:
    def __init__(self, output_tensors=(), error=None):
        assert error is None or isinstance(error, TritonError)
        self._tensors, self._error = list(output_tensors), error
        assert all(isinstance(tensor, Tensor) for tensor in self._tensors)

    def output_tensors(self):
        return self._tensors

    def has_error(self):
        return self._error is not None

    def error(self):
        return self._error


class PreferredMemory:
    def __init__(self, preferred_memory_type, preferred_device_id=0):
        self.kind, self.device = preferred_memory_type, preferred_device_id


class Triton:
    """A Triton that has loaded a repository.

    Attributes:
        repository: Its folder.
        calls: Model and shape of the input of each call from model to model.
    """

    def __init__(self, repository):
        self.repository, self.calls, self._sessions = repository, [], {}

    def utils(self):
        """Return what stands for the module ``triton_python_backend_utils``."""
        triton = self

        class InferenceRequest:
            def __init__(self, *, inputs, requested_output_names, model_name, preferred_memory):
                assert preferred_memory.kind == "CPU"
                self._inputs, self._names, self._model = inputs, requested_output_names, model_name

            def inputs(self):
                return self._inputs

            def exec(self):
                return triton.run(self._model, self._inputs, self._names)

        module = ModuleType("triton_python_backend_utils")
        for name, value in {
            "Tensor": Tensor,
            "TritonError": TritonError,
            "InferenceResponse": InferenceResponse,
            "InferenceRequest": InferenceRequest,
            "PreferredMemory": PreferredMemory,
            "TRITONSERVER_MEMORY_CPU": "CPU",
            "get_input_tensor_by_name": lambda request, name: next(
                (tensor for tensor in request.inputs() if tensor.name() == name), None
            ),
        }.items():
            setattr(module, name, value)
        return module

    def run(self, model, inputs, names):
        """Run a model's ONNX file as Triton's ONNX Runtime backend does."""
        folder = self.repository / model
        if not (folder / "1" / "model.onnx").is_file():
            return InferenceResponse(
                error=TritonError(f"Failed for execute the inference request. {model} is not ready")
            )
        config = read_config(folder / "config.pbtxt")
        (tensor,), (port,) = inputs, config.input
        assert tensor.name() == port.name
        assert tensor.as_numpy().dtype == TYPES[type_name(port)]
        check_shape(tensor.as_numpy().shape, config, port)
        self.calls.append((model, tensor.as_numpy().shape))
        if model not in self._sessions:
            self._sessions[model] = ort.InferenceSession(
                folder / "1" / "model.onnx", providers=["CPUExecutionProvider"]
            )
        outputs = self._sessions[model].run(names, {port.name: tensor.as_numpy()})
        outputs = rounding.asked_for(outputs, tensor.as_numpy(), OURS)  # which rounds as it does
        return InferenceResponse([Tensor(name, array) for name, array in zip(names, outputs, strict=True)])


class Request:
    """A request of a client: input arrays by name."""

    def __init__(self, **arrays):
        self._tensors = [Tensor(name, array) for name, array in arrays.items()]

    def inputs(self):
        return self._tensors


class FrontModel:
    """The Python model of a repository, loaded from its ``model.py`` as Triton's stub does."""

    def __init__(self, repository, monkeypatch):
        self.triton = Triton(repository)
        (folder,) = (path for path in repository.iterdir() if not path.name.endswith("_network"))
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", self.triton.utils())
        self.config = read_config(folder / "config.pbtxt")
        self._model = load_model(folder / "1" / "model.py").TritonPythonModel()
        text = json_format.MessageToJson(self.config, preserving_proto_field_name=True)
        self._model.initialize({"model_config": text, "model_repository": str(folder), "model_version": "1"})

    def __call__(self, *requests):
        """Return the outputs of each request by name, or its error; as Triton, hold both against the configuration."""
        for request in requests:
            for tensor in request.inputs():
                (port,) = (port for port in self.config.input if port.name == tensor.name())
                assert tensor.as_numpy().dtype == TYPES.get(type_name(port), object)
                check_shape(tensor.as_numpy().shape, self.config, port)
        responses = self._model.execute(list(requests))
        assert len(responses) == len(requests)
        return [response.error() or self._outputs(response) for response in responses]

    def _outputs(self, response):
        outputs = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        assert sorted(outputs) == sorted(port.name for port in self.config.output)
        for port in self.config.output:
            assert outputs[port.name].dtype == TYPES[type_name(port)]
            check_shape(outputs[port.name].shape, self.config, port)
        return outputs

    def close(self):
        self._model.finalize()


def load_model(path):
    spec = importlib.util.spec_from_file_location("model", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def class_names(config):
    return tuple(json.loads(config.parameters["class_names"].string_value))
