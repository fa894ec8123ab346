"""What the real Python classes of TensorRT and cuda.core have: methods, their arguments, properties, enums.

TensorRT's bindings are a wheel of their own, but load three libraries of some GB. Here three stubs stand for them, so
that the classes can be looked at, in a process of their own; none can be used. pybind11 keeps signatures in docstrings.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

VARIABLE = "CORNERNET_TENSORRT_BINDINGS"  # a folder with tensorrt_bindings of another version, to test against that
_STUBS = {
    "libnvinfer": (
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
        *("getBuilderPluginRegistry", "getPluginRegistry"),
    ),
    "libnvinfer_plugin": ("initLibNvInferPlugins",),
    "libnvonnxparser": (
        *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    ),
}

_DUMP_TENSORRT = r"""
import json, re
import tensorrt_bindings as trt

def split(text):
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "([{<") - (letter in ")]}>" and text[index - 1] != "-")
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]

def overloads(name, doc):
    found = []
    for line in (doc or "").splitlines():
        match = re.match(rf"\s*(?:\d+\. )?{re.escape(name)}\((.*)\) -> ", line)
        if match is None:
            continue
        parameters = []
        for part in split(match[1]):
            argument, _, default = part.partition(" = ")
            own, _, kind = argument.partition(": ")
            if own != "self":
                kind = re.sub(r"^(tensorrt_bindings\.tensorrt\.|nvinfer1::|nvonnxparser::)", "", kind)
                parameters.append({"name": own, "type": kind, "optional": bool(default), "keyword_only": False})
        found.append(parameters)
    return found

def describe(kind):
    members = getattr(kind, "__members__", None)
    entry = {
        "bases": [base.__name__ for base in kind.__mro__[1:]],
        "methods": {}, "properties": {}, "nested": {},
        "members": None if members is None else {name: int(value) for name, value in members.items()},
    }
    for name, value in vars(kind).items():
        if isinstance(value, type):
            if hasattr(value, "__members__"):
                entry["nested"][name] = value.__name__
        elif isinstance(value, property):
            entry["properties"][name] = value.fset is not None
        elif name == "__init__" or not name.startswith("__"):
            found = overloads(name, getattr(value, "__doc__", None))
            if found:
                entry["methods"][name] = found
    return entry

classes = {name: describe(value) for name, value in vars(trt).items() if isinstance(value, type)}
for owner in list(vars(trt).values()):
    if isinstance(owner, type):
        for name, value in vars(owner).items():
            if isinstance(value, type) and hasattr(value, "__members__"):
                classes[f"{owner.__name__}.{name}"] = describe(value)
functions = {
    name: overloads(name, value.__doc__)
    for name, value in vars(trt).items()
    if callable(value) and not isinstance(value, type) and overloads(name, value.__doc__)
}
print(json.dumps({"version": trt.__version__, "classes": classes, "functions": functions}))
"""

_DUMP_CUDA = r"""
import inspect, json
import cuda.core
import cuda.core.graph
from cuda.bindings import driver

def parameters(function, bound):
    found = list(inspect.signature(function).parameters.values())[bound:]
    return [[argument(one.name, one.default is not one.empty, one.kind == one.KEYWORD_ONLY) for one in found]]

def argument(name, optional, keyword_only):
    return {"name": name, "type": "", "optional": optional, "keyword_only": keyword_only}

def describe(kind):
    entry = {"bases": [], "methods": {}, "properties": {}, "nested": {}, "members": None, "static_methods": []}
    for name in dir(kind):
        value = inspect.getattr_static(kind, name)
        if name.startswith("_"):
            continue
        if inspect.isdatadescriptor(value):
            entry["properties"][name] = False
        elif isinstance(value, staticmethod):
            entry["methods"][name] = parameters(getattr(kind, name), 0)
            entry["static_methods"].append(name)
        elif isinstance(value, classmethod):
            entry["methods"][name] = parameters(getattr(kind, name), 0)
        elif callable(value):
            entry["methods"][name] = parameters(value, 1)
    return entry

names = ("Device", "Stream", "Event", "Buffer", "LegacyPinnedMemoryResource", "ObjectCode", "Kernel")
functions = ("cuCtxGetCurrent", "cuFuncLoad", "cuKernelGetFunction", "cuLaunchKernel", "cuMemGetInfo")
classes = {name: describe(getattr(cuda.core, name)) for name in names}
classes |= {name: describe(getattr(cuda.core.graph, name)) for name in ("GraphBuilder", "Graph")}
classes["Device"]["methods"]["__init__"] = [[argument("device_id", True, False)]]
classes["LegacyPinnedMemoryResource"]["methods"]["__init__"] = [[]]
print(json.dumps({
    "version": cuda.core.__version__,
    "classes": classes,
    "functions": {name: parameters(getattr(driver, name), 0) for name in functions},
}))
"""


def why_not() -> str | None:
    """Return why the real classes cannot be looked at here, or None."""
    if not sys.platform.startswith("linux") or os.uname().machine != "x86_64":
        return "TensorRT's bindings are looked at on Linux x86_64 only"
    if shutil.which("gcc") is None:
        return "gcc is needed to compile stubs for TensorRT's libraries"
    names = ["cuda-core", "cuda-bindings", *([] if os.environ.get(VARIABLE) else ["tensorrt-cu13-bindings"])]
    for name in names:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{name} is needed to check calls against the real classes: pip install {name}"
    return None


def tensorrt_surface(folder: Path) -> dict:
    """Return the surface of TensorRT's Python bindings, importing them over stubs that are compiled into ``folder``."""
    bindings = os.environ.get(VARIABLE)
    major = _major(bindings)
    for library, symbols in _STUBS.items():
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols), encoding="utf-8")
        name = f"{library}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own compiler line
    search = os.pathsep.join(filter(None, [bindings, *sys.path]))
    return _dump(_DUMP_TENSORRT, {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": search})


def cuda_surface() -> dict:
    """Return the surface of cuda.core, which can be imported as it is."""
    return _dump(_DUMP_CUDA, {"PYTHONPATH": os.pathsep.join(sys.path)})


def _major(bindings: str | None) -> str:
    if not bindings:
        return metadata.version("tensorrt-cu13-bindings").split(".", maxsplit=1)[0]
    (info,) = Path(bindings).glob("tensorrt_*bindings-*.dist-info")
    return info.name.split("-")[1].split(".")[0]


def _dump(code: str, environment: dict[str, str]) -> dict:
    done = subprocess.run(  # noqa: S603 - this interpreter with our own code
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
