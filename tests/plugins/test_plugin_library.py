"""The library of TensorRT plugins, built for the CPU: in NVIDIA's own registry it answers and pools as it should.

With CORNERNET_PLUGIN set, as ctest does, the library that it names is walked too, but for pooling, which needs a GPU.
"""

import os
import subprocess
import sys
from pathlib import Path

import build_cache
import numpy as np
import pytest
from host import host_cuda, plugin_host

from cornernet_runtime.plugin import PLUGIN_VARIABLE, PluginInfo, plugin_info
from cornernet_runtime.version import __version__

pytestmark = pytest.mark.skipif(plugin_host.why_not() is not None, reason=str(plugin_host.why_not()))

NAMES = ["TopLeftPool", "BottomRightPool"]
BUILT = os.environ.get(PLUGIN_VARIABLE)
every_library = pytest.mark.parametrize("which", ["for the CPU", "built"])


@pytest.fixture(scope="module")
def trt():
    """NVIDIA's lean runtime, which has a registry of plugins and imports without a GPU."""
    pytest.importorskip("tensorrt_lean_libs", reason="pip install tensorrt-lean-cu13-libs tensorrt-lean-cu13-bindings")
    there = pytest.importorskip("tensorrt_lean_bindings", reason="pip install tensorrt-lean-cu13-bindings")
    version = plugin_host.tensorrt_major(plugin_host.tensorrt_headers())
    if int(there.__version__.partition(".")[0]) != version:
        pytest.skip(f"the headers are of TensorRT {version}, the lean runtime is {there.__version__}")
    return there


@pytest.fixture(scope="module")
def libnvinfer(trt):  # noqa: ARG001 - skips where there is none
    return next(Path(sys.modules["tensorrt_lean_libs"].__file__).parent.glob("libnvinfer_lean.so.*"))


@pytest.fixture(scope="module")
def plain():
    return plugin_host.build_library(["-O1"])


@pytest.fixture(scope="module")
def sanitized():
    # vptr compares types by address, and those of a library that hides its names differ.
    flags = [*host_cuda.ADDRESS, "-fno-sanitize=vptr"]
    return plugin_host.build_library(flags), plugin_host.build_harness(flags)


@pytest.fixture
def library(which, request):
    if which == "for the CPU":
        return request.getfixturevalue("plain")
    if BUILT is None:
        pytest.skip(f"{PLUGIN_VARIABLE} names no library built by CMake")
    return Path(BUILT)


@pytest.fixture
def registry(trt, plain):
    there = trt.get_plugin_registry()
    handle = there.load_library(str(plain))
    assert handle is not None
    yield there
    there.deregister_library(handle)


