"""A small network with random weights, as checkpoint and as bundle, made once for all tests."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cases.small import SMALL_SPEC, small_model
from doubles import api_surface, checked, cuda_doubles, tensorrt_doubles
from host import host_cuda, kernel_host
from places import ROOT, SUPPORT

from cornernet_export.bundle_export import ExportRequest, export_bundle
from cornernet_export.checkpoint import save_checkpoint
from cornernet_runtime import plugin
from cornernet_runtime.errors import KernelError
from cornernet_runtime.kernels import device, program


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Make SIGINT interrupt here and in the programs that tests start: shells start background jobs with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def checkpoint_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(path, small_model(), SMALL_SPEC)
    return path


@pytest.fixture(scope="session")
def bundle_path(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "small"
    export_bundle(ExportRequest(checkpoint_path, path))
    return path


@pytest.fixture(scope="session")
def surface_descriptions(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """What the real classes of TensorRT and of cuda.core have."""
    reason = api_surface.why_not()
    if reason:
        pytest.skip(reason)
    return api_surface.tensorrt_surface(tmp_path_factory.mktemp("stubs")), api_surface.cuda_surface()


@pytest.fixture
def tensorrt(
    surface_descriptions: tuple[dict, dict],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> tensorrt_doubles.TensorRT:
    """TensorRT and a GPU to write tests with: doubles under the names of the real modules; no plugin is to be found.

    Kernels run on the CPU; NVRTC is left out.
    """
    of_tensorrt, of_cuda = (checked.Surface(description) for description in surface_descriptions)
    gpu = cuda_doubles.Gpu(of_cuda)
    gpu.kernels = lambda: cuda_doubles.HostKernels(request.getfixturevalue("kernel_library"))
    monkeypatch.setattr(device, "load_program", _uncompiled)
    trt = tensorrt_doubles.TensorRT(of_tensorrt, gpu)
    for name, double in {"tensorrt": trt.module(), **gpu.modules()}.items():
        monkeypatch.setitem(sys.modules, name, double)
    monkeypatch.delenv("CORNERNET_PLUGIN", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plugin, "PACKAGED_PLUGIN", tmp_path / "lib" / "libcornernet_plugins.so")
    monkeypatch.setattr(plugin, "BUILT_PLUGIN", tmp_path / "build" / "libcornernet_plugins.so")
    return trt


def _uncompiled(source: str, capability: tuple[int, int], _folder: Path | None) -> program.Program:
    """Return a program of no code, whose kernels are called what they are called in the source."""
    text = (kernel_host.KERNELS / f"{source}.cu").read_text(encoding="utf-8")
    names = [name for name, _ in kernel_host.SIGNATURE.findall(text)]
    return program.Program(f"sm_{capability[0]}{capability[1]}", b"", {name: name for name in names})


@pytest.fixture(scope="session")
def plugin_library(surface_descriptions: tuple[dict, dict], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that says that it is ours, of version 1.2.3; what it does, the double of the registry decides."""
    major = surface_descriptions[0]["version"].split(".")[0]
    if shutil.which("gcc") is None:
        pytest.skip("gcc is needed to compile a library")
    folder = tmp_path_factory.mktemp("plugin")
    source, library = folder / "library.c", folder / "libcornernet_plugins.so"
    mark = f"cornernet_plugins version 1.2.3 for TensorRT {major}"
    source.write_text(f'const char mark[] = "{mark}";\n', encoding="utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)  # noqa: S603, S607 - ours
    return library


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle that a test may add an engine to."""
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def batch_bundle_path(checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two sizes and of batches of 2 to 4, 3 being the usual one."""
    path = tmp_path_factory.mktemp("batches") / "small"
    export_bundle(ExportRequest(checkpoint_path, path, sizes=((63, 95), (95, 63)), batch=(2, 3, 4)))
    return path


@pytest.fixture(scope="session")
def kernel_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A libcuda.so.1 whose memory is the host's and whose launches and graphs run there."""
    if (reason := host_cuda.why_not()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("driver")
    sources = SUPPORT / "host"
    c_object = folder / "fake_driver.o"
    command = ["gcc", "-fPIC", "-O1", "-c", str(sources / "fake_driver.c"), "-o", str(c_object)]
    subprocess.run(command, check=True)  # noqa: S603 - our own compiler line
    flush = ROOT / "benchmarks" / "cornernet_bench" / "read_through"  # of cornernet-bench kernels
    unit = kernel_host.write_unit(folder, ["preprocess", "decode", "soft_nms", str(flush)])
    flags = ["-O2", "-fPIC", "-shared", f"-I{sources}", str(c_object)]
    return host_cuda.build(folder / "libcuda.so.1", [unit, sources / "fake_gpu.cpp"], flags)


@pytest.fixture(scope="session")
def gpu_driver(kernel_library: Path) -> Path:
    """Folder of ``kernel_library``, where NVRTC can compile what the driver is then asked to load."""
    try:
        program.cuda_headers()
        program.nvrtc_version()
    except KernelError as error:
        pytest.skip(str(error))
    return kernel_library.parent


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels that NVRTC compiled are kept for the tests."""
    return tmp_path_factory.mktemp("kernels")
