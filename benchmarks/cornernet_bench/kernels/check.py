"""The CUDA kernels, checked and measured in three layers, each as far as this machine can.

L1: they compute the reference on the CPU, in the tests of a checkout. L2: the compiler makes what it should of them for
every architecture. L5: on a GPU they compute the reference, and how long they take.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cornernet_bench.kernels import pooling_library
from cornernet_bench.kernels.cases import CASES, fixed_cases, random_cases, timed_cases
from cornernet_bench.kernels.checkout_tests import CHECKOUT, run_tests
from cornernet_bench.kernels.gpu import Gpu, GpuFacts
from cornernet_bench.kernels.resources import LIMITS, Resources, measure, sources
from cornernet_runtime.errors import CornerNetError, KernelError
from cornernet_runtime.kernels.program import nvrtc_version
from cornernet_runtime.machine import ProbeError, find_gpus, one_line
from cornernet_runtime.wording import count_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from cornernet_bench.kernels.case import KernelCase

LAYERS = ("L1", "L2", "L5")
TESTS_OF_COMPILERS = ("nvcc", "nvrtc", "whole_vectors")  # not of L1: parts of their names
REQUIRE_GPU = "CORNERNET_REQUIRE_GPU"
PERCENTILES = (10, 50, 90, 99)
INPUT_SETS = 3  # of other values, in rotation
SANITIZER_TOOLS = ("memcheck", "racecheck", "synccheck")


@dataclass(frozen=True, slots=True)
class Request:
    """What to do.

    Attributes:
        layers: Some of ``LAYERS``.
        architectures: For L2, compute capabilities times ten.
        cases: Random cases of each kernel on a GPU.
        iterations: Timed runs of each timed case; 0 to check only.
        warm_up: Runs before those.
        sanitize: Whether compute-sanitizer has a look at the checks.
        seed: Of shapes and values.
        checkout: For L1, where the tests are; it may be none.
    """

    layers: tuple[str, ...] = LAYERS
    architectures: tuple[int, ...] = tuple(LIMITS)
    cases: int = 20
    iterations: int = 200
    warm_up: int = 20
    sanitize: bool = False
    seed: int = 0
    checkout: Path = CHECKOUT


@dataclass(frozen=True, slots=True)
class Layer:
    """How a layer ended.

    Attributes:
        name: Of ``LAYERS``.
        state: What was done held, or did not, or nothing could be done.
        said: What, or why, in a line.
    """

    name: str
    state: str  # passed, failed or skipped
    said: str


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a case takes on the GPU.

    Attributes:
        kernel: Its stem.
        title: The case.
        iterations: Timed runs.
        warm_up: Runs before those.
        input_sets: Of other values, in rotation.
        times_us: Percentiles in microseconds by name, such as ``p50_us``, the L2 cache emptied before each run.
        hot_times_us: The same right after an untimed run of the same, the cache as that leaves it.
        target_us: The design's figure for the median, if it has one.
        graph: Whether a run is one replay of a captured graph, instead of launch by launch.
        moved_bytes: That must be read or written at least.
        bandwidth_gb_s: These over the median.
        copy_share: That as a share of what a copy on the device moves a second.
        floor_us: How long a copy would take for as many bytes.
    """

    kernel: str
    title: str
    iterations: int
    warm_up: int
    input_sets: int
    times_us: dict[str, float]
    hot_times_us: dict[str, float]
    target_us: float | None
    graph: bool
    moved_bytes: int
    bandwidth_gb_s: float
    copy_share: float
    floor_us: float


