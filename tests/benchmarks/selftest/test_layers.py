"""The self-test's layers L1 to L5, with what this machine has, and with planted faults."""

import re
import shutil
import textwrap
from importlib import util

import build_cache
import pytest
from host import plugin_host

from cornernet_bench.kernels import check as kernels
from cornernet_bench.kernels.checkout_tests import run_tests
from cornernet_bench.selftest import layers as selftest_layers
from cornernet_bench.selftest.calls import CUDA_USES
from cornernet_bench.selftest.notes import Notes
from cornernet_bench.selftest.report import Request
from cornernet_bench.selftest.run import run_layer
from cornernet_bench.selftest.worker import find
from cornernet_runtime.plugin import PLUGIN_VARIABLE
from cornernet_runtime.version import __version__

MARK = f"cornernet_plugins version {__version__} for TensorRT 11"
NO_TESTS = "tests: the tests are not here: run it from a checkout"


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "found.json")


@pytest.fixture
def installed(tmp_path):
    """What to do in an installation: no checkout around it, so no tests."""
    return Request(checkout=str(tmp_path))


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs a layer of an installation in its process, after a line of Python."""

    def run(layer, change="", limit_s=300.0):
        folder = tmp_path / "planted"
        folder.mkdir()
        code = f"""
            from cornernet_bench.kernels import check as kernels, cases as kernels_cases, pooling_library
            from cornernet_bench.selftest import layers as selftest_layers
            {change}
            """
        (folder / "sitecustomize.py").write_text(textwrap.dedent(code), encoding="utf-8")
        monkeypatch.syspath_prepend(folder)
        return run_layer(layer, Request(checkout=str(folder)), limit_s, lambda _line: None)[0]

    return run


@pytest.fixture
def lean():
    """NVIDIA's lean runtime, whose registry needs no GPU; it is not imported here."""
    if util.find_spec("tensorrt_lean_bindings") is None:
        pytest.skip("pip install tensorrt-lean-cu13-libs tensorrt-lean-cu13-bindings")


@pytest.fixture(scope="module")
def library():
    """The library of plugins, built for the CPU."""
    if (reason := plugin_host.why_not()) is not None:
        pytest.skip(reason)
    return plugin_host.build_library(["-O0"])


