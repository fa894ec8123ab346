"""nvcc compiles the runtime's kernels for every architecture: no warning, no spill, no stack frame."""

import re
import shutil

import build_cache
import pytest
from host.kernel_host import KERNELS

from cornernet_runtime.kernels import decode

ARCHITECTURES = [75, 80, 86, 89, 90, 100, 120]
BLOCK_BYTES = 48 << 10  # of shared memory, without opting in
# Most registers of a thread, by kernel, for a multiprocessor of 64 K of them.
REGISTERS = {
    "decode": {"findPeaksFloat": 128, "findPeaksHalf": 128, "selectCorners": 64, "pairCorners": 64},
    "soft_nms": {
        "suppressClass": 128,
        "suppressClassMerging": 128,
        "suppressLargeClass": 128,
        "suppressLargeClassMerging": 128,
        "cutDetections": 64,
    },
}
# What a launch adds to static shared memory at most.
DYNAMIC_BYTES = {"pairCorners": decode.PAIR_SHARED_BYTES}

pytestmark = pytest.mark.skipif(
    shutil.which("nvcc") is None,
    reason="nvcc is not on PATH: install the CUDA toolkit to compile the kernels for each architecture",
)


@pytest.fixture(scope="module", params=REGISTERS)
def compiled(request):
    """What nvcc says of the kernels of one source, by architecture."""
    command = ["nvcc", "-std=c++17", "-O3", "--fmad=false", "-Werror", "all-warnings"]
    command += ["-Xcompiler", "-Wall,-Wextra", "-Xptxas", "-v"]
    command += [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    command += ["-c", KERNELS / f"{request.param}.cu", "-o", "kernels.o"]
    reports = {number: {} for number in ARCHITECTURES}
    for part in build_cache.printed([[command]]).split("Compiling entry function")[1:]:
        reports[int(re.search(r"for 'sm_(\d+)", part)[1])][part.split("'")[1]] = part
    return request.param, reports


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_neither_spill_nor_need_a_stack_nor_too_much_of_a_multiprocessor(compiled, architecture):
    source, reports = compiled
    assert reports[architecture].keys() == REGISTERS[source].keys()
    for name, report in reports[architecture].items():
        stack, stores, loads = map(int, re.search(r"(\d+) bytes stack frame, (\d+) \D+(\d+)", report).groups())
        assert (stack, stores, loads) == (0, 0, 0), name
        assert int(re.search(r"Used (\d+) registers", report)[1]) <= REGISTERS[source][name], name
        shared = int(re.search(r"(\d+) bytes smem", report)[1])
        assert shared + DYNAMIC_BYTES.get(name, 0) <= BLOCK_BYTES, name


def test_heat_is_loaded_by_16_bytes():
    command = ["nvcc", "-std=c++17", "-arch=compute_90", "-ptx", KERNELS / "decode.cu", "-o", "decode.ptx"]
    ptx = build_cache.build([[command]], ["decode.ptx"]) / "decode.ptx"
    for kernel in ptx.read_text().split(".visible .entry ")[1:]:
        if kernel.startswith("findPeaks"):
            assert "ld.global.nc.v4.u32" in kernel
