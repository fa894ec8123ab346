"""What the compiler makes of the CUDA kernels: registers, memory, and how many blocks a multiprocessor holds.

NVRTC compiles them for every architecture, so neither a GPU nor the CUDA toolkit is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cornernet_bench.kernels.cases import design_launches
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.files import write_atomically
from cornernet_runtime.kernels.program import SOURCES, Program, compile_source, nvrtc_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PLUGINS = Path(__file__).resolve().parents[3] / "plugins"
BEGIN, END = "<!-- kernels: begin -->", "<!-- kernels: end -->"


class Limits(NamedTuple):
    """What a multiprocessor holds at once."""

    threads: int
    blocks: int
    shared_kib: int
    reserved_bytes: int  # of shared memory, by the system, a block
    shared_step: int  # bytes that shared memory is handed out in


# CUDA Programming Guide, appendix Compute Capabilities, "Technical Specifications per Compute Capability"; the steps
# and the reserve as in cuda_occupancy.h. Registers are alike everywhere: 65536, in four parts, by 256 a warp.
LIMITS = {
    75: Limits(1024, 16, 64, 0, 256),
    80: Limits(2048, 32, 164, 1024, 128),
    86: Limits(1536, 16, 100, 1024, 128),
    89: Limits(1536, 24, 100, 1024, 128),
    90: Limits(2048, 32, 228, 1024, 128),
    100: Limits(2048, 32, 228, 1024, 128),
    120: Limits(1536, 24, 100, 1024, 128),
}
PARTS, PART_REGISTERS, REGISTER_STEP = 4, 16384, 256

# Corner pooling is compiled by nvcc for TensorRT. NVRTC lacks the standard library, of which it needs this much.
STANDARD_LIBRARY = {
    "cstdint": "typedef signed int int32_t; typedef unsigned int uint32_t; typedef long long int64_t;",
    "cmath": "#define INFINITY __int_as_float(0x7F800000)",
    "type_traits": (
        "namespace std { template <bool, class A, class> struct conditional { using type = A; };"
        "template <class A, class B> struct conditional<false, A, B> { using type = B; };"
        "template <bool chosen, class A, class B> using conditional_t = typename conditional<chosen, A, B>::type; }"
    ),
}


@dataclass(frozen=True, slots=True)
class Resources:
    """What one kernel takes on one architecture.

    Attributes:
        source: Stem of its file.
        kernel: Its name, with what tells its variants apart.
        architecture: Compute capability times ten.
        registers: A thread.
        shared_bytes: A block, static and dynamic, at the design point.
        threads: A block, there.
        blocks_in_flight: That a multiprocessor holds at once.
        stack_bytes: A thread; 0 is wanted.
        spill_bytes: Stored and loaded by a thread because registers did not suffice; 0 is wanted.
    """

    source: str
    kernel: str
    architecture: int
    registers: int
    shared_bytes: int
    threads: int
    blocks_in_flight: int
    stack_bytes: int
    spill_bytes: int


class _Kernel(NamedTuple):
    """A kernel to compile: what it is called here and in C++, and the block it is launched with."""

    label: str
    expression: str
    threads: int
    dynamic_bytes: int


def sources() -> list[str]:
    """Return the stems of the sources that are here; corner pooling's only in a checkout."""
    pooling = ["corner_pool"] if (PLUGINS / "corner_pool_kernel.cuh").is_file() else []
    return pooling + sorted(path.stem for path in SOURCES.glob("*.cu"))


def measure(source: str, architecture: int) -> list[Resources]:
    """Compile a source and return what its kernels take.

    Args:
        source: Of ``sources()``.
        architecture: Of ``LIMITS``.

    Raises:
        KernelError: NVRTC is missing, or the source does not compile.
        CornerNetError: The compiler warns.
    """
    kernels, compile_for = _kernels_of(source)
    program = compile_for(f"sm_{architecture}", ["--ptxas-options=-v"])
    if "warning" in program.log.lower():
        raise CornerNetError(f"{source} for sm_{architecture}: the compiler warns:\n{program.log}")
    reports = dict(_reports(program.log))
    rows = []
    for kernel in kernels:
        stack, spilled, registers, static = reports[program.symbols[kernel.expression]]
        shared = static + kernel.dynamic_bytes
        blocks = blocks_in_flight(architecture, registers, shared, kernel.threads)
        rows.append(
            Resources(source, kernel.label, architecture, registers, shared, kernel.threads, blocks, stack, spilled)
        )
    return rows


