"""Kernels compiled by NVRTC and kept in a cache that nothing can poison."""

import errno
import multiprocessing
import shutil
import sys
import warnings
from pathlib import Path

import pytest

from cornernet_runtime import files
from cornernet_runtime.errors import KernelError
from cornernet_runtime.kernels import program
from cornernet_runtime.kernels.program import SOURCES, compile_source, load_program, target_of

try:
    program.cuda_headers()
    program.nvrtc_version()
except KernelError as error:
    pytestmark = pytest.mark.skip(reason=str(error))

HOPPER = (9, 0)


@pytest.fixture(autouse=True)
def sources(tmp_path, monkeypatch):
    """A folder of kernels that compile in no time; what is compiled is counted."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "half.cuh").write_text("constexpr float kHalf = 0.5F;\n")
    (folder / "deep.cuh").write_text('#include "half.cuh"\n')
    kernel = "namespace cornernet { __global__ void scale(float* data) { data[threadIdx.x] *= kHalf; } }\n"
    (folder / "scale.cu").write_text('#include "deep.cuh"\n' + kernel)
    monkeypatch.setattr(program, "SOURCES", folder)
    return folder


@pytest.fixture
def compiled(monkeypatch):
    """The targets that were compiled for, in order."""
    targets = []

    def compile_and_count(path, target):
        targets.append(target)
        return compile_source(path, target)

    monkeypatch.setattr(program, "compile_source", compile_and_count)
    return targets


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "deep"


def test_second_time_comes_from_the_cache(compiled, cache):
    first = load_program("scale", HOPPER, cache)
    assert load_program("scale", HOPPER, cache) == first
    assert compiled == ["sm_90"]
    assert first.symbols == {"scale": "_ZN9cornernet5scaleEPf"}
    assert [path.name.split("-")[:2] for path in cache.iterdir()] == [["scale", "sm_90"]]


def test_every_architecture_has_a_file_of_its_own(compiled, cache):
    for capability in ((9, 0), (8, 0), (9, 0), (8, 0)):
        load_program("scale", capability, cache)
    assert compiled == ["sm_90", "sm_80"]


@pytest.mark.parametrize("name", ["scale.cu", "deep.cuh", "half.cuh"])
def test_a_change_of_the_source_or_what_it_includes_compiles_again(sources, compiled, cache, name):
    load_program("scale", HOPPER, cache)
    (sources / name).write_text((sources / name).read_text() + "// changed\n")
    load_program("scale", HOPPER, cache)
    assert compiled == ["sm_90", "sm_90"]


@pytest.mark.parametrize("what", ["nvrtc_version", "OPTIONS"])
def test_a_change_of_compiler_or_options_compiles_again(compiled, cache, what, monkeypatch):
    load_program("scale", HOPPER, cache)
    new = {"nvrtc_version": lambda: "99.1", "OPTIONS": (*program.OPTIONS, "--use_fast_math")}[what]
    monkeypatch.setattr(program, what, new)
    load_program("scale", HOPPER, cache)
    assert compiled == ["sm_90", "sm_90"]


def test_a_change_of_cudas_headers_compiles_again(tmp_path, compiled, cache, monkeypatch):
    load_program("scale", HOPPER, cache)
    folders = program.cuda_headers()
    other = tmp_path / "headers"
    other.mkdir()
    known = next(folder / "cuda_fp16.hpp" for folder in folders if (folder / "cuda_fp16.hpp").is_file())
    (other / "cuda_fp16.hpp").write_text(known.read_text() + "// of a later version\n")
    monkeypatch.setattr(program, "cuda_headers", lambda: (other, *folders))
    load_program("scale", HOPPER, cache)
    load_program("scale", HOPPER, cache)
    assert compiled == ["sm_90", "sm_90"]


def truncated(data):
    return data[:-1]


def cut_in_the_header(data):
    return data[:40]


def one_bit_turned(data):
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def empty(data):
    return data[:0]


def of_a_later_version(data):
    return data.replace(b"cornernet kernel 1", b"cornernet kernel 2")


@pytest.mark.parametrize("spoil", [truncated, cut_in_the_header, one_bit_turned, empty, of_a_later_version])
def test_a_broken_file_is_compiled_again_said_once_and_replaced(compiled, cache, spoil):
    first = load_program("scale", HOPPER, cache)
    (file,) = cache.iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.warns(UserWarning, match="broken; the kernels are compiled again"):
        assert load_program("scale", HOPPER, cache) == first
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_program("scale", HOPPER, cache) == first
    assert len(compiled) == 2


def test_a_file_of_another_architecture_is_not_used(cache):
    first = load_program("scale", HOPPER, cache)
    load_program("scale", (8, 0), cache)
    hopper, ampere = (next(cache.glob(f"*{target}*")) for target in ("sm_90", "sm_80"))
    shutil.copy(ampere, hopper)
    with pytest.warns(UserWarning, match="of other kernels than its name says"):
        assert load_program("scale", HOPPER, cache) == first


def test_a_full_disk_is_said_and_leaves_nothing_behind(cache, monkeypatch):
    def fail(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"compiled kernels are not kept: .*No space left.*CORNERNET_CACHE"):
            assert load_program("scale", HOPPER, cache).code.startswith(b"\x7fELF")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_said_and_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="compiled kernels are not kept: cannot make the folder"):
        assert load_program("scale", HOPPER, tmp_path / "file" / "cache").code.startswith(b"\x7fELF")


def test_a_folder_that_is_read_only_is_said_and_done_without(cache, monkeypatch):
    # Permissions do not hold for root: the error of a read-only file system is what it would see too.
    def fail(**_arguments):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", fail)
    with pytest.warns(UserWarning, match=r"not kept: .*Read-only file system"):
        assert load_program("scale", HOPPER, cache).code.startswith(b"\x7fELF")


def test_equal_warnings_are_said_once(tmp_path):
    (tmp_path / "file").write_text("")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")  # Python's own filter for a user's program says each once
        for _ in range(3):
            load_program("scale", HOPPER, tmp_path / "file" / "cache")
    assert len(said) == 1


def load_in_a_process(cache):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [load_program("scale", HOPPER, cache).code for _ in range(20)]


def test_processes_may_fill_one_cache_at_once(cache):
    with multiprocessing.get_context("fork").Pool(4) as pool:  # forked, they find the kernels of the fixture
        found = pool.map(load_in_a_process, [cache] * 4, chunksize=1)
    assert {code for codes in found for code in codes} == {load_program("scale", HOPPER, cache).code}
    assert len(list(cache.iterdir())) == 1


def test_a_source_that_does_not_compile_shows_what_the_compiler_said(sources):
    (sources / "scale.cu").write_text("namespace cornernet { __global__ void scale(float* data) { return 1 } }\n")
    with pytest.raises(KernelError, match=r"(?s)scale.cu does not compile for sm_90 .*scale.cu\(1\): error: expected"):
        load_program("scale", HOPPER, sources)


def test_a_source_that_is_missing_is_named(sources):
    with pytest.raises(KernelError, match=r"absent\.cu: cannot be read"):
        load_program("absent", HOPPER, sources)


def test_a_gpu_before_turing_is_refused_by_name():
    with pytest.raises(KernelError, match=r"compute capability 7.0, the kernels need 7.5"):
        target_of((7, 0))


def test_a_gpu_newer_than_the_compiler_gets_ptx_of_the_newest():
    assert target_of((90, 0)).startswith("compute_1")


def test_a_compiler_without_a_gpus_architecture_falls_back_to_the_one_before():
    assert [target_of(capability) for capability in ((7, 5), (8, 7), (8, 5))] == ["sm_75", "sm_87", "compute_80"]


def test_without_nvrtc_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(KernelError, match=r"NVRTC is not installed.*pip install nvidia-cuda-nvrtc"):
        load_program("preprocess", HOPPER)


def test_without_nvrtcs_library_the_error_says_what_to_install(monkeypatch):
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")

    def fail():
        raise RuntimeError("Failure finding libnvrtc.so")

    monkeypatch.setattr(nvrtc, "nvrtcVersion", fail)
    with pytest.raises(KernelError, match=r"NVRTC is not installed.*pip install nvidia-cuda-nvrtc"):
        load_program("preprocess", HOPPER)


def test_without_headers_the_error_says_what_to_install(monkeypatch):
    pathfinder = pytest.importorskip("cuda.pathfinder")

    monkeypatch.setattr(pathfinder, "find_nvidia_header_directory", lambda _name: None)
    with pytest.raises(KernelError, match=r"header cuda_fp16.h is not installed.*pip install .*nvidia-cuda-runtime"):
        compile_source(SOURCES / "preprocess.cu", "sm_90")


def test_without_a_home_there_is_no_cache_and_it_is_said(monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    for name in ("CORNERNET_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", fail)
    with pytest.warns(UserWarning, match="set CORNERNET_CACHE"):
        assert load_program("scale", HOPPER).code.startswith(b"\x7fELF")


def test_compiling_changes_no_byte_that_python_shares():
    before = [bytes([value]) for value in range(256)]
    assert compile_source(SOURCES / "preprocess.cu", "sm_90").log == ""
    assert [value[0] for value in before] == list(range(256))
