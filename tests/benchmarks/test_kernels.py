"""``cornernet-bench kernels``: what it says where there is no GPU, and all that it does where there is one."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from host import host_cuda, kernel_host
from places import ROOT

from cornernet_bench import cli, kernels, kernels_resources, pooling_library
from cornernet_bench.kernels import Layer
from cornernet_bench.kernels_cases import (
    CASES,
    DESIGNS,
    design_launches,
    differing,
    fixed_cases,
    random_cases,
    timed_cases,
)
from cornernet_bench.kernels_decode_cases import unmatched
from cornernet_bench.kernels_resources import BEGIN, END, LIMITS, blocks_in_flight, measure, replace_table, sources
from cornernet_bench.synthetic import INPUT, crowded_maps
from cornernet_runtime.decode import decode
from cornernet_runtime.errors import CornerNetError, KernelError
from cornernet_runtime.geometry import cells_to_input, clip_to_frame, fit
from cornernet_runtime.kernels.program import cuda_headers, nvrtc_version
from cornernet_runtime.spec import DecodeParameters

DOCUMENT = ROOT / "docs" / "kernels.md"


def why_no_nvrtc():
    try:
        cuda_headers()
        nvrtc_version()
    except KernelError as error:
        return str(error)
    return None


with_nvrtc = pytest.mark.skipif(why_no_nvrtc() is not None, reason=str(why_no_nvrtc()))
without_gpu = pytest.mark.skipif(kernels._why_no_gpu() is None, reason="there is a GPU here")


# Blocks in flight.


@pytest.mark.parametrize(
    ("architecture", "registers", "shared", "threads", "blocks"),
    [
        (90, 32, 0, 128, 16),  # 64 warps
        (90, 33, 0, 128, 12),  # 40 registers by steps of 8: 12 warps a part, 48 in all
        (90, 113, 9728, 512, 1),  # 4 warps a part
        (90, 64, 0, 512, 2),
        (90, 65, 0, 512, 1),  # 72: 7 warps a part, 28 in all
        (90, 16, 0, 32, 32),  # no more blocks
        (86, 16, 0, 32, 16),
        (80, 16, 48 << 10, 32, 3),  # 49 KiB with the system's own of 164
        (75, 16, 32 << 10, 32, 2),  # none of the system's own
        (75, 16, 0, 1024, 1),
        (89, 40, 0, 256, 6),
        (120, 255, 0, 256, 1),
        (90, 255, 0, 1024, 0),
    ],
)
def test_blocks_in_flight_worked_out_by_hand(architecture, registers, shared, threads, blocks):
    assert blocks_in_flight(architecture, registers, shared, threads) == blocks


# The table.


@with_nvrtc
@pytest.mark.parametrize(
    ("source", "architecture"),
    [
        *((source, architecture) for source in sources() if source != "corner_pool" for architecture in LIMITS),
        ("corner_pool", 75),  # each takes 3 s
        ("corner_pool", 90),
    ],
)
def test_nvrtc_compiles_without_warnings_spills_or_stack_to_what_the_docs_list(source, architecture):
    rows = measure(source, architecture)  # raises when the compiler warns
    assert {(row.stack_bytes, row.spill_bytes) for row in rows} == {(0, 0)}
    document = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    if f"NVRTC {nvrtc_version()}." not in document:
        return  # the table was made with another one
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in document.splitlines() if "|" in line]
    (heading,) = (cells for cells in lines if cells[0] == "kernel")
    column = heading.index(f"sm_{architecture}")
    listed = {cells[0]: (cells[1], cells[2], cells[column]) for cells in lines if cells[0].startswith(f"{source}: ")}
    expected = {
        f"{row.source}: {row.kernel}": (str(row.threads), str(row.shared_bytes), in_flight(row)) for row in rows
    }
    assert listed == expected, "write it again: cornernet-bench kernels --layers L2 --table docs/kernels.md"


def in_flight(row):
    return f"{row.registers} / {row.blocks_in_flight}"


def test_a_table_replaces_what_stands_between_the_marks():
    assert replace_table(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new") == f"before\n{BEGIN}\n\nnew\n{END}\nafter\n"


def test_a_document_without_the_marks_is_refused():
    with pytest.raises(CornerNetError, match="between the lines"):
        replace_table("a document\n", "new")


@pytest.mark.parametrize("source", [source for source in sources() if source != "corner_pool"])
def test_every_kernel_of_a_source_has_a_design_point(source):
    text = (kernel_host.KERNELS / f"{source}.cu").read_text()
    named = [name for name, _structure in kernel_host.SIGNATURE.findall(text)]
    assert sorted(launch.kernel for launch in design_launches(source)) == sorted(named)


# The command.


@with_nvrtc
@without_gpu
def test_without_a_gpu_it_compiles_and_says_that_l5_was_skipped(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(kernels.REQUIRE_GPU, raising=False)
    monkeypatch.setattr(kernels, "sources", lambda: ["preprocess"])
    report, table = tmp_path / "report.json", tmp_path / "table.md"
    arguments = [
        "kernels",
        "--layers",
        "L2,L5",
        "--architectures",
        "75,90",
        "--json",
        str(report),
        "--table",
        str(table),
    ]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "L2 passed: 2 kernels for 2 architectures: no warning, no spill, no stack frame" in said
    assert "L5 skipped: there is no GPU" in said
    content = json.loads(report.read_text())
    assert [(layer["name"], layer["state"]) for layer in content["layers"]] == [("L2", "passed"), ("L5", "skipped")]
    assert content["gpu"] is None
    assert {"date", "command", "cpu", "versions"} <= set(content)
    assert [row["architecture"] for row in content["resources"]] == [75, 75, 90, 90]
    assert all(row["stack_bytes"] == row["spill_bytes"] == 0 < row["registers"] for row in content["resources"])
    assert "| preprocess: preprocessHalf | 128 | 0 |" in table.read_text()


@without_gpu
def test_a_gpu_that_is_required_and_absent_is_a_failure(capsys, monkeypatch):
    monkeypatch.setenv(kernels.REQUIRE_GPU, "1")
    assert cli.main(["kernels", "--layers", "L5"]) == 1
    assert "CORNERNET_REQUIRE_GPU=1, but there is no GPU" in capsys.readouterr().err


def test_a_spill_is_a_failure(capsys, monkeypatch):
    spilling = kernels_resources.Resources("preprocess", "preprocessHalf", 90, 32, 0, 128, 16, 0, 8)
    monkeypatch.setattr(kernels, "measure", lambda *_: [spilling])
    monkeypatch.setattr(kernels, "nvrtc_version", lambda: "13.5")
    monkeypatch.setattr(kernels, "sources", lambda: ["preprocess"])
    assert cli.main(["kernels", "--layers", "L2", "--architectures", "90"]) == 1
    assert "L2: spills or a stack frame: preprocess preprocessHalf for sm_90" in capsys.readouterr().err


def test_without_nvrtc_l2_is_skipped_by_name(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert cli.main(["kernels", "--layers", "L2"]) == 0
    assert "L2 skipped: NVRTC is not installed" in capsys.readouterr().out


def test_l1_runs_the_tests_of_the_kernels_and_tells_which_failed(tmp_path, monkeypatch):
    folder = tmp_path / "tests" / "kernels"
    folder.mkdir(parents=True)
    (folder / "test_one.py").write_text("def test_sound(): pass\ndef test_with_nvcc(): assert 0\n")
    monkeypatch.setattr(kernels, "ROOT", tmp_path)
    layer = kernels._on_the_cpu()
    assert layer.state == "passed"
    assert layer.said.startswith("1 passed in ")
    (folder / "test_two.py").write_text("def test_broken(): assert 0\n")
    layer = kernels._on_the_cpu()
    assert layer.state == "failed"
    assert "test_two.py::test_broken" in layer.said


def test_l1_without_a_checkout_is_skipped_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "ROOT", tmp_path)
    assert kernels._on_the_cpu() == Layer("L1", "skipped", "the tests are not here: run it from a checkout")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--layers", "L3"], "expected some of L1,L2,L5"),
        (["--layers", "L1,L1"], "expected some of L1,L2,L5"),
        (["--architectures", "x"], "expected numbers such as 80,90"),
        (["--cases", "-1"], "expected"),
    ],
)
def test_wrong_usage_ends_with_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["kernels", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_an_unknown_architecture_is_named(capsys):
    assert cli.main(["kernels", "--layers", "L2", "--architectures", "70"]) == 1
    assert "--architectures: expected some of 75, 80" in capsys.readouterr().err


# Cases.


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


# On a driver that runs launches on the CPU.


@pytest.fixture
def run(gpu_driver, kernel_cache):
    """Return a function that runs the command on that driver, after a line of Python; returns status and output."""

    def run(change, *arguments):
        code = f"""
            import sys
            from cornernet_bench import cli, kernels, kernels_cases, kernels_gpu, pooling_library
            kernels_gpu.LEAST_FLUSH = 1 << 14
            kernels._why_no_gpu = lambda: None
            kernels.find_gpus = lambda: ()
            pooling_library.why_not = lambda: "not on this GPU"
            {change}
            sys.exit(cli.main(["kernels", "--layers", "L5", *sys.argv[1:]]))
            """
        folders = [ROOT / name for name in ("runtime", "export", "benchmarks")]
        environment = {
            "LD_LIBRARY_PATH": str(gpu_driver),
            "CORNERNET_CACHE": str(kernel_cache),
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
        }
        done = subprocess.run(  # noqa: S603 - this interpreter
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


ONE_TIMED = "kernels.timed_cases = lambda kernel, rng: kernels.random_cases(kernel, rng, 1)"


def test_on_a_gpu_cases_of_every_kernel_are_checked(run, tmp_path):
    status, said = run("", "--cases", "1", "--iterations", "0", "--json", str(tmp_path / "report.json"))
    assert status == 0, said
    report = json.loads((tmp_path / "report.json").read_text())
    expected = {kernel: 1 + len(list(fixed_cases(kernel, np.random.default_rng(0)))) for kernel in CASES}
    assert report["gpu"]["checked"] == {kernel: count for kernel, count in expected.items() if kernel != "corner_pool"}
    assert report["gpu"]["timings"] == []


def test_on_a_gpu_cases_are_checked_timed_and_written_down(run, tmp_path):
    small = "kernels.CASES = ['preprocess', 'corner_pool']; " + ONE_TIMED
    status, said = run(small, "--cases", "2", "--iterations", "5", "--json", str(tmp_path / "report.json"))
    assert status == 0, said
    report = json.loads((tmp_path / "report.json").read_text())
    (layer,) = report["layers"]
    assert layer["state"] == "passed"
    assert (
        "each also as a captured graph: equal to the reference; corner_pool skipped: not on this GPU" in layer["said"]
    )
    gpu = report["gpu"]
    assert gpu["facts"]["name"] == "no GPU"
    assert gpu["checked"]["preprocess"] == 2 + 2 + 1  # fixed, random, timed
    assert [timing["kernel"] for timing in gpu["timings"]] == ["preprocess"]
    for timing in gpu["timings"]:
        assert timing["times_us"] == {"p10_us": 12.5, "p50_us": 12.5, "p90_us": 12.5, "p99_us": 12.5}
        assert timing["hot_times_us"] == timing["times_us"]
        assert (timing["target_us"], timing["graph"]) == (None, False)
        assert timing["iterations"] == 5
    assert gpu["copy_gb_s"] == pytest.approx(2 * 2**29 / 12.5 / 1e3)


def test_on_a_gpu_postprocessing_is_timed_as_a_graph_beside_its_target(run, tmp_path):
    small = (
        "from dataclasses import replace; from functools import partial; kernels.CASES = ['postprocess']; "
        "kernels.Request = partial(kernels.Request, warm_up=1); "
        "kernels.timed_cases = lambda kernel, rng: "
        "(replace(case, target_us=60.0, graph=True) for case in kernels.random_cases(kernel, rng, 1))"
    )
    status, said = run(small, "--cases", "1", "--iterations", "3", "--json", str(tmp_path / "report.json"))
    assert status == 0, said
    assert ": 12.50 us, at most 60 us wanted" in said
    (timing,) = json.loads((tmp_path / "report.json").read_text())["gpu"]["timings"]
    assert (timing["kernel"], timing["target_us"], timing["graph"]) == ("postprocess", 60.0, True)


def test_a_gpu_without_nvcc_is_a_failure_where_it_is_required(run, monkeypatch):
    monkeypatch.setenv(kernels.REQUIRE_GPU, "1")
    status, said = run("kernels.CASES = ['preprocess']", "--cases", "1", "--iterations", "0")
    assert status == 1
    assert "CORNERNET_REQUIRE_GPU=1, but corner_pool cannot be run: not on this GPU" in said


def test_an_nvcc_that_fails_loses_nothing_of_the_report(run, tmp_path):
    fail = (
        "kernels.CASES = ['preprocess', 'corner_pool']; pooling_library.why_not = lambda: None; "
        "from cornernet_runtime.errors import CornerNetError; "
        "pooling_library.build_library = lambda *_: (_ for _ in ()).throw(CornerNetError('nvcc knows no sm_199'))"
    )
    status, said = run(fail, "--cases", "1", "--iterations", "0", "--json", str(tmp_path / "report.json"))
    assert status == 1
    assert "L5: corner_pool: nvcc knows no sm_199" in said
    assert json.loads((tmp_path / "report.json").read_text())["gpu"]["checked"] == {"preprocess": 3}


def test_a_sanitizer_that_is_asked_for_and_absent_is_a_failure(run):
    absent = "kernels.CASES = ['preprocess']; kernels.shutil.which = lambda _name: None"
    status, said = run(absent, "--cases", "1", "--iterations", "0", "--sanitize")
    assert status == 1
    assert "--sanitize: compute-sanitizer is not on PATH" in said


def test_a_gpu_that_fails_loses_nothing_of_the_other_layers(monkeypatch):
    def fail(*_):
        raise KernelError("the GPU fell off the bus")

    monkeypatch.setattr(kernels, "_why_no_gpu", lambda: None)
    monkeypatch.setattr(kernels, "Gpu", fail)
    monkeypatch.setattr(kernels, "_compiled", lambda *_: (Layer("L2", "passed", ""), []))
    report = kernels.check_kernels(kernels.Request(("L2", "L5")), lambda _line: None)
    assert [(layer.state, layer.said) for layer in report.layers] == [
        ("passed", ""),
        ("failed", "the GPU fell off the bus"),
    ]


def test_a_kernel_that_is_wrong_on_a_gpu_is_a_failure(run):
    wrong = "kernels.CASES = ['preprocess']; kernels_cases.preprocess = lambda *addresses, half: []"
    status, said = run(wrong, "--cases", "1", "--iterations", "0")
    assert status == 1
    assert "L5: preprocess" in said
    assert "values differ, first at [0, 0, 0, 0]: nan" in said


def test_the_library_of_corner_pooling_is_built_by_nvcc(tmp_path):
    if (reason := pooling_library.why_not()) is not None:
        pytest.skip(reason)
    library = pooling_library.build_library(tmp_path, (9, 0))
    pooling = pooling_library.PoolingLibrary(library)
    # The launcher's own check comes before it asks for a device.
    with pytest.raises(CornerNetError, match="launchCornerPool returned 1"):
        pooling.launch(pooling_library.PoolingCall(2, 0, 16, 16, 16, (1, 1, 1, 1)), 0, 0, 0)
    assert pooling.workspace_bytes(pooling_library.PoolingCall(0, 0, 16, 16, 16, (1, 2, 17, 10000))) == 2 * 40000


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
