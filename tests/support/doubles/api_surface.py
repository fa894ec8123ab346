"""What the real Python classes of TensorRT and cuda.core have: methods, their arguments, properties, enums.

TensorRT's bindings are a wheel of their own, but load three libraries of some GB. Here three stubs stand for them, so
that the classes can be looked at, in a process of their own; none can be used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import build_cache

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

_DUMP_TENSORRT = """
import json, tensorrt_bindings
from cornernet_bench.selftest.api_surface import tensorrt_surface
print(json.dumps(tensorrt_surface(tensorrt_bindings)))
"""
_DUMP_CUDA = """
import json
from cornernet_bench.selftest.api_surface import cuda_surface
print(json.dumps(cuda_surface()))
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


def tensorrt_surface() -> dict:
    """Return the surface of TensorRT's Python bindings, importing them over stubs."""
    bindings = os.environ.get(VARIABLE)
    major = _major(bindings)
    texts, commands = {}, []
    for library, symbols in _STUBS.items():
        source, name = f"{library}.c", f"{library}.so.{major}"
        texts[source] = "".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in symbols)
        commands.append(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", name, source])
    folder = build_cache.build([commands], [command[-2] for command in commands], texts)
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