def walk(harness, library, *arguments, **environment):
    done = subprocess.run(  # noqa: S603 - built here
        [harness, library, __version__, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("what", ["interfaces", "enqueue"])
def test_plugins_answer_and_pool_under_the_sanitizers(sanitized, what):
    library, harness = sanitized
    status, told = walk(harness, library, what)
    assert status == 0, told
    assert " 0 failed" in told


@pytest.mark.parametrize("what", ["interfaces", "enqueue"])
def test_plugins_out_of_the_real_registry_answer_and_pool(plain, sanitized, libnvinfer, what):
    status, told = walk(sanitized[1], plain, what, libnvinfer, ASAN_OPTIONS="detect_leaks=0")  # not ours alone
    assert status == 0, told
    assert " 0 failed" in told


@pytest.mark.skipif(BUILT is None, reason=f"{PLUGIN_VARIABLE} names no library built by CMake")
def test_built_library_answers_out_of_the_real_registry(sanitized, libnvinfer):
    status, told = walk(sanitized[1], BUILT, "interfaces", libnvinfer, ASAN_OPTIONS="detect_leaks=0")
    assert status == 0, told


@every_library
def test_library_shows_two_functions_and_needs_no_tensorrt_and_no_cuda(library):
    shown = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout  # noqa: S603, S607
    assert sorted(line.split()[-1] for line in shown.splitlines()) == ["getCreators", "setLoggerFinder"]
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout  # noqa: S603, S607
    assert "NEEDED" in needed
    assert not [name for name in ("nvinfer", "cuda", "cudart") if name in needed]


@every_library
def test_version_is_read_without_loading_the_library(library):
    assert plugin_info(library) == PluginInfo(__version__, plugin_host.tensorrt_major(plugin_host.tensorrt_headers()))


@pytest.mark.parametrize("headers", [plugin_host.tensorrt_headers(), *plugin_host.more_headers()], ids=str)
def test_one_source_compiles_against_each_version_of_the_headers(headers):
    commands = [plugin_host.plugin_command(unit, ["-fsyntax-only"], headers) for unit in plugin_host.PLUGIN_UNITS]
    assert build_cache.printed([commands]) == ""


@pytest.fixture(scope="module")
def foreign():
    """A library built for another major version of TensorRT, where the headers of one are at hand."""
    mine = plugin_host.tensorrt_major(plugin_host.tensorrt_headers())
    others = [headers for headers in plugin_host.more_headers() if plugin_host.tensorrt_major(headers) != mine]
    if not others:
        pytest.skip("CORNERNET_TENSORRT_ROOTS names no headers of another major version")
    return plugin_host.build_library(["-O0"], others[0])


def test_library_for_another_tensorrt_gives_no_plugins_and_says_so(trt, foreign, capfd):
    registry = trt.get_plugin_registry()
    registry.load_library(str(foreign))
    assert registry.get_creator("TopLeftPool", "1", "cornernet") is None
    built_for, here = plugin_info(foreign).tensorrt, trt.__version__.partition(".")[0]
    assert f"expected TensorRT {built_for}, for which it was built, got {here}" in capfd.readouterr().err


def fields_of(trt, **values):
    fields = [trt.PluginField(name, np.array(value), kind) for name, (value, kind) in values.items()]
    return trt.PluginFieldCollection(fields)


@pytest.mark.parametrize("name", NAMES)
def test_registry_has_the_creators(registry, name):
    creator = registry.get_creator(name, "1", "cornernet")
    assert (creator.name, creator.plugin_version, creator.plugin_namespace) == (name, "1", "cornernet")
    assert creator.interface_info.kind == "PLUGIN CREATOR_V3ONE"
    assert len(creator.field_names) == 0
    assert registry.get_creator(name, "2", "cornernet") is None
    assert registry.get_creator(name, "1", "") is None


@pytest.mark.parametrize("name", NAMES)
def test_plugin_out_of_the_registry_describes_itself(trt, registry, name):
    creator = registry.get_creator(name, "1", "cornernet")
    plugin = creator.create_plugin("pool", trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD)
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    build = plugin.get_capability_interface(trt.PluginCapabilityType.BUILD)
    assert (core.plugin_name, core.plugin_version, core.plugin_namespace) == (name, "1", "cornernet")
    assert build.num_outputs == 1
    assert build.timing_cache_id == f"{name} {__version__}"
    assert build.metadata_string.startswith(f"cornernet_plugins version {__version__} for TensorRT ")
    assert plugin.get_capability_interface(trt.PluginCapabilityType.RUNTIME) is not None


@pytest.mark.parametrize("corner", [0, 1], ids=NAMES)
def test_serialised_field_makes_the_plugin_of_its_corner_alone(trt, registry, capfd, corner):
    fields = fields_of(trt, corner=(np.int32([corner]), trt.PluginFieldType.INT32))
    mine, other = (registry.get_creator(NAMES[i], "1", "cornernet") for i in (corner, 1 - corner))
    assert mine.create_plugin("pool", fields, trt.TensorRTPhase.RUNTIME) is not None
    assert capfd.readouterr().err == ""
    assert other.create_plugin("pool", fields, trt.TensorRTPhase.RUNTIME) is None
    assert f"expected field 'corner' to be {1 - corner}, got {corner}" in capfd.readouterr().err


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("field", "value", "kind", "reason"),
    [
        ("radius", np.int32([0]), "INT32", "expected no field but 'corner', got 'radius'"),
        ("", np.int32([0]), "INT32", "expected no field but 'corner', got ''"),
        ("corner", np.float32([0]), "FLOAT32", "to be 1 int32"),
        ("corner", np.int32([0, 0]), "INT32", "to be 1 int32"),
        ("corner", np.int32([]), "INT32", "to be 1 int32"),
        ("corner", np.int32([7]), "INT32", "got 7"),
    ],
    ids=str,
)
@pytest.mark.parametrize("phase", ["BUILD", "RUNTIME"])
def test_wrong_fields_give_no_plugin_and_a_reason(trt, registry, capfd, name, field, value, kind, reason, phase):
    creator = registry.get_creator(name, "1", "cornernet")
    fields = fields_of(trt, **{field: (value, getattr(trt.PluginFieldType, kind))})
    assert creator.create_plugin("pool", fields, getattr(trt.TensorRTPhase, phase)) is None
    told = capfd.readouterr().err
    assert told.startswith(f"{name}: expected")
    assert reason in told


def test_library_can_be_loaded_again_after_it_was_given_back(trt, plain):
    registry = trt.get_plugin_registry()
    for _ in range(3):
        handle = registry.load_library(str(plain))
        assert handle is not None
        assert registry.get_creator("TopLeftPool", "1", "cornernet") is not None
        registry.deregister_library(handle)
        assert registry.get_creator("TopLeftPool", "1", "cornernet") is None


OPEN = """
import ctypes, sys
if sys.argv[2] == "after":
    import tensorrt_lean_libs, tensorrt_lean_bindings as trt
ctypes.CDLL(sys.argv[1])
import tensorrt_lean_libs, tensorrt_lean_bindings as trt
names = [(c.name, c.plugin_namespace) for c in trt.get_plugin_registry().all_creators]
print(sorted(name for name, space in names if space == "cornernet"))
"""


@every_library
@pytest.mark.parametrize(
    ("asked", "when", "found", "told"),
    [
        ("1", "after", sorted(NAMES), ""),
        ("1", "before", [], "to be loaded before this library, found none"),
        ("0", "after", [], ""),
        ("", "after", [], ""),
    ],
)
def test_library_registers_itself_only_when_asked(trt, library, asked, when, found, told):  # noqa: ARG001 - skips
    environment = os.environ | {"CORNERNET_REGISTER_PLUGINS": asked}
    command = [sys.executable, "-c", OPEN, library, when]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - fixed
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(found)
    assert told in done.stderr
    assert bool(told) == bool(done.stderr)
