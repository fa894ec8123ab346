"""Launches through NVIDIA's real Python bindings, on a driver that only writes down what it is told."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import util

import build_cache
import pytest
from places import ROOT

from cornernet_runtime.kernels.preprocess import Preprocessing

with_bindings = pytest.mark.skipif(
    util.find_spec("cuda") is None or shutil.which("gcc") is None or sys.platform != "linux",
    reason="cuda-core, cuda-bindings and gcc are needed to launch on a driver that is none",
)
STREAM = 0x5000


@pytest.fixture(scope="module")
def driver():
    source = ROOT / "tests" / "support" / "host" / "fake_driver.c"
    command = ["gcc", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-o", "libcuda.so.1", source]
    return build_cache.build([[command]], ["libcuda.so.1"])


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def run(driver, cache):
    """Return a function that runs Python code, in which ``LoadedKernels`` is known, on the driver."""

    def run(code, **settings):
        head = "from cornernet_runtime.backends.cuda_device import CudaDevice\n"
        head += "from cornernet_runtime.kernels.device import LoadedKernels\n"
        head += "from cornernet_runtime.kernels.preprocess import preprocess\n"
        environment = {"LD_LIBRARY_PATH": driver, "CORNERNET_CACHE": cache, "PYTHONPATH": ROOT / "runtime", **settings}
        done = subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-c", head + textwrap.dedent(code)],
            env={**os.environ, **{name: str(value) for name, value in environment.items()}},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.splitlines(), done.stderr

    return run


LAUNCH = f"LoadedKernels(CudaDevice()).launch(preprocess(11, 22, 33, (2, 3, 511, 767), half=True), {STREAM})"


@with_bindings
def test_a_launch_reaches_the_driver_as_it_is_described(run):
    lines, errors = run(LAUNCH, FAKE_PARAMETER_BYTES=ctypes.sizeof(Preprocessing))
    parameters = bytes(Preprocessing(11, 22, 33, 511, 767)).hex()
    assert lines == ["load cubin", f"launch preprocessHalf 6 511 2 128 1 1 0 {STREAM} {parameters}"], errors


@with_bindings
def test_a_source_is_loaded_once(run):
    code = f"""
        device = LoadedKernels(CudaDevice())
        device.prepare(["preprocess", "preprocess"])
        for half in (False, True, False):
            device.launch(preprocess(11, 22, 33, (1, 3, 5, 5), half=half), {STREAM})
        """
    lines, errors = run(code)
    words = [line.split()[:2] for line in lines]
    kernels = ["preprocessFloat", "preprocessHalf", "preprocessFloat"]
    assert words == [["load", "cubin"], *(["launch", kernel] for kernel in kernels)], errors


@with_bindings
def test_the_device_tells_what_it_is(run):
    lines, errors = run("device = CudaDevice()\nprint(device.capability, device.multiprocessors)", FAKE_CAPABILITY=89)
    assert lines == ["(8, 9) 132"], errors


@with_bindings
def test_a_gpu_newer_than_nvrtc_gets_ptx(run):
    lines, errors = run(LAUNCH, FAKE_CAPABILITY=190)
    assert lines[0] == "load ptx", errors
    assert lines[1].startswith("launch preprocessHalf")


@with_bindings
@pytest.mark.parametrize(
    ("code", "settings", "message"),
    [
        (LAUNCH, {"FAKE_CAPABILITY": 70}, "this GPU has compute capability 7.0, the kernels need 7.5"),
        (LAUNCH, {"FAKE_REFUSES_CODE": 1}, "the driver refuses preprocess for sm_90: what the driver says"),
        ("CudaDevice(1)", {}, "GPU 1 cannot be used"),
        (
            """
            from dataclasses import replace
            (launch,) = preprocess(11, 22, 33, (1, 3, 5, 5), half=True)
            LoadedKernels(CudaDevice()).launch([replace(launch, block=2048)], 1)
            """,
            {},
            "preprocessHalf was not launched: CUDA_ERROR_INVALID_VALUE",
        ),
    ],
    ids=["too old", "code refused", "no such GPU", "launch refused"],
)
def test_what_the_driver_refuses_is_named(run, code, settings, message):
    _, errors = run(code, **settings)
    assert re.search(rf"cornernet_runtime.errors.(Kernel|Backend)Error: {re.escape(message)}", errors.splitlines()[-1])
