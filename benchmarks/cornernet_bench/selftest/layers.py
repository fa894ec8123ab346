"""The self-test's layers: each is a function of the request that says what it found."""

from __future__ import annotations

import importlib
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cornernet_bench.kernels import check as kernels
from cornernet_bench.kernels.checkout_tests import run_tests
from cornernet_bench.selftest.api_surface import cuda_surface, tensorrt_surface
from cornernet_bench.selftest.calls import CUDA_USES, TENSORRT_USES, lacking
from cornernet_bench.selftest.path import whole_path
from cornernet_bench.selftest.report import Finding, joint_state
from cornernet_runtime.backends.tensorrt_log import Remarks, import_tensorrt
from cornernet_runtime.backends.tensorrt_plugin import NAMESPACE, OPERATORS, PROTOCOL, load_plugin, no_plugin_message
from cornernet_runtime.bundle.records import to_json
from cornernet_runtime.errors import CornerNetError
from cornernet_runtime.plugin import find_plugin, plugin_info
from cornernet_runtime.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from cornernet_bench.kernels.checkout_tests import Tested
    from cornernet_bench.selftest.notes import Notes
    from cornernet_bench.selftest.report import Request, State

LEAN = ("tensorrt_lean", "tensorrt_lean_bindings")  # NVIDIA's runtime that only runs engines has the same registry
NAMED = 5  # of what is wrong, in a line


def kernels_on_the_cpu(request: Request, notes: Notes) -> Finding:
    """L1: the kernels' tests of a checkout."""
    notes.say("the tests of the kernels, some minutes")
    paths = ("tests/kernels", "tests/plugins/test_corner_pool.py")
    tested = run_tests(Path(request.checkout), paths, kernels.TESTS_OF_COMPILERS, notes.say)
    return Finding(_state(tested), tested.said, output=tested.output)


def kernels_compiled(request: Request, notes: Notes) -> Finding:
    """L2: the kernels through NVRTC."""
    architectures = request.architectures or kernels.Request().architectures
    return _of_kernels(kernels.Request(("L2",), architectures), notes)


def kernels_on_the_gpu(_request: Request, notes: Notes) -> Finding:
    """L5: the kernels checked and timed."""
    return _of_kernels(kernels.Request(("L5",)), notes)


def _of_kernels(request: kernels.Request, notes: Notes) -> Finding:
    report = kernels.check_kernels(request, lambda line: notes.say(line.partition(": ")[2]))
    (layer,) = report.layers
    figures = {"resources": to_json(report.resources)} if report.resources else {}
    figures |= {"gpu": to_json(report.gpu)} if report.gpu else {}
    return Finding(cast("State", layer.state), layer.said, figures)


def plugin_library(request: Request, notes: Notes) -> Finding:
    """L3: the plugin library that is found, in the registry of the TensorRT that is installed; the tests of a checkout.

    The latter build the library for the CPU, where there are headers, and walk it with a harness.
    """
    registry = _part(lambda: _in_the_registry(notes))
    notes.say("the tests of the library, a minute")
    tests = _tests(request, notes, "tests/plugins/test_plugin_library.py", "tests/plugins/test_tensorrt_headers.py")
    return _joined([registry], tests)


def _in_the_registry(notes: Notes) -> Finding:
    library = find_plugin()
    if library is None:
        return Finding("skipped", no_plugin_message())
    info = plugin_info(library)
    notes.keep(plugin={"path": str(library), **to_json(info)})
    trt = _tensorrt(*LEAN)
    if trt is None:
        return Finding("skipped", "neither TensorRT nor its lean runtime is installed: pip install tensorrt")
    notes.keep(registry_of=f"{trt.__name__} {trt.__version__}")
    remarks = Remarks(trt)  # lives as long as the registry uses its logger
    if start := getattr(trt, "init_libnvinfer_plugins", None):
        start(remarks.logger, "")  # NVIDIA's own, beside which ours must stand; the lean runtime has none
    load_plugin(trt, library)
    problems = [problem for name in OPERATORS for problem in _problems_of_creator(trt, name, info.version)]
    if problems:
        return Finding("failed", "; ".join([*problems[:NAMED], *remarks.errors]))
    said = f"{trt.__name__} {trt.__version__} has and makes {' and '.join(OPERATORS)} of plugin {info.version}"
    if info.version != __version__:
        said += f", which is older or newer than this version, {__version__}"
    return Finding("passed", said)


