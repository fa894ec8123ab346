"""What the Python classes of TensorRT and cuda.core have: methods, their arguments, properties, enums.

A surface is plain data. pybind11 gives methods no signature and keeps their arguments in docstrings, from which they
are read here.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

CUDA_CLASSES = ("Device", "Stream", "Event", "Buffer", "LegacyPinnedMemoryResource", "ObjectCode", "Kernel")
CUDA_GRAPH_CLASSES = ("GraphBuilder", "Graph")
DRIVER_FUNCTIONS = (
    *("cuCtxGetCurrent", "cuFuncLoad", "cuKernelGetFunction", "cuLaunchKernel", "cuMemGetInfo"),
    *("cuStreamEndCapture", "cuThreadExchangeStreamCaptureMode"),
)

_OWN_NAMES = re.compile(r"^(tensorrt(_bindings|_lean_bindings)?\.tensorrt\.|nvinfer1::|nvonnxparser::)")

Parameter = dict[str, Any]  # name, type, optional, keyword_only
Surface = dict[str, Any]  # version, classes, functions


def tensorrt_surface(trt: Any) -> Surface:  # noqa: ANN401 - a module that need not be installed
    """Return what a module of TensorRT's bindings has: the real one, or one over stubs of the libraries."""
    kinds = {name: value for name, value in vars(trt).items() if isinstance(value, type)}
    nested = {
        f"{owner.__name__}.{name}": value
        for owner in kinds.values()
        for name, value in vars(owner).items()
        if isinstance(value, type) and hasattr(value, "__members__")
    }
    functions = {
        name: found
        for name, value in vars(trt).items()
        if callable(value) and not isinstance(value, type) and (found := _overloads(name, value.__doc__))
    }
    classes = {name: _pybind_class(kind) for name, kind in {**kinds, **nested}.items()}
    return {"version": trt.__version__, "classes": classes, "functions": functions}


def cuda_surface() -> Surface:
    """Return what cuda.core and the driver's bindings have of the classes and functions that are used here.

    What an installed version lacks is absent, not an error.

    Raises:
        ImportError: cuda.core or the driver's bindings are not installed.
    """
    import cuda.core  # noqa: PLC0415 - an extra
    from cuda.bindings import driver  # noqa: PLC0415
    from cuda.core import utils  # noqa: PLC0415

    try:
        from cuda.core import graph  # noqa: PLC0415
    except ImportError:  # of another version
        graph = None
    found = {name: getattr(cuda.core, name, None) for name in CUDA_CLASSES}
    found |= {name: getattr(graph, name, None) for name in CUDA_GRAPH_CLASSES}
    found["StridedMemoryView"] = getattr(utils, "StridedMemoryView", None)
    classes = {name: _python_class(kind) for name, kind in found.items() if kind is not None}
    # These two are of Cython, and show no signature.
    constructors = {"Device": [[_parameter("device_id", optional=True)]], "LegacyPinnedMemoryResource": [[]]}
    for name, overloads in constructors.items():
        if name in classes:
            classes[name]["methods"]["__init__"] = overloads
    functions = {name: _signature(getattr(driver, name), bound=0) for name in DRIVER_FUNCTIONS if hasattr(driver, name)}
    return {"version": cuda.core.__version__, "classes": classes, "functions": functions}


def _pybind_class(kind: type) -> dict[str, Any]:
    members = getattr(kind, "__members__", None)
    entry: dict[str, Any] = {
        "bases": [base.__name__ for base in kind.__mro__[1:]],
        "methods": {},
        "properties": {},
        "nested": {},
        "members": None if members is None else {name: int(value) for name, value in members.items()},
    }
    for name, value in vars(kind).items():
        if isinstance(value, type):
            if hasattr(value, "__members__"):
                entry["nested"][name] = value.__name__
        elif isinstance(value, property):
            entry["properties"][name] = value.fset is not None
        elif (name == "__init__" or not name.startswith("__")) and (found := _overloads(name, value.__doc__)):
            entry["methods"][name] = found
    return entry


def _overloads(name: str, text: str | None) -> list[list[Parameter]]:
    """Return the parameters of each overload that a docstring of pybind11 lists."""
    found = []
    for line in (text or "").splitlines():
        match = re.match(rf"\s*(?:\d+\. )?{re.escape(name)}\((.*)\) -> ", line)
        if match is None:
            continue
        parameters = []
        for part in _split(match[1]):
            argument, _, default = part.partition(" = ")
            own, _, kind = argument.partition(": ")
            if own != "self":
                parameters.append(_parameter(own, _OWN_NAMES.sub("", kind), optional=bool(default)))
        found.append(parameters)
    return found


def _split(text: str) -> list[str]:
    """Return what stands between the commas of a signature that are within no brackets."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "([{<") - (letter in ")]}>" and text[index - 1] != "-")
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]


def _python_class(kind: type) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "bases": [],
        "methods": {},
        "properties": {},
        "nested": {},
        "members": None,
        "static_methods": [],
    }
    for name in dir(kind):
        value = inspect.getattr_static(kind, name)
        if name.startswith("_"):
            continue
        if inspect.isdatadescriptor(value):
            entry["properties"][name] = False
        elif isinstance(value, (staticmethod, classmethod)):
            entry["methods"][name] = _signature(getattr(kind, name), bound=0)
            if isinstance(value, staticmethod):
                entry["static_methods"].append(name)
        elif callable(value):
            entry["methods"][name] = _signature(value, bound=1)
    return entry


def _signature(function: Any, bound: int) -> list[list[Parameter]]:  # noqa: ANN401
    """Return the one overload of a function of Python, or none where it does not tell."""
    try:
        found = list(inspect.signature(function).parameters.values())[bound:]
    except ValueError:
        return []
    parameters = []
    for one in found:
        keyword_only = one.kind == one.KEYWORD_ONLY
        parameters.append(_parameter(one.name, optional=one.default is not one.empty, keyword_only=keyword_only))
    return [parameters]


def _parameter(name: str, kind: str = "", *, optional: bool = False, keyword_only: bool = False) -> Parameter:
    return {"name": name, "type": kind, "optional": optional, "keyword_only": keyword_only}