def blocks_in_flight(architecture: int, registers: int, shared_bytes: int, threads: int) -> int:
    """Return how many blocks a multiprocessor holds at once, as the occupancy calculator computes it."""
    limits = LIMITS[architecture]
    warps = -(-threads // 32)
    of_a_warp = -(-registers * 32 // REGISTER_STEP) * REGISTER_STEP
    by_registers = PARTS * (PART_REGISTERS // of_a_warp) // warps
    shared = -(-(shared_bytes + limits.reserved_bytes) // limits.shared_step) * limits.shared_step
    by_shared = limits.shared_kib * 1024 // shared if shared else limits.blocks
    return min(limits.threads // (32 * warps), limits.blocks, by_registers, by_shared)


def markdown(rows: Sequence[Resources]) -> str:
    """Return the table of registers, shared memory and blocks in flight: a kernel a row, an architecture a column."""
    architectures = sorted({row.architecture for row in rows})
    by_kernel: dict[tuple[str, str], dict[int, Resources]] = {}
    for row in rows:
        by_kernel.setdefault((row.source, row.kernel), {})[row.architecture] = row
    lines = [
        f"Compiled by NVRTC {nvrtc_version()}. In a column: registers of a thread / blocks in flight.",
        "",
        f"| kernel | threads | shared, bytes | {' | '.join(f'sm_{number}' for number in architectures)} |",
        f"|---|--:|--:|{'--:|' * len(architectures)}",
    ]
    for (source, kernel), cells in by_kernel.items():
        first = next(iter(cells.values()))
        numbers = (f"{cells[number].registers} / {cells[number].blocks_in_flight}" for number in architectures)
        lines.append(f"| {source}: {kernel} | {first.threads} | {first.shared_bytes} | {' | '.join(numbers)} |")
    return "\n".join(lines) + "\n"


def replace_table(document: str, table: str) -> str:
    """Return a document with the table between its two marks replaced.

    Raises:
        CornerNetError: It has not both marks.
    """
    before, begin, rest = document.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise CornerNetError(f"the table goes between the lines {BEGIN} and {END}, and the file has not both")
    return f"{before}{BEGIN}\n\n{table}\n{END}{after}"


def write_table(path: Path, rows: Sequence[Resources]) -> None:
    """Write the table into a document that has both marks, or as a new file.

    Raises:
        OutputError: It cannot be written.
        CornerNetError: The document has not both marks.
    """
    document = path.read_text(encoding="utf-8") if path.is_file() else f"{BEGIN}\n{END}\n"
    write_atomically(path, replace_table(document, markdown(rows)))


def _kernels_of(source: str) -> tuple[list[_Kernel], Callable[[str, Sequence[str]], Program]]:
    if source == "corner_pool":
        kernels = list(_pooling_kernels())
        names = [kernel.expression for kernel in kernels]

        def compile_pooling(target: str, options: Sequence[str]) -> Program:
            path = PLUGINS / "corner_pool_kernel.cuh"
            flags = ["-default-device", *options]  # a function without a mark is one of the device
            return compile_source(path, target, flags, [f"cornernet::{name}" for name in names], STANDARD_LIBRARY)

        return kernels, compile_pooling
    kernels = [_Kernel(one.kernel, one.kernel, one.block, one.shared_bytes) for one in design_launches(source)]
    return kernels, partial(compile_source, SOURCES / f"{source}.cu")


def _pooling_kernels() -> Iterator[_Kernel]:
    """Yield the variants, with the blocks that the launcher chooses for maps of 128 x 128."""
    for element, whole, last in (
        ("float", 1, 0),
        ("float", 0, 0),
        ("__half", 1, 0),
        ("__half", 0, 0),
        ("__half", 1, 1),
    ):
        vectors = 128 if last else 128 // (4 if element == "float" else 8)
        rows = 4 if whole else 1
        threads = 512
        shared = 16 * (threads + threads // 32 * rows + vectors)
        layout = "channels last" if last else "rows of whole vectors" if whole else "other rows"
        for corner, top_left in (("top-left", "true"), ("bottom-right", "false")):
            flags = f"{'true' if last else 'false'}, {'true' if whole else 'false'}, {top_left}"
            expression = f"cornerPoolKernel<cornernet::Variant<{element}, {flags}>>"
            yield _Kernel(f"{corner}, {element.strip('_')}, {layout}", expression, threads, shared)


def _reports(log: str) -> Iterator[tuple[str, tuple[int, int, int, int]]]:
    """Yield symbol, and bytes of stack, bytes spilled, registers and bytes of shared memory, as ptxas tells them."""
    for part in log.split("Compiling entry function")[1:]:
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        if not frame or not registers:
            raise CornerNetError(f"NVRTC's report of a kernel cannot be read: {part[:400]}")
        stack, stores, loads = map(int, frame.groups())
        yield part.split("'")[1], (stack, stores + loads, int(registers[1]), int(shared[1]) if shared else 0)