def compiled(code):
    """Return a library that says that it is ours and does what ``code`` says."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is needed to compile a library")
    return build_cache.library("libcornernet_plugins.so", f'const char mark[] = "{MARK}";\n{code}\n')


# L1 and L2.


@pytest.mark.slow
def test_l1_runs_the_tests_of_the_kernels_and_keeps_what_failed(tmp_path, notes):
    folder = tmp_path / "tests" / "kernels"
    folder.mkdir(parents=True)
    (folder / "test_one.py").write_text("def test_sound(): pass\n")
    assert find("L1", Request(checkout=str(tmp_path)), notes).state == "passed"
    (folder / "test_two.py").write_text("def test_broken(): assert 2 == 3\n")
    found = find("L1", Request(checkout=str(tmp_path)), notes)
    assert found.state == "failed"
    assert "1 failed, 1 passed" in found.said
    assert "test_two.py::test_broken" in found.said
    assert "assert 2 == 3" in found.output


def test_tests_that_skip_themselves_leave_a_layer_partly_proven_and_other_layers_tests_go_unmentioned(tmp_path, notes):
    folder = tmp_path / "tests" / "kernels"
    folder.mkdir(parents=True)
    (folder / "test_one.py").write_text(
        "import pytest\ndef test_sound(): pass\ndef test_nvcc(): pass\n"
        "@pytest.mark.parametrize('n', range(3))\ndef test_other(n): pytest.skip('g++ is not installed')\n"
    )
    found = find("L1", Request(checkout=str(tmp_path)), notes)
    assert found.state == "partly"
    assert re.fullmatch(r"1 passed, 3 skipped in [\d.]+s \(g\+\+ is not installed\)", found.said)


def test_a_failed_test_is_named_in_full(tmp_path):
    (tmp_path / "test_one.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', [0], ids=[\"stream's wait\"])\ndef test_it(n): assert n\n"
    )
    tested = run_tests(tmp_path, ["test_one.py"])
    assert tested.state == "failed"
    assert tested.said.endswith("s: test_one.py::test_it[stream's wait]")


def test_how_many_tests_are_done_is_told(tmp_path):
    (tmp_path / "test_one.py").write_text("def test_a(): pass\ndef test_b(): pass\n")
    said = []
    assert run_tests(tmp_path, ["test_one.py"], say=said.append, tell_s=0).state == "passed"
    assert said == ["1 of 2 tests", "2 of 2 tests"]


def test_l1_of_an_installation_is_skipped(installed, notes):
    found = find("L1", installed, notes)
    assert (found.state, found.said) == ("skipped", "the tests are not here: run it from a checkout")


def test_l2_compiles_for_the_architectures_asked_for(monkeypatch, notes):
    try:
        kernels.nvrtc_version()
    except kernels.KernelError as error:
        pytest.skip(str(error))
    monkeypatch.setattr(kernels, "sources", lambda: ["preprocess"])
    found = find("L2", Request(architectures=(80, 90)), notes)
    assert found.state == "passed"
    assert found.said.startswith("2 kernels for 2 architectures: no warning, no spill, no stack frame")
    assert [row["architecture"] for row in found.figures["resources"]] == [80, 80, 90, 90]


# L3.


@pytest.mark.usefixtures("lean")
def test_l3_walks_the_library_in_the_real_registry(library, monkeypatch, run):
    monkeypatch.setenv(PLUGIN_VARIABLE, str(library))
    found = run("L3")
    assert found.state == "passed", found
    assert f"has and makes TopLeftPool and BottomRightPool of plugin {__version__}; skipped: {NO_TESTS}" in found.said
    assert found.figures["plugin"] == {"path": str(library), "version": __version__, "tensorrt": 11}
    assert found.figures["registry_of"].startswith("tensorrt_lean_bindings 11.")


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("TopLeftPool", "2", "TopLeftPool: timing cache: 'TopLeftPool {here}', not 'TopLeftPool 2'"),
        ("BottomRightPool", "", "BottomRightPool: timing cache: 'BottomRightPool {here}', not 'BottomRightPool '"),
    ],
)
def test_l3_tells_a_plugin_that_is_not_what_it_says(library, monkeypatch, run, name, version, said):
    monkeypatch.setenv(PLUGIN_VARIABLE, str(library))
    change = (
        "real = selftest_layers._problems_of_creator; selftest_layers._problems_of_creator = "
        f"lambda trt, name, version: real(trt, name, {version!r}) if name == {name!r} else []"
    )
    found = run("L3", change)
    assert found.state == "failed"
    assert said.format(here=__version__) in found.said


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no library", "expected libcornernet_plugins.so of this project, found no version of it inside"),
        (f"{MARK}\0".encode(), "does not load here"),
        (f"cornernet_plugins version {__version__} for TensorRT 9\0".encode(), "built for TensorRT 9, here is 11."),
        (b"", "cannot be read as a library of plugins"),
    ],
    ids=["foreign", "broken", "other TensorRT", "empty"],
)
def test_l3_tells_a_broken_library(tmp_path, monkeypatch, run, content, said):
    library = tmp_path / "libcornernet_plugins.so"
    library.write_bytes(content)
    monkeypatch.setenv(PLUGIN_VARIABLE, str(library))
    found = run("L3")
    assert found.state == "failed"
    assert said in found.said


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { abort(); }", "crashed: SIGABRT"),
        ("int nothing;", "does not take it as a library of the plugins TopLeftPool, BottomRightPool"),
    ],
    ids=["crash", "no plugins"],
)
def test_l3_outlives_a_library_that_crashes_or_has_no_plugins(monkeypatch, run, code, said):
    library = compiled(code)
    monkeypatch.setenv(PLUGIN_VARIABLE, str(library))
    found = run("L3")
    assert found.state == "failed"
    assert said in found.said
    assert found.figures["plugin"]["path"] == str(library)


@pytest.mark.usefixtures("tensorrt")  # which lets no library be found
def test_l3_without_a_library_is_skipped_and_says_where_it_looked(installed, notes):
    found = find("L3", installed, notes)
    assert found.state == "skipped"
    assert "no plugin found; looked at" in found.said
    assert NO_TESTS in found.said


@pytest.mark.usefixtures("tensorrt")
def test_l3_without_a_library_is_partly_proven_by_its_tests(tmp_path, notes):
    (tmp_path / "tests" / "plugins").mkdir(parents=True)
    (tmp_path / "tests" / "plugins" / "test_plugin_library.py").write_text("def test_sound(): pass\n")
    found = find("L3", Request(checkout=str(tmp_path)), notes)
    assert found.state == "partly"
    assert found.said.startswith("tests: 1 passed in ")
    assert "; skipped: no plugin found; looked at" in found.said


def test_l3_tells_a_variable_that_names_no_file(installed, monkeypatch, notes):
    monkeypatch.setenv(PLUGIN_VARIABLE, "nowhere.so")
    found = find("L3", installed, notes)
    assert (found.state, "names no file: nowhere.so" in found.said) == ("failed", True)


# L4.


def test_l4_holds_the_installed_cuda_core_against_the_calls(installed, notes):
    pytest.importorskip("cuda.core")
    found = find("L4", installed, notes)
    assert found.state == "partly"
    assert f"has all {len(CUDA_USES)} that are used" in found.said
    assert "skipped: TensorRT is not installed: pip install tensorrt" in found.said


def test_l4_tells_what_an_installed_version_lacks(installed, monkeypatch, notes):
    pytest.importorskip("cuda.core")
    uses = (*CUDA_USES, "Stream.fly(1)", "Buffer.copy_from(2)", "Graph.wings", *(f"Graph.wing{n}" for n in range(4)))
    monkeypatch.setattr(selftest_layers, "CUDA_USES", uses)
    found = find("L4", installed, notes)
    assert found.state == "failed"
    assert f"lacks 7 of {len(uses)}: Stream.fly(1) is not there; Buffer.copy_from(2): takes " in found.said
    assert "Graph.wing1 is not there and 2 more" in found.said
    assert len(found.figures["lacking"]) == 7


def test_l4_with_neither_is_skipped(installed, monkeypatch, notes):
    def missing():
        raise ImportError("No module named 'cuda'")

    monkeypatch.setattr(selftest_layers, "cuda_surface", missing)
    found = find("L4", installed, notes)
    assert found.state == "skipped"
    assert "cuda.core is not installed (No module named 'cuda')" in found.said


def test_l4_tells_a_tensorrt_that_does_not_load_and_looks_at_the_rest(installed, tmp_path, monkeypatch, notes):
    pytest.importorskip("cuda.core")
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = find("L4", installed, notes)
    assert found.state == "failed"
    assert "TensorRT does not load (libnvinfer.so.11: cannot open shared object file)" in found.said
    assert f"has all {len(CUDA_USES)}" in found.said


# L5.


@pytest.mark.skipif(kernels._why_no_gpu() is None, reason="there is a GPU here")
def test_l5_without_a_gpu_is_skipped_and_where_one_is_required_fails(monkeypatch, notes):
    monkeypatch.delenv(kernels.REQUIRE_GPU, raising=False)
    assert (found := find("L5", Request(), notes)).state == "skipped"
    assert found.said == "there is no GPU"
    monkeypatch.setenv(kernels.REQUIRE_GPU, "1")
    assert find("L5", Request(), notes).state == "failed"


ON_THE_CPU = (
    "from functools import partial; kernels._why_no_gpu = lambda: None; kernels.find_gpus = lambda: (); "
    "pooling_library.why_not = lambda: 'not on this GPU'; kernels.CASES = ['preprocess']; "
    "kernels.Request = partial(kernels.Request, cases=1, iterations=0); "
)


@pytest.mark.parametrize(
    ("fault", "state", "said"),
    [
        ("", "passed", "each also as a captured graph: equal to the reference"),
        ("kernels_cases.preprocess = lambda *addresses, half: []", "failed", "values differ, first at [0, 0, 0, 0]"),
    ],
    ids=["sound", "wrong"],
)
def test_l5_on_a_driver_that_runs_launches_on_the_cpu(run, gpu_driver, kernel_cache, monkeypatch, fault, state, said):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(gpu_driver))
    monkeypatch.setenv("CORNERNET_CACHE", str(kernel_cache))
    found = run("L5", ON_THE_CPU + fault)
    assert (found.state, said in found.said) == (state, True), found
    assert found.figures["gpu"]["facts"]["name"] == "no GPU"
