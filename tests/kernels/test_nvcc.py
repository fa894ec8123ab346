"""nvcc compiles the runtime's kernels for every architecture: no warning, no spill, no stack frame."""

import re
import shutil

import build_cache
import pytest
from host.kernel_host import KERNELS

from cornernet_runtime.kernels import decode

USUAL, OTHERS = 90, (75, 80, 86, 89, 100, 120)
ARCHITECTURES = [USUAL, *(pytest.param(number, marks=pytest.mark.slow) for number in OTHERS)]
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


@pytest.fixture
def compiled(source, architecture):
    """What nvcc says of the kernels of a source, by name."""
    command = ["nvcc", "-std=c++17", "-O3", "--fmad=false", "-Werror", "all-warnings"]
    command += ["-Xcompiler", "-Wall,-Wextra", "-Xptxas", "-v", f"-arch=sm_{architecture}"]
    command += ["-c", KERNELS / f"{source}.cu", "-o", "kernels.o"]
    parts = build_cache.printed([[command]]).split("Compiling entry function")[1:]
    return {part.split("'")[1]: part for part in parts}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", REGISTERS)
def test_kernels_neither_spill_nor_need_a_stack_nor_too_much_of_a_multiprocessor(compiled, source):
    assert compiled.keys() == REGISTERS[source].keys()
    for name, report in compiled.items():
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
