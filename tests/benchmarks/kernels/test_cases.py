"""The cases of ``cornernet-bench kernels``, and how what a GPU gave is judged."""

import numpy as np
import pytest
from host import host_cuda
from places import ROOT

from cornernet_bench.kernels import pooling_library
from cornernet_bench.kernels import resources as kernels_resources
from cornernet_bench.kernels.cases import (
    CASES,
    DESIGNS,
    design_launches,
    differing,
    fixed_cases,
    random_cases,
    timed_cases,
)
from cornernet_bench.kernels.decode_cases import unmatched
from cornernet_bench.kernels.synthetic import INPUT, crowded_maps
from cornernet_runtime.bundle.spec import DecodeParameters
from cornernet_runtime.processing.decode import decode
from cornernet_runtime.processing.geometry import cells_to_input, clip_to_frame, fit


@pytest.mark.parametrize("kernel", CASES)
def test_a_poisoned_output_is_a_problem(kernel):
    (case,) = random_cases(kernel, np.random.default_rng(0), 1)
    assert case.problem(case.memory) is not None


@pytest.mark.parametrize("kernel", CASES)
def test_cases_are_the_same_for_the_same_seed(kernel):
    first, second = (next(random_cases(kernel, np.random.default_rng(5), 1)) for _ in range(2))
    assert first.title == second.title
    for name, array in first.memory.items():
        if name not in {holder for holder, _, _ in first.pointers}:
            np.testing.assert_array_equal(array, second.memory[name])


@pytest.mark.parametrize("kernel", DESIGNS)
def test_fixed_cases_launch_every_kernel(kernel):
    cases = fixed_cases(kernel, np.random.default_rng(0))
    launched = {launch.kernel for case in cases for launch in case.start(addresses_for(case))}
    assert launched == {launch.kernel for launch in design_launches(kernel)}


def test_fixed_cases_launch_every_variant_of_corner_pooling():
    launched = set()
    for case in fixed_cases("corner_pool", np.random.default_rng(0)):
        call = case.start(addresses_for(case))
        corner = ("top-left", "bottom-right")[call.corner]
        element, _, last = pooling_library.FORMATS[call.map_format].partition(", ")
        whole = call.shape[3] % (4 if element == "float" else 8) == 0
        launched.add(f"{corner}, {element}, {last or ('rows of whole vectors' if whole else 'other rows')}")
    assert launched == {kernel.label for kernel in kernels_resources._pooling_kernels()}


def addresses_for(case):
    """Addresses as a device gives them, of nothing."""
    return {name: 256 * (index + 1) for index, name in enumerate(case.memory)}


def test_postprocessing_is_timed_on_a_thousand_candidates_of_one_class():
    *_, case = timed_cases("postprocess", np.random.default_rng(0))
    assert (case.target_us, case.graph, len(case.start(addresses_for(case)))) == (60.0, True, 5)
    found = decode(crowded_maps(np.random.default_rng(0)), DecodeParameters())
    assert found.labels.tolist() == [0] * 1000
    placement = fit((1024, 1024), (INPUT, INPUT))
    _, inside = clip_to_frame(placement.to_frame(cells_to_input(found.boxes, (INPUT, INPUT), 4)), placement.extent)
    assert inside.all()


SCORES = np.array([0.9, 0.8, 0.7], np.float32)
BOXES = np.arange(12, dtype=np.float32).reshape(3, 4)
LABELS = np.array([0, 1, 0])


def test_candidates_of_nearly_equal_scores_may_change_places():
    close = SCORES.copy()
    close[1] = close[0] * np.float32(1 - 1e-7)
    swapped = [1, 0, 2]
    assert unmatched((BOXES[swapped], close, LABELS[swapped]), (BOXES, close, LABELS), 5e-7) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ((BOXES[:2], SCORES[:2], LABELS[:2]), "2 found instead of 3"),
        ((BOXES, SCORES * np.float32(1 + 1e-5), LABELS), "score 2 is"),
        ((BOXES + np.float32(0.1), SCORES, LABELS), "number 0, label 0 at"),
        ((BOXES, SCORES, LABELS[::-1] * 2), "is not in the reference"),
        ((BOXES[[0, 0, 2]], SCORES, LABELS), "number 1, label 1 at"),
        ((BOXES, SCORES[[0, 2, 1]], LABELS), "score 2 is"),
        ((BOXES, SCORES * np.float32(np.nan), LABELS), "scores"),
    ],
    ids=["missing", "score", "box", "label", "twice", "order", "nan"],
)
def test_what_a_gpu_found_wrong_is_told(found, said):
    assert said in unmatched(found, (BOXES, SCORES, LABELS), 5e-7)


def test_what_differs_is_told():
    found = np.array([[1.0, np.nan], [3.0, np.inf]], np.float32)
    assert differing(found, found.copy()) is None
    expected = found.copy()
    expected[1, 0] = 4
    assert differing(found, expected) == "1 of 4 values differ, first at [1, 0]: 3.0, not 4.0"
    assert differing(found, np.ones((2, 2), np.float32)).startswith("3 of 4 values differ, first at [0, 1]: nan")


@pytest.fixture(scope="module")
def pooling_on_the_cpu():
    """The library of corner pooling, whose kernel runs on the CPU."""
    if (reason := host_cuda.why_not()) is not None:
        pytest.skip(reason)
    plugins = ROOT / "plugins"
    units = ["entry.cu", plugins / "corner_pool.cu"]
    flags = ["-O2", "-fPIC", "-shared", f"-I{plugins}"]
    texts = {"entry.cu": pooling_library.ENTRY}
    return pooling_library.PoolingLibrary(host_cuda.build("libpooling.so", units, flags, texts=texts))


@pytest.mark.slow
def test_the_fixed_cases_of_corner_pooling_hold_on_the_cpu(pooling_on_the_cpu):
    workspaces = 0
    for case in fixed_cases("corner_pool", np.random.default_rng(0)):
        call = case.start({name: array.ctypes.data for name, array in case.memory.items()})
        if call.shape[0] * call.shape[1] > 1 << 16:
            continue  # seconds each; the tests of the plugin have one of them
        size = pooling_on_the_cpu.workspace_bytes(call)
        workspace = np.empty(size + 16, np.uint8)
        workspaces += size > 0
        memory = {name: aligned(array) for name, array in case.memory.items()}
        call = case.start({name: array.ctypes.data for name, array in memory.items()})
        pooling_on_the_cpu.launch(call, workspace.ctypes.data + -workspace.ctypes.data % 16, size, 0)
        assert case.problem(memory) is None, case.title
    assert workspaces == 6


def aligned(array):
    """Return a copy that lies at a multiple of 16 bytes, as on a device."""
    raw = np.empty(array.nbytes + 16, np.uint8)
    copy = raw[-raw.ctypes.data % 16 :][: array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
