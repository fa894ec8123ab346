"""``cornernet-bench kernels``: its table, its layers and its usage where there is no GPU."""

import json
import sys

import pytest
from host import kernel_host
from places import ROOT

from cornernet_bench import cli
from cornernet_bench.kernels import check as kernels
from cornernet_bench.kernels import resources as kernels_resources
from cornernet_bench.kernels.cases import design_launches
from cornernet_bench.kernels.check import Layer
from cornernet_bench.kernels.resources import BEGIN, END, LIMITS, blocks_in_flight, measure, replace_table, sources
from cornernet_runtime.errors import CornerNetError, KernelError
from cornernet_runtime.kernels.program import cuda_headers, nvrtc_version

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


@pytest.mark.slow
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


@pytest.mark.slow
def test_l1_runs_the_tests_of_the_kernels_and_tells_which_failed(tmp_path):
    folder = tmp_path / "tests" / "kernels"
    folder.mkdir(parents=True)
    (folder / "test_one.py").write_text("def test_sound(): pass\ndef test_with_nvcc(): assert 0\n")
    layer = kernels._on_the_cpu(tmp_path)
    assert layer.state == "passed"
    assert layer.said.startswith("1 passed in ")
    (folder / "test_two.py").write_text("def test_broken(): assert 0\n")
    layer = kernels._on_the_cpu(tmp_path)
    assert layer.state == "failed"
    assert "test_two.py::test_broken" in layer.said


def test_l1_without_a_checkout_is_skipped_by_name(tmp_path):
    assert kernels._on_the_cpu(tmp_path) == Layer("L1", "skipped", "the tests are not here: run it from a checkout")


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
