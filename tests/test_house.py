"""Rules of the house that a machine can hold; a failure lists every violation."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter

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

LONGEST = 400  # lines; a longer file tells more than one story
CROWD = 20  # modules; a folder of more holds more than one subject

# Statements that import torch, wherever they stand.
IMPORTS = (
    "import torch",
    "import torch.nn as nn",
    "from torch.nn import functional",
    "def late():\n    import torch",
    "if TYPE_CHECKING:\n    from torch import Tensor",
    "torch = importlib.import_module('torch')",
)


def test_imports_point_one_way():
    wrong = []
    for name, path in MODULES.items():
        package = path.parts[0]
        foreign = NOT_TO_IMPORT[package] - ALLOWED.get(name, set())
        wrong += [
            f"{name}:{line} imports {top}, which {package} must not know"
            for top, line in packages_of(source(name))
            if top in foreign
        ]
    assert not wrong, listed(wrong)


def test_no_modules_import_each_other_in_a_circle():
    texts = {module_name(path): source(name) for name, path in MODULES.items()}
    assert len(texts) > 200
    circles = circles_of({name: modules_of(text, texts.keys()) for name, text in texts.items()})
    assert not circles, listed(f"a circle of imports: {', '.join(sorted(circle))}" for circle in circles)


def test_no_folder_has_more_than_20_modules():
    crowded = crowded_folders(MODULES)
    assert not crowded, listed(f"{folder} has {count} modules: give it folders" for folder, count in crowded.items())


def test_every_module_has_a_docstring():
    silent = [name for name in MODULES if not ast.get_docstring(ast.parse(source(name)))]
    assert not silent, listed(f"{name} does not say what it is for" for name in silent)


def test_modules_and_tests_have_at_most_400_lines():
    tests = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests").rglob("*.py"))]
    assert len(tests) > 100
    lengths = {name: len(source(name).splitlines()) for name in (*MODULES, *tests)}
    long = [f"{name} has {lines} lines: split it by subject" for name, lines in lengths.items() if lines > LONGEST]
    assert not long, listed(long)


def test_every_module_imports_from_the_source_roots(tmp_path):
    failures = import_failures(tmp_path)
    assert not failures, listed(f"{name}: {reason}" for name, reason in failures.items())


def test_every_script_names_a_function():
    wrong = []
    for script, target in SCRIPTS.items():
        module, _, function = target.partition(":")
        try:
            found = getattr(importlib.import_module(module), function, None)
        except ImportError as error:
            wrong.append(f"{script}: {error}")
        else:
            wrong += [] if callable(found) else [f"{script}: {target} is not a function"]
    assert len(SCRIPTS) >= 6
    assert not wrong, listed(wrong)


def test_runtime_import_leaves_heavy_libraries_alone(tmp_path):
    heavy = ["torch", "onnx", "onnxruntime", "openvino", "tensorrt", "cuda"]
    code = (
        "import json, sys; from cornernet_runtime import Detector; "
        f"print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    assert json.loads(run_in_fresh_interpreter(code, tmp_path)) == []


def test_runtime_imports_within_half_a_second(tmp_path):
    code = (
        "from time import process_time; start = process_time(); from cornernet_runtime import Detector; "
        "print(process_time() - start)"
    )
    # Of the processor, for the machine may be busy with other tests; the best of three, for the first writes byte code.
    best = min(float(run_in_fresh_interpreter(code, tmp_path)) for _ in range(3))
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


def test_imports_are_seen_wherever_they_stand():
    unseen = [statement for statement in IMPORTS if [top for top, _ in packages_of(statement)] != ["torch"]]
    assert not unseen, listed(unseen)


def test_circles_are_found_however_their_modules_import():
    texts = {
        "p.a": "from p import b",
        "p.b": "if TYPE_CHECKING:\n    from p.c import C",
        "p.c": "def late():\n    import p.a",
        "p.above": "from p.a import A",  # stands above the circle, not in it
        "p.below": "import json",
    }
    assert circles_of({name: modules_of(text, texts.keys()) for name, text in texts.items()}) == {
        frozenset({"p.a", "p.b", "p.c"})
    }
    texts["p.c"] = "from p.below import D"
    assert circles_of({name: modules_of(text, texts.keys()) for name, text in texts.items()}) == set()


def test_crowded_folders_are_found():
    full = [f"p/full/{number}.py" for number in range(CROWD)]
    assert crowded_folders([*full, "p/full/__init__.py", "p/other.py"]) == {}
    assert crowded_folders([*full, "p/full/one_more.py", "p/other.py"]) == {"p/full": CROWD + 1}


def test_forbidden_text_is_found():
    # In parts, for this file is among those searched.
    texts = {
        "path of a machine": ["see /", "home/someone"],
        "folder outside the tree": ["..", "/shared/design.md"],
        "host of a package registry": ["https://pypi", ".org/project/x"],
    }
    assert texts.keys() == FORBIDDEN.keys()
    unseen = [what for what, parts in texts.items() if not re.search(FORBIDDEN[what], "".join(parts))]
    assert not unseen, listed(unseen)


def listed(violations):
    """Return one line for each violation, on lines of their own."""
    return "\n".join(["", *violations])


def source(name):
    return (ROOT / name).read_text(encoding="utf-8")


def packages_of(text):
    """Yield (top-level package, line) of each absolute import in ``text``, wherever it stands."""
    for module, _, line in imports_of(text):
        yield module.partition(".")[0], line


def modules_of(text, known):
    """Return those of the ``known`` modules that ``text`` imports, as modules or for a name in them."""
    taken = ((module, f"{module}.{name}") for module, names, _ in imports_of(text) for name in names or [""])
    return {full if full in known else module for module, full in taken} & set(known)


def imports_of(text):
    """Yield (module, names taken from it, line) of each absolute import in ``text``, wherever it stands."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, [], node.lineno) for alias in names)
            case ast.ImportFrom(level=0, module=str(module), names=names):
                yield module, [alias.name for alias in names], node.lineno
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(module)), *_],
            ):
                yield module, [], node.lineno


def circles_of(imports):
    """Return the sets of modules that import each other, straight or through others, from what each imports."""
    reached = {name: reached_from(name, imports) for name in imports}
    in_one = [name for name in imports if name in reached[name]]
    return {frozenset(other for other in reached[name] if name in reached[other]) for name in in_one}


def reached_from(name, imports):
    """Return what a module imports, and what these import, and so on."""
    reached, ahead = set(), [name]
    while ahead:
        new = imports[ahead.pop()] - reached
        reached |= new
        ahead += new
    return reached


def crowded_folders(files):
    """Return the folders of more than ``CROWD`` modules, with how many they have; ``__init__.py`` is none of them."""
    counts = Counter(file.rpartition("/")[0] for file in files if not file.endswith("/__init__.py"))
    return {folder: count for folder, count in counts.items() if count > CROWD}


def module_name(path):
    """Return the dotted name of a module, from its path below the root of its package."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def import_failures(folder):
    """Return what went wrong, by file, when one interpreter imported every module, as if not installed."""
    names = {name: module_name(path) for name, path in MODULES.items() if path.stem != "__main__"}
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
    return json.loads(run_in_fresh_interpreter(code, folder).splitlines()[-1])


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
