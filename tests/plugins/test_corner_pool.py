"""Corner pooling's CUDA kernel: on the CPU it computes the reference, and nvcc compiles it for every architecture."""

import re
import shutil
from dataclasses import replace

import build_cache
import numpy as np
import pytest
from host import host_cuda
from host.corner_pool_host import (
    BOTTOM_RIGHT,
    CHANNELS_LAST,
    LINEAR_FLOAT,
    LINEAR_HALF,
    TOP_LEFT,
    UNITS,
    Case,
    expected,
    maps_of,
    run,
)

on_the_host = pytest.mark.skipif(host_cuda.why_not() is not None, reason=str(host_cuda.why_not()))
every_corner = pytest.mark.parametrize("corner", [TOP_LEFT, BOTTOM_RIGHT], ids=["top-left", "bottom-right"])
every_format = pytest.mark.parametrize(
    "map_format", [LINEAR_FLOAT, LINEAR_HALF, CHANNELS_LAST], ids=["float", "half", "half-channels-last"]
)
SUCCESS, INVALID_VALUE = 0, 1


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


USUAL, OTHERS = 90, (75, 80, 86, 89, 100, 120)
ARCHITECTURES = [USUAL, *map(slow, OTHERS)]
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 1, 127),
    (1, 9, 127, 1),
    (1, 2, 128, 128),
    slow((1, 2, 129, 191)),
    slow((1, 1, 191, 129)),
    (2, 1, 1, 1023),
    (1, 1, 1023, 2),
    (1, 1, 11, 1023),  # rows of more than one tile channels-last
    (3, 5, 7, 9),
    (2, 17, 20, 24),
]


@pytest.fixture(scope="module")
def sanitized():
    return host_cuda.build("corner_pool", UNITS, host_cuda.ADDRESS)


@pytest.fixture(scope="module")
def threaded():
    return host_cuda.build("corner_pool", UNITS, host_cuda.THREAD, "threads")


@pytest.fixture(scope="module")
def plain():
    return host_cuda.build("corner_pool", UNITS, ["-O2"])


@pytest.fixture(scope="module")
def counting():
    return host_cuda.build("corner_pool", UNITS, ["-O2"], "count")


def check(program, case, seed=1):
    vertical, horizontal = maps_of(case, seed)
    result = run(program, case, vertical, horizontal, seed)
    assert result.status == SUCCESS
    np.testing.assert_array_equal(result.output, expected(case, vertical, horizontal))
    return result


@on_the_host
@every_corner
@every_format
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pooling_is_exact(counting, corner, map_format, shape):
    check(counting, Case(corner, map_format, shape))


@on_the_host
@every_corner
@every_format
def test_pooling_is_exact_at_random_shapes(counting, corner, map_format):
    generator = np.random.default_rng([corner, map_format])
    for seed in range(12):
        batch, channels = map(int, generator.integers(1, [4, 10]))
        height, width = map(int, generator.integers(1, 70, 2))
        processors = int(generator.integers(1, 133))
        check(counting, Case(corner, map_format, (batch, channels, height, width), multiprocessors=processors), seed)


@on_the_host
@every_corner
@every_format
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 37, 29), slow((1, 1, 70, 64)), slow((1, 1, 5, 261))], ids=str)
def test_sanitizers_find_nothing(sanitized, corner, map_format, shape):
    check(sanitized, Case(corner, map_format, shape))


@pytest.mark.slow
@on_the_host
@every_corner
@pytest.mark.parametrize(
    ("map_format", "shape"),
    [
        (LINEAR_FLOAT, (1, 2, 9, 140)),
        (LINEAR_HALF, (1, 2, 5, 264)),
        (LINEAR_HALF, (1, 1, 4, 1040)),
        (CHANNELS_LAST, (1, 8, 9, 40)),
        (CHANNELS_LAST, (1, 8, 2049, 1)),
    ],
    ids=["float", "half", "half-two-tiles", "half-channels-last", "half-channels-last-two-bands"],
)
def test_thread_sanitizer_finds_no_race(threaded, corner, map_format, shape):
    check(threaded, Case(corner, map_format, shape))


@on_the_host
@every_corner
@pytest.mark.parametrize("map_format", [LINEAR_FLOAT, LINEAR_HALF], ids=["float", "half"])
@pytest.mark.parametrize("shape", [(1, 3, 128, 128), (2, 1, 191, 127), (1, 2, 3, 1023)], ids=str)
def test_linear_maps_are_moved_once(counting, corner, map_format, shape):
    result = check(counting, Case(corner, map_format, shape))
    moved = (result.vertical_read, result.horizontal_read, result.output_written)
    assert moved == (result.packed.nbytes,) * 3


@on_the_host
@every_corner
def test_channels_last_maps_are_moved_once_at_large_batches(counting, corner):
    result = check(counting, Case(corner, CHANNELS_LAST, (2, 8, 64, 64), multiprocessors=2))
    moved = (result.vertical_read, result.horizontal_read, result.output_written)
    assert moved == (result.packed.nbytes,) * 3


@on_the_host
@every_corner
def test_channels_last_a_band_reads_the_rows_before_it_again(counting, corner):
    # One plane for 132 multiprocessors is split into 8 bands of 16 rows: (1 + ... + 8) / 8 reads of the vertical map.
    result = check(counting, Case(corner, CHANNELS_LAST, (1, 8, 128, 128)))
    size = result.packed.nbytes
    assert (result.vertical_read, result.horizontal_read, result.output_written) == (4.5 * size, size, size)


