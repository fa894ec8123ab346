"""Rules of the house that a machine can hold, each failure naming its file."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
from places import ROOT

PACKAGES = {
    "cornernet_runtime": ROOT / "runtime",
    "cornernet_export": ROOT / "export",
    "cornernet_bench": ROOT / "benchmarks",
    "cornernet_train": ROOT / "training",
}
# The runtime is for machines without PyTorch, so what export is made of is as foreign to it as the other packages.
NOT_TO_IMPORT = {
    "cornernet_runtime": {
        "cornernet_export",
        "cornernet_bench",
        "cornernet_train",
        "onnx",
        "onnxscript",
        "safetensors",
        "tensorrt",
        "torch",
    },
    "cornernet_export": {"cornernet_bench", "cornernet_train"},
    "cornernet_bench": {"cornernet_train"},
    "cornernet_train": set(),
}
ALLOWED = {"runtime/cornernet_runtime/backends/tensorrt_log.py": {"tensorrt"}}  # when an engine is opened
MODULES = {
    path.relative_to(ROOT).as_posix(): path.relative_to(root)
    for package, root in PACKAGES.items()
    for path in sorted((root / package).rglob("*.py"))
}
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

# Escaped dots and groups keep these patterns from matching this file.
FORBIDDEN = {
    "path of a machine": r"(^|[^a-z])/(work|farm|tmp|root|home)/",
    "folder outside the tree": r"\.\./shared",
    "host of a package registry": r"pypi\.org|pythonhosted\.org|npmjs\.(org|com)|(deb|security)\.debian",
}

every_module = pytest.mark.parametrize("name", MODULES)


@every_module
def test_imports_point_one_way(name):
    package = MODULES[name].parts[0]
    foreign = NOT_TO_IMPORT[package] - ALLOWED.get(name, set())
    wrong = {top: line for top, line in imports_of(source(name)) if top in foreign}
    assert not wrong, f"{name} imports, at these lines, what {package} must not know: {wrong}"


@every_module
def test_module_has_a_docstring(name):
    assert ast.get_docstring(ast.parse(source(name))), f"{name} does not say what it is for"


@every_module
def test_module_has_at_most_400_lines(name):
    assert len(source(name).splitlines()) <= 400, f"{name} tells more than one story: split it"


def test_test_files_have_at_most_400_lines():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "tests").rglob("*.py")}
    assert [f"{path.relative_to(ROOT)}: {lines}" for path, lines in lengths.items() if lines > 400] == []


@every_module
def test_module_imports_from_the_source_roots(name, import_failures):
    assert name not in import_failures, import_failures[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_names_a_function(name):
    module, _, function = SCRIPTS[name].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_runtime_import_leaves_heavy_libraries_alone(tmp_path):
    heavy = ["torch", "onnx", "onnxruntime", "openvino", "tensorrt", "cuda"]
    code = (
        "import json, sys; from cornernet_runtime import Detector; "
        f"print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    assert json.loads(run_in_fresh_interpreter(code, tmp_path)) == []


def test_runtime_imports_within_half_a_second(tmp_path):
    code = (
        "from time import perf_counter; start = perf_counter(); from cornernet_runtime import Detector; "
        "print(perf_counter() - start)"
    )
    # The best of five: the first writes byte code, and the machine may be busy with other tests.
    best = min(float(run_in_fresh_interpreter(code, tmp_path)) for _ in range(5))
    assert best < 0.5


def test_no_placeholder_is_left_in_the_documents():
    marks = re.compile(r"\b(DEMO_|TRAINING_FACTS|[A-Z]+_TABLE|[A-Z]+_PICTURE)|^ACCURACY$", re.MULTILINE)
    documents = [path for path in (ROOT, ROOT / "docs", ROOT / "models") for path in path.glob("**/*.md")]
    documents = [path for path in documents if ".venv" not in path.parts and "build" not in path.parts]
    assert len(documents) >= 5
    assert [path.name for path in documents if marks.search(path.read_text())] == []


def test_tracked_text_names_no_machine_and_no_registry():
    found = [
        f"{path}:{number}: {what}: {line.strip()[:120]}"
        for path, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in FORBIDDEN.items()
        if re.search(pattern, line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "statement",
    [
        "import torch",
        "import torch.nn as nn",
        "from torch.nn import functional",
        "def late():\n    import torch",
        "if TYPE_CHECKING:\n    from torch import Tensor",
        "torch = importlib.import_module('torch')",
    ],
)
def test_imports_are_seen_wherever_they_stand(statement):
    assert [top for top, _ in imports_of(statement)] == ["torch"]


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("path of a machine", ["see /", "home/someone"]),
        ("folder outside the tree", ["..", "/shared/design.md"]),
        ("host of a package registry", ["https://pypi", ".org/project/x"]),
    ],
)
def test_forbidden_text_is_found(what, parts):
    assert re.search(FORBIDDEN[what], "".join(parts))


def source(name):
    return (ROOT / name).read_text(encoding="utf-8")


def imports_of(text):
    """Yield (top-level package, line) of each absolute import in ``text``, wherever it stands."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                imported = [alias.name for alias in names]
            case ast.ImportFrom(level=0, module=str(module)):
                imported = [module]
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                imported = [module]
            case _:
                continue
        for full_name in imported:
            yield full_name.partition(".")[0], node.lineno


@pytest.fixture(scope="module")
def import_failures(tmp_path_factory):
    """What went wrong, by file, when one interpreter imported every module, as if not installed."""
    names = {
        name: ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for name, path in MODULES.items()
        if path.stem != "__main__"
    }
    code = f"""
import importlib, json, traceback
from importlib import metadata

find = metadata.Distribution.from_name

def find_others(name):
    if name == "cornernet-trt":
        raise metadata.PackageNotFoundError(name)
    return find(name)

metadata.Distribution.from_name = find_others
failures = {{}}
for file, module in {names}.items():
    try:
        found = importlib.import_module(module).__file__
        if not found.endswith(file):
            failures[file] = "came from " + found
    except Exception:
        failures[file] = traceback.format_exc()
print(json.dumps(failures))
"""
    return json.loads(run_in_fresh_interpreter(code, tmp_path_factory.mktemp("elsewhere")).splitlines()[-1])


def run_in_fresh_interpreter(code, folder):
    """Run ``code`` in ``folder`` with the four source roots on PYTHONPATH, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PACKAGES.values()))}
    done = subprocess.run(  # noqa: S603 - the code is this file's own
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tracked_texts():
    """Yield (path, text) of each file that git tracks and that is text."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so no list of tracked files")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603 - fixed
    for path in filter(None, listed.split("\0")):
        if (ROOT / path).is_file():
            data = (ROOT / path).read_bytes()
            if b"\0" not in data[:8192]:
                yield path, data.decode("utf-8", errors="replace")