@dataclass(frozen=True, slots=True)
class GpuReport:
    """What was measured on a GPU.

    Attributes:
        facts: Of the card.
        driver_version: Of its driver, if nvidia-smi tells.
        checked: Cases by kernel.
        empty_us: Median between two events with nothing between them; part of every time.
        copy_gb_s: What a copy on the device reads and writes a second.
        timings: Of each timed case.
        notes: What could not be done, and why.
    """

    facts: GpuFacts
    driver_version: str | None
    checked: dict[str, int]
    empty_us: float
    copy_gb_s: float
    timings: tuple[Timing, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KernelReport:
    """All that was found out."""

    layers: tuple[Layer, ...]
    versions: dict[str, str]
    resources: tuple[Resources, ...]
    gpu: GpuReport | None

    @property
    def failed(self) -> bool:
        """Whether something did not hold."""
        return any(layer.state == "failed" for layer in self.layers)


def check_kernels(request: Request, say: Callable[[str], None]) -> KernelReport:
    """Do the layers that are asked for, as far as this machine can.

    A layer fails, and the others are reported all the same, where a GPU cannot be used, or there is none although
    CORNERNET_REQUIRE_GPU=1.

    Args:
        request: What to do.
        say: Called with a line whenever something takes a while.
    """
    layers: list[Layer] = []
    resources: list[Resources] = []
    gpu = None
    if "L1" in request.layers:
        say("L1: the kernels on the CPU, some minutes")
        layers.append(_on_the_cpu(request.checkout))
    if "L2" in request.layers:
        layer, resources = _compiled(request, say)
        layers.append(layer)
    if "L5" in request.layers:
        reason = _why_no_gpu()
        if reason is None:
            try:
                layer, gpu = _on_the_gpu(request, say)
            except CornerNetError as error:
                layer = Layer("L5", "failed", str(error))
        elif _is_required():
            layer = Layer("L5", "failed", f"{REQUIRE_GPU}=1, but {reason}")
        else:
            layer = Layer("L5", "skipped", reason)
        layers.append(layer)
    return KernelReport(tuple(layers), _versions(), tuple(resources), gpu)


def _on_the_cpu(checkout: Path) -> Layer:
    """Run the tests of the kernels, without those of compilers."""
    tested = run_tests(checkout, ("tests/kernels", "tests/plugins"), without=TESTS_OF_COMPILERS)
    return Layer("L1", tested.state, tested.said)


def _compiled(request: Request, say: Callable[[str], None]) -> tuple[Layer, list[Resources]]:
    rows: list[Resources] = []
    try:
        nvrtc_version()
    except KernelError as error:
        return Layer("L2", "skipped", str(error)), rows
    try:
        for source in sources():
            say(f"L2: {source} for {count_of(len(request.architectures), 'architecture')}")
            for architecture in request.architectures:
                rows += measure(source, architecture)
    except CornerNetError as error:
        return Layer("L2", "failed", str(error)), rows
    wrong = [
        f"{row.source} {row.kernel} for sm_{row.architecture}" for row in rows if row.stack_bytes + row.spill_bytes
    ]
    count = len({(row.source, row.kernel) for row in rows})
    if wrong:
        return Layer("L2", "failed", f"spills or a stack frame: {', '.join(wrong)}"), rows
    both = f"{count_of(count, 'kernel')} for {count_of(len(request.architectures), 'architecture')}"
    said = f"{both}: no warning, no spill, no stack frame"
    return Layer("L2", "passed", f"{said} (NVRTC {nvrtc_version()})"), rows


def _is_required() -> bool:
    return os.environ.get(REQUIRE_GPU) == "1"


def _why_no_gpu() -> str | None:
    try:
        found = find_gpus()
    except ProbeError as error:
        return f"there is no GPU to use: {error}"
    return None if found else "there is no GPU"


def _on_the_gpu(request: Request, say: Callable[[str], None]) -> tuple[Layer, GpuReport]:
    rng = np.random.default_rng(request.seed)
    checked: dict[str, int] = {}
    problems: list[str] = []
    timings: list[Timing] = []
    with Gpu() as gpu, tempfile.TemporaryDirectory() as folder:
        pooling, notes = _pooling(Path(folder), gpu, say, problems)
        kernels = [kernel for kernel in CASES if pooling or kernel != "corner_pool"]
        for kernel in kernels:
            say(f"L5: {kernel}, fixed and {request.cases} random cases")
            cases = [
                *fixed_cases(kernel, rng),
                *random_cases(kernel, rng, request.cases),
                *(timed_cases(kernel, rng) if request.iterations else ()),
            ]
            checked[kernel] = len(cases)
            found = ((case, gpu.check(case, pooling)) for case in cases)
            problems += [f"{kernel}, {case.title}: {problem}" for case, problem in found if problem]
        copy_gb_s = gpu.copy_bandwidth() if request.iterations else 0.0
        empty_us = float(np.median(gpu.time_nothing(request.iterations))) if request.iterations else 0.0
        for kernel in kernels if request.iterations else ():
            say(f"L5: {kernel}, timed")
            for sets in _input_sets(kernel, request.seed):
                times = gpu.time(sets, pooling, request.iterations, request.warm_up)
                timings.append(_timing(sets[0], *times, request, copy_gb_s))
        facts = gpu.facts
    if request.sanitize:
        say("L5: compute-sanitizer")
        sanitized, found_problems = _sanitize(request)
        notes += sanitized
        problems += found_problems
    report = GpuReport(facts, _driver_version(), checked, empty_us, copy_gb_s, tuple(timings), tuple(notes))
    if problems:
        return Layer("L5", "failed", "; ".join(problems[:5])), report
    total = sum(checked.values())
    said = f"{total} cases on {facts.name}, each also as a captured graph: equal to the reference"
    return Layer("L5", "passed", "; ".join([said, *notes])), report


def _pooling(
    folder: Path, gpu: Gpu, say: Callable[[str], None], problems: list[str]
) -> tuple[pooling_library.PoolingLibrary | None, list[str]]:
    """Return corner pooling's library, or what to note if there is none; add to ``problems`` what is a failure."""
    if reason := pooling_library.why_not():
        if not _is_required():
            return None, [f"corner_pool skipped: {reason}"]
        problems.append(f"{REQUIRE_GPU}=1, but corner_pool cannot be run: {reason}")
        return None, []
    say("L5: building corner_pool with nvcc")
    try:
        return pooling_library.PoolingLibrary(pooling_library.build_library(folder, gpu.capability)), []
    except (CornerNetError, OSError) as error:  # nvcc's, such as a GPU that it does not know; the loader's
        problems.append(f"corner_pool: {error}")
        return None, []


def _input_sets(kernel: str, seed: int) -> Iterator[list[KernelCase]]:
    """Yield the timed cases, each several times with other values."""
    streams = [timed_cases(kernel, np.random.default_rng([seed, number])) for number in range(INPUT_SETS)]
    for sets in zip(*streams, strict=True):
        yield list(sets)


def _timing(
    case: KernelCase, times: NDArray[np.float64], hot: NDArray[np.float64], request: Request, copy_gb_s: float
) -> Timing:
    bandwidth = case.moved_bytes / float(np.median(times)) / 1e3
    return Timing(
        case.kernel,
        case.title,
        len(times),
        request.warm_up,
        INPUT_SETS,
        _percentiles(times),
        _percentiles(hot),
        case.target_us,
        case.graph,
        case.moved_bytes,
        bandwidth,
        bandwidth / copy_gb_s,
        case.moved_bytes / copy_gb_s / 1e3,
    )


def _percentiles(times: NDArray[np.float64]) -> dict[str, float]:
    values = np.percentile(times, PERCENTILES)
    return {f"p{number}_us": round(float(value), 3) for number, value in zip(PERCENTILES, values, strict=True)}


def _sanitize(request: Request) -> tuple[list[str], list[str]]:
    """Run the checks again under compute-sanitizer; return what to note and what is wrong."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return [], ["--sanitize: compute-sanitizer is not on PATH: it comes with the CUDA toolkit"]
    checks = [sys.executable, "-m", "cornernet_bench.cli", "kernels", "--layers", "L5", "--iterations", "0"]
    checks += ["--cases", "2", "--seed", str(request.seed)]
    notes: list[str] = []
    problems: list[str] = []
    for tool in SANITIZER_TOOLS:
        command = [program, "--tool", tool, "--error-exitcode", "99", *checks]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - found on PATH
        summary = re.findall(r"ERROR SUMMARY.*", done.stdout) or [one_line(done.stdout[-200:] + done.stderr[-200:])]
        (problems if done.returncode else notes).append(f"{tool}: {summary[-1]}")
    return notes, problems


def _driver_version() -> str | None:
    with contextlib.suppress(ProbeError):
        return next((gpu.driver_version for gpu in find_gpus()), None)
    return None


def _versions() -> dict[str, str]:
    versions = {"numpy": np.__version__}
    for name in ("cuda-bindings", "cuda-core", "nvidia-cuda-nvrtc", "nvidia-cuda-runtime"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