@on_the_host
@every_corner
def test_padding_channels_of_zeros_stay_zeros(counting, corner):
    result = check(counting, Case(corner, CHANNELS_LAST, (1, 9, 5, 6)))
    assert not result.packed[..., 9:].any()


@pytest.mark.slow
@on_the_host
def test_more_planes_than_blocks_are_pooled_in_turn(plain):
    check(plain, Case(TOP_LEFT, LINEAR_HALF, (1, 65600, 2, 3)))  # a grid has 65,536


@on_the_host
@every_corner
@pytest.mark.parametrize("offset", [2, 4, 8, 14])
def test_linear_maps_may_lie_anywhere(sanitized, corner, offset):
    check(sanitized, Case(corner, LINEAR_HALF, (1, 2, 9, 24), offset=offset))


@on_the_host
@every_corner
@pytest.mark.parametrize(
    ("map_format", "shape"),
    [(LINEAR_FLOAT, (1, 2, 17, 10000)), slow(LINEAR_HALF, (1, 1, 65, 20000)), slow(CHANNELS_LAST, (1, 8, 18, 2500))],
    ids=["float", "half", "half-channels-last"],
)
def test_wide_maps_use_the_workspace(counting, corner, map_format, shape):
    case = Case(corner, map_format, shape)
    assert check(counting, case).workspace_bytes > 0
    maps = maps_of(case)
    assert run(counting, replace(case, workspace=False), *maps).status == INVALID_VALUE


@on_the_host
@every_corner
@every_format
@pytest.mark.parametrize("share", [0.01, 1.0])
def test_nan_stops_nothing_and_spoils_only_cells_that_look_across_it(sanitized, corner, map_format, share):
    case = Case(corner, map_format, (1, 3, 33, 40))
    maps = maps_of(case)
    for one in maps:
        one[np.random.default_rng(0).random(one.shape) < share] = np.nan
    result = run(sanitized, case, *maps)
    oracle = expected(case, *maps)  # a NaN of NumPy spreads: what is no NaN has seen none, or two infinities
    assert result.status == SUCCESS
    clean = ~np.isnan(oracle)
    np.testing.assert_array_equal(result.output[clean], oracle[clean])


@on_the_host
@every_format
@pytest.mark.parametrize("empty", range(4))
def test_empty_map_is_no_error(counting, map_format, empty):
    shape = [2, 3, 4, 5]
    shape[empty] = 0
    maps = [np.zeros(shape, np.float32 if map_format == LINEAR_FLOAT else np.float16)] * 2
    assert run(counting, Case(TOP_LEFT, map_format, tuple(shape)), *maps).status == SUCCESS


@on_the_host
@pytest.mark.parametrize(
    "wrong",
    [
        {"corner": 2},
        {"corner": -1},
        {"map_format": 3},
        {"map_format": CHANNELS_LAST, "offset": 8},
        {"shape": (1, -1, 4, 8)},
        {"shape": (1, 1, 1, 2**30 + 1)},
        {"shape": (2**20, 2**20, 2**20, 2**20)},
    ],
    ids=str,
)
def test_impossible_request_is_refused_and_writes_nothing(sanitized, wrong):
    maps = [np.zeros((1, 8, 4, 8), np.float16)] * 2
    case = replace(Case(TOP_LEFT, LINEAR_HALF, (1, 8, 4, 8)), **wrong)
    result = run(sanitized, case, *maps)
    assert result.status == INVALID_VALUE
    assert (result.packed.view(np.uint8) == 0xCD).all()


@pytest.fixture
def compiled(architecture):
    """What nvcc says of each instance of the kernel."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on PATH: install the CUDA toolkit to compile the kernel for each architecture")
    command = [nvcc, "-std=c++17", "-O3", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra", "-Xptxas", "-v"]
    command += [f"-arch=sm_{architecture}", "-c", UNITS[0], "-o", "corner_pool.o"]
    return build_cache.printed([[command]]).split("Compiling entry function")[1:]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvcc_compiles_without_spills_or_stack(compiled):
    assert len(compiled) == 10  # two corners of: float and half, whole vectors or not, and half channels-last
    for report in compiled:
        name = report.split("'")[1]
        stack, stores, loads = map(int, re.search(r"(\d+) bytes stack frame, (\d+) \D+(\d+)", report).groups())
        assert (stack, stores, loads) == (0, 0, 0), name
        assert int(re.search(r"Used (\d+) registers", report)[1]) <= 128, name  # for a block of 512 threads


def test_whole_vectors_move_by_16_bytes():
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not on PATH: install the CUDA toolkit to see what it makes of the kernel")
    command = [nvcc, "-std=c++17", "-arch=compute_90", "-ptx", UNITS[0], "-o", "corner_pool.ptx"]
    ptx = build_cache.build([[command]], ["corner_pool.ptx"]) / "corner_pool.ptx"
    kernels = ptx.read_text().split(".visible .entry ")[1:]
    assert len(kernels) == 10
    for kernel in kernels:
        name = kernel.partition("(")[0]
        accesses = set(re.findall(r"(?:ld|st)\.global\S*", kernel))
        # Variant<element, channels last, whole vectors, top-left>; the second flag in the mangled name tells.
        if re.findall(r"Lb([01])E", name)[1] == "1":
            assert accesses == {"ld.global.nc.v4.u32", "st.global.cg.v4.u32"}, name
        else:
            assert not any(".v4" in access for access in accesses), name
