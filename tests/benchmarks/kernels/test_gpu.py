"""``cornernet-bench kernels`` on a driver that runs launches on the CPU."""

import json
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from places import ROOT

from cornernet_bench.kernels import check as kernels
from cornernet_bench.kernels import pooling_library
from cornernet_bench.kernels.cases import CASES, fixed_cases
from cornernet_bench.kernels.check import Layer
from cornernet_runtime.errors import CornerNetError, KernelError


@pytest.fixture
def run(gpu_driver, kernel_cache):
    """Return a function that runs the command on that driver, after a line of Python; returns status and output."""

    def run(change, *arguments):
        code = f"""
            import sys
            from cornernet_bench import cli
            from cornernet_bench.kernels import cases, check as kernels, gpu, pooling_library
            gpu.LEAST_FLUSH = 1 << 14
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


@pytest.mark.slow
def test_on_a_gpu_cases_of_every_kernel_are_checked(run, tmp_path):
    status, said = run("", "--cases", "1", "--iterations", "0", "--json", str(tmp_path / "report.json"))
    assert status == 0, said
    report = json.loads((tmp_path / "report.json").read_text())
    expected = {kernel: 1 + len(list(fixed_cases(kernel, np.random.default_rng(0)))) for kernel in CASES}
    assert report["gpu"]["checked"] == {kernel: count for kernel, count in expected.items() if kernel != "corner_pool"}
    assert report["gpu"]["timings"] == []


@pytest.mark.slow
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


@pytest.mark.slow
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
    wrong = "kernels.CASES = ['preprocess']; cases.preprocess = lambda *addresses, half: []"
    status, said = run(wrong, "--cases", "1", "--iterations", "0")
    assert status == 1
    assert "L5: preprocess" in said
    assert "values differ, first at [0, 0, 0, 0]: nan" in said


@pytest.mark.slow
def test_the_library_of_corner_pooling_is_built_by_nvcc(tmp_path):
    if (reason := pooling_library.why_not()) is not None:
        pytest.skip(reason)
    library = pooling_library.build_library(tmp_path, (9, 0))
    pooling = pooling_library.PoolingLibrary(library)
    # The launcher's own check comes before it asks for a device.
    with pytest.raises(CornerNetError, match="launchCornerPool returned 1"):
        pooling.launch(pooling_library.PoolingCall(2, 0, 16, 16, 16, (1, 1, 1, 1)), 0, 0, 0)
    assert pooling.workspace_bytes(pooling_library.PoolingCall(0, 0, 16, 16, 16, (1, 2, 17, 10000))) == 2 * 40000
