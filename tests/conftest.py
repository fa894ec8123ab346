"""A small network with random weights, as checkpoint and as bundle, made once for all tests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import build_cache
import kept
import pytest
from cases.small import SMALL_SPEC, small_model
from doubles import api_surface, checked, cuda_doubles, tensorrt_doubles
from filelock import FileLock
from grouping import arrange, limit_threads, scheduler
from host import host_cuda, kernel_host
from noise import rounding
from places import ROOT, SHIPPED, SUPPORT, python_path

from cornernet_export.bundle_export import ExportRequest, export_bundle
from cornernet_export.checkpoint import save_checkpoint
from cornernet_runtime import plugin
from cornernet_runtime.errors import KernelError
from cornernet_runtime.files import sha256
from cornernet_runtime.kernels import device, program

MakeOnce = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    limit_threads(config)
    if rounding.install():
        os.environ["PYTHONPATH"] = python_path(os.environ.get("PYTHONPATH", ""))  # for the processes that tests start


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    arrange(config, items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    return scheduler(config, log)


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Make SIGINT interrupt here and in the programs that tests start: shells start background jobs with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> MakeOnce:
    """Return a function that fills a folder once a run: one worker makes it, the others wait for it.

    It takes a name, which is that of the folder and unique in the run, a function that fills the folder, and whether
    to keep what that made for the next runs.
    """
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if hasattr(request.config, "workerinput") else base) / "made-once"
    base.mkdir(exist_ok=True)

    def make(name: str, fill: Callable[[Path], object], *, keep: bool = False) -> Path:
        folder, finished = base / name, base / f"{name}.finished"
        with FileLock(base / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                if keep:
                    kept.fill(folder, name, fill)
                else:
                    fill(folder)
                finished.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def checkpoint_path(made_once: MakeOnce) -> Path:
    name = "small.safetensors"
    return made_once("checkpoint", lambda folder: save_checkpoint(folder / name, small_model(), SMALL_SPEC)) / name


@pytest.fixture(scope="session")
def export_once(made_once: MakeOnce) -> Callable[..., Path]:
    """Return a function that exports a checkpoint as ``ExportRequest`` says, once for all tests that only read it."""

    def export(checkpoint: Path, name: str = "small", **options: object) -> Path:
        asked = f"{sha256(checkpoint)} {name} {sorted(options.items())}"
        made = made_once(
            f"exported-{hashlib.sha256(asked.encode()).hexdigest()[:16]}",
            lambda folder: export_bundle(ExportRequest(checkpoint, folder / name, **options)),
            keep=True,
        )
        return made / name

    return export


@pytest.fixture(scope="session")
def bundle_path(checkpoint_path: Path, export_once: Callable[..., Path]) -> Path:
    return export_once(checkpoint_path)


@pytest.fixture(scope="session")
def shipped_path(export_once: Callable[..., Path]) -> Path:
    """The shipped model as a bundle."""
    return export_once(SHIPPED, "tiny")


@pytest.fixture(scope="session")
def surface_descriptions(made_once: MakeOnce) -> tuple[dict, dict]:
    """What the real classes of TensorRT and of cuda.core have."""
    reason = api_surface.why_not()
    if reason:
        pytest.skip(reason)

    def describe(folder: Path) -> None:
        described = api_surface.tensorrt_surface(), api_surface.cuda_surface()
        (folder / "surfaces.json").write_text(json.dumps(described), encoding="utf-8")

    text = (made_once("surfaces", describe) / "surfaces.json").read_text(encoding="utf-8")
    of_tensorrt, of_cuda = json.loads(text)
    return of_tensorrt, of_cuda


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
def plugin_library(surface_descriptions: tuple[dict, dict]) -> Path:
    """A library that says that it is ours, of version 1.2.3; what it does, the double of the registry decides."""
    major = surface_descriptions[0]["version"].split(".")[0]
    if shutil.which("gcc") is None:
        pytest.skip("gcc is needed to compile a library")
    mark = f"cornernet_plugins version 1.2.3 for TensorRT {major}"
    return build_cache.library("libcornernet_plugins.so", f'const char mark[] = "{mark}";\n')


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A bundle that a test may add an engine to."""
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def batch_bundle_path(checkpoint_path: Path, export_once: Callable[..., Path]) -> Path:
    """A bundle of two sizes and of batches of 2 to 4, 3 being the usual one."""
    return export_once(checkpoint_path, sizes=((63, 95), (95, 63)), batch=(2, 3, 4))


@pytest.fixture(scope="session")
def kernel_library() -> Path:
    """A libcuda.so.1 whose memory is the host's and whose launches and graphs run there."""
    if (reason := host_cuda.why_not()) is not None:
        pytest.skip(reason)
    sources = SUPPORT / "host"
    flush = ROOT / "benchmarks" / "cornernet_bench" / "kernels" / "read_through"  # of cornernet-bench kernels
    texts = {"kernels.cu": kernel_host.kernel_unit(["preprocess", "decode", "soft_nms", str(flush)])}
    driver = ["gcc", "-fPIC", "-O1", "-c", str(sources / "fake_driver.c"), "-o", "fake_driver.o"]
    flags = ["-O2", "-fPIC", "-shared", f"-I{sources}"]
    units = ["kernels.cu", sources / "fake_gpu.cpp"]
    return host_cuda.build("libcuda.so.1", units, flags, texts=texts, objects={"fake_driver.o": driver})


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
    """Where kernels that NVRTC compiled are kept for the tests, from run to run where that is possible."""
    try:
        folder = build_cache.folder() / "nvrtc"
        folder.mkdir(exist_ok=True)
    except OSError:
        return tmp_path_factory.mktemp("kernels")
    return folder