def _problems_of_creator(trt: Any, name: str, version: str) -> list[str]:  # noqa: ANN401 - need not be installed
    """Return what is wrong with the creator of a plugin, and with the plugin that it makes."""
    creator = trt.get_plugin_registry().get_creator(name, PROTOCOL, NAMESPACE)
    found = (creator.name, creator.plugin_version, creator.plugin_namespace, len(creator.field_names))
    problems = [] if found == (name, PROTOCOL, NAMESPACE, 0) else [f"{name}: the creator is {found}"]
    plugin = creator.create_plugin("selftest", trt.PluginFieldCollection([]), trt.TensorRTPhase.BUILD)
    if plugin is None:
        return [*problems, f"{name}: the creator makes no plugin"]
    kinds = trt.PluginCapabilityType
    core, build, run = (plugin.get_capability_interface(kind) for kind in (kinds.CORE, kinds.BUILD, kinds.RUNTIME))
    if core is None or build is None or run is None:
        return [*problems, f"{name}: the plugin lacks an interface"]
    facts = {
        "name": (core.plugin_name, name),
        "version": (core.plugin_version, PROTOCOL),
        "namespace": (core.plugin_namespace, NAMESPACE),
        "outputs": (build.num_outputs, 1),
        "timing cache": (build.timing_cache_id, f"{name} {version}"),
    }
    return problems + [
        f"{name}: {fact}: {have!r}, not {want!r}" for fact, (have, want) in facts.items() if have != want
    ]


def calls(request: Request, notes: Notes) -> Finding:
    """L4: what the builder and the GPU path call, in the installed bindings; and the tests of a checkout."""
    bindings = [_part(_calls_of_tensorrt), _part(_calls_of_cuda)]
    notes.say("the tests of the calls, a minute")
    return _joined(bindings, _tests(request, notes, "tests/test_api_surface.py"))


def _calls_of_tensorrt() -> Finding:
    trt = _tensorrt()
    if trt is None:
        return Finding("skipped", "TensorRT is not installed: pip install tensorrt")
    return _held(f"TensorRT {trt.__version__}", tensorrt_surface(trt), TENSORRT_USES)


def _calls_of_cuda() -> Finding:
    try:
        surface = cuda_surface()
    except ImportError as error:
        return Finding("skipped", f'cuda.core is not installed ({error}): pip install "cuda-core[cu13]"')
    return _held(f"cuda.core {surface['version']}", surface, CUDA_USES)


def _held(what: str, surface: dict[str, Any], uses: tuple[str, ...]) -> Finding:
    problems = lacking(surface, uses)
    figures = {"lacking": problems} if problems else {}
    if problems:
        more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        said = f"{what} lacks {len(problems)} of {len(uses)}: {'; '.join(problems[:NAMED])}{more}"
        return Finding("failed", said, figures)
    return Finding("passed", f"{what} has all {len(uses)} that are used")


def _tensorrt(*others: str) -> Any:  # noqa: ANN401
    """Return the module of TensorRT, or the first of others that are installed, or None.

    Raises:
        CornerNetError: It is installed and does not load.
    """
    if util.find_spec("tensorrt"):
        return import_tensorrt()
    name = next((name for name in others if util.find_spec(name)), None)
    if name is None:
        return None
    try:
        if name == "tensorrt_lean_bindings" and util.find_spec("tensorrt_lean_libs"):
            importlib.import_module("tensorrt_lean_libs")  # loads what the bindings need
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise CornerNetError(f"{name} does not load: {error}") from error


def _part(run: Callable[[], Finding]) -> Finding:
    """Return what a part of a layer found, and a failure where it raises an error of ours."""
    try:
        return run()
    except CornerNetError as error:
        return Finding("failed", str(error))


def _tests(request: Request, notes: Notes, *paths: str) -> Finding:
    tested = run_tests(Path(request.checkout), paths, say=notes.say)
    return Finding(tested.state, f"tests: {tested.said}", output=tested.output)


def _state(tested: Tested) -> State:
    """Return how a layer ended that consists of tests: partly where some of them skipped themselves."""
    return "partly" if tested.state == "passed" and tested.skipped else tested.state


def _joined(proofs: list[Finding], tests: Finding) -> Finding:
    """Return parts as one, what failed first, what was skipped last; without one of the proofs it is partly proven.

    Args:
        proofs: What is installed, looked at.
        tests: Of a checkout, which do without.
    """
    parts = [*proofs, tests]
    order = ("failed", "passed", "skipped")
    ordered = sorted(parts, key=lambda part: order.index(part.state or "failed"))
    said = "; ".join(f"skipped: {one.said}" if one.state == "skipped" else one.said for one in ordered)
    state = joint_state([part.state or "failed" for part in parts])
    if state == "passed" and any(part.state == "skipped" for part in proofs):
        state = "partly"
    if state == "skipped":
        said = "; ".join(part.said for part in parts)
    figures = {key: value for part in parts for key, value in part.figures.items()}
    return Finding(state, said, figures, "\n".join(filter(None, (part.output for part in parts))))


RUNNERS: dict[str, Callable[[Request, Notes], Finding]] = {
    "L1": kernels_on_the_cpu,
    "L2": kernels_compiled,
    "L3": plugin_library,
    "L4": calls,
    "L5": kernels_on_the_gpu,
    "L6": whole_path,
}
