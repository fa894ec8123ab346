"""The shim that runs CUDA kernels on the CPU: sound kernels are right, and planted faults are caught."""

import subprocess
from pathlib import Path

import pytest
from host import host_cuda

pytestmark = pytest.mark.skipif(host_cuda.why_not() is not None, reason=str(host_cuda.why_not()))

FAULTS = Path(__file__).parent / "host_cuda_faults.cpp"
BLOCKS, THREADS = 4, 64
SOUND = {
    "reverse_in_blocks": [block * THREADS + i for block in range(BLOCKS) for i in reversed(range(THREADS))],
    "add_atomically": [BLOCKS * THREADS, *range(1, BLOCKS * THREADS)],
    "sum_vote_and_halve": [2 * sum(range(32)) + 300] * (BLOCKS * THREADS),
    "reduce_and_count": ([8631] * 16 + [11716] * 16) * (BLOCKS * THREADS // 32),
    "shuffle_in_half_a_warp": [15 - i % 32 if i < THREADS and i % 32 < 16 else i for i in range(BLOCKS * THREADS)],
    "pass_on_by_syncwarp": [i // 32 * 32 for i in range(BLOCKS * THREADS)],
}


@pytest.fixture(scope="module")
def fibers():
    return host_cuda.build("faults", [FAULTS], host_cuda.ADDRESS)


@pytest.fixture(scope="module")
def threads():
    return host_cuda.build("faults", [FAULTS], host_cuda.THREAD, "threads")


def run(program, kernel, seed=1):
    command = [program, kernel, str(seed)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)  # noqa: S603 - built here


@pytest.mark.parametrize("kernel", SOUND)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_sound_kernels_are_right_in_any_order(fibers, kernel, seed):
    done = run(fibers, kernel, seed)
    assert done.returncode == 0, done.stderr
    assert list(map(int, done.stdout.split())) == SOUND[kernel]


@pytest.mark.parametrize(
    "kernel",
    ["reverse_in_blocks", "add_atomically", "sum_vote_and_halve", "reduce_and_count", "pass_on_by_syncwarp"],
)
def test_sound_kernels_do_not_race(threads, kernel):
    done = run(threads, kernel)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(map(int, done.stdout.split())) == SOUND[kernel]


@pytest.mark.parametrize("kernel", ["write_behind_the_end", "write_behind_dynamic_shared"])
def test_access_out_of_bounds_is_caught(fibers, kernel):
    done = run(fibers, kernel)
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr


def test_missing_block_barrier_is_a_race(threads):
    assert "ThreadSanitizer: data race" in run(threads, "reverse_without_barrier").stderr


def test_missing_block_barrier_gives_wrong_numbers_in_random_order(fibers):
    done = run(fibers, "reverse_without_barrier")
    assert done.stdout.split() != list(map(str, SOUND["reverse_in_blocks"]))


def test_race_between_blocks_is_caught(threads):
    assert "ThreadSanitizer: data race" in run(threads, "add_in_a_race").stderr


@pytest.mark.parametrize("by", ["shuffle", "ballot", "reduction", "syncwarp_of_halves"])
def test_memory_not_ordered_by_a_syncwarp_of_the_lanes_is_a_race(threads, by):
    done = run(threads, f"pass_on_by_{by}")
    assert "ThreadSanitizer: data race" in done.stderr
    assert "in passOn" in done.stderr


@pytest.mark.parametrize(
    ("kernel", "what"),
    [
        ("shuffle_with_absent_lanes", "16 of 32 threads wait in __shfl_xor_sync"),
        ("shuffle_on_both_sides", "threads diverged: they meet from two places"),
        ("barrier_for_some", "threads diverged: they meet from two places"),
    ],
)
def test_divergence_is_named(fibers, kernel, what):
    done = run(fibers, kernel)
    assert done.returncode == 86
    assert what in done.stderr
