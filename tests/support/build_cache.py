"""Compile for the tests, and keep the results between runs.

Each result is a folder in ``build/test-cache`` of the checkout, or in the folder that CORNERNET_TEST_CACHE names. A
result is used again only where the commands, the generated texts, the compiler and the contents of every file that it
read, system headers included, are the same, and where the result itself is unchanged. Delete the folder to start
afresh. A result that was not used for 30 days is removed, and so are the oldest ones above 2 GiB.

One change is not noticed: a new header that hides another one because it comes earlier on the include path.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from places import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

VARIABLE = "CORNERNET_TEST_CACHE"
OUTPUT = "compiler.txt"  # what the commands printed
RECORD = "result.json"  # SHA-256 of each file of a result
KEEP_SECONDS = 30 * 24 * 3600
KEEP_BYTES = 2 * 2**30
# Of the environment, what changes what GCC and nvcc read or write.
VARIABLES = (
    *("CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX"),
    *("SOURCE_DATE_EPOCH", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "NVCC_CCBIN"),
)


def build(
    stages: Sequence[Sequence[Sequence[str | Path]]],
    results: Sequence[str],
    texts: Mapping[str, str] | None = None,
    inputs: Iterable[Path] = (),
) -> Path:
    """Return a folder with the files ``results``, which the commands made now or in an earlier run.

    The folder is shared: nothing may be changed in it. What the commands printed is in its ``compiler.txt``.

    Args:
        stages: Compiler lines, which run in a temporary folder and write there; those of one stage run side by side.
            ``-MD`` is added to each.
        results: Names of the files to keep.
        texts: Files to write into the temporary folder first, by name.
        inputs: Files that the commands read and that ``-MD`` does not report, such as a linker's script.

    Raises:
        AssertionError: If a command fails; nothing is kept then.
    """
    stages = [[[str(word) for word in command] for command in stage] for stage in stages]
    key = _digest(
        [stages, list(results), texts or {}, _compilers(stages), {name: os.environ.get(name) for name in VARIABLES}]
    )
    inputs = [str(path) for path in inputs]
    with contextlib.ExitStack() as stack:
        cached = None
        with contextlib.suppress(OSError, NotImplementedError):  # without a cache only time is lost
            cached = folder()
            stack.enter_context(FileLock(cached / f"{key}.lock"))
        if cached is not None and (found := _find(cached, key)) is not None:
            return found
        made, read = _compile(stages, results, texts or {}, inputs)
        if cached is not None and read is not None:
            with contextlib.suppress(OSError):  # there is no space, for one
                return _keep(cached, key, made, read)
        return made


def printed(stages: Sequence[Sequence[Sequence[str | Path]]]) -> str:
    """Return what compiler lines print, as for ``build``."""
    return (build(stages, []) / OUTPUT).read_text(encoding="utf-8")


def library(name: str, code: str) -> Path:
    """Return a library compiled from C code."""
    command = ["gcc", "-shared", "-fPIC", "-o", name, "library.c"]
    return build([[command]], [name], {"library.c": code}) / name


def folder() -> Path:
    """Return the folder of the cache, which is made."""
    path = Path(os.environ.get(VARIABLE) or ROOT / "build" / "test-cache")
    path.mkdir(parents=True, exist_ok=True)
    return path


def _find(folder: Path, key: str) -> Path | None:
    """Return the kept result of the commands for the files as they are now, or None."""
    try:
        read = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        entry = folder / f"{key}-{_contents(read)}"
        record = json.loads((entry / RECORD).read_text(encoding="utf-8"))
        if any(_file_digest(entry / name) != digest for name, digest in record.items()):
            return None
    except (OSError, ValueError):
        return None
    for used in (folder / f"{key}.json", entry / RECORD):
        os.utime(used)
    return entry


def _compile(
    stages: Sequence[Sequence[list[str]]], results: Sequence[str], texts: Mapping[str, str], inputs: Sequence[str]
) -> tuple[Path, list[str] | None]:
    """Run the commands; return the folder and the files read, or None for these if one changed meanwhile."""
    folder = Path(tempfile.mkdtemp(dir=_temporary_folder()))
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    begin = time.time()
    printed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for stage in stages:
            printed += pool.map(lambda command: _run(command, folder), stage)
    read = {*inputs, *(name for file in folder.glob("*.d") for name in _dependencies(file.read_text(encoding="utf-8")))}
    read = sorted(str(folder / name) for name in read)
    read = [name for name in read if Path(name).parent != folder]  # the texts are part of the key
    for path in folder.iterdir():
        if path.name not in results:
            path.unlink()
    (folder / OUTPUT).write_text("".join(printed), encoding="utf-8")
    record = {path.name: _file_digest(path) for path in folder.iterdir()}
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
    return folder, None if any(Path(name).stat().st_mtime > begin for name in read) else read


def _keep(folder: Path, key: str, made: Path, read: list[str]) -> Path:
    """Put a result into the cache; return where it is now."""
    entry = folder / f"{key}-{_contents(read)}"
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder))
    try:
        shutil.copytree(made, unfinished / entry.name)
        (unfinished / "read.json").write_text(json.dumps(read), encoding="utf-8")
        if entry.exists():  # damaged, or it would have been found
            (entry / RECORD).unlink(missing_ok=True)
            entry.replace(unfinished / "damaged")
        (unfinished / entry.name).replace(entry)
        (unfinished / "read.json").replace(folder / f"{key}.json")
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    with contextlib.suppress(OSError):  # another process may do the same
        _prune(folder)
    return entry


def _prune(folder: Path) -> None:
    """Remove what was not used for long, or is too much; whatever another process removes first is gone as well."""
    now, total = time.time(), 0
    used = {}
    for path in folder.iterdir():
        if path.suffix != ".lock" and path.name != "nvrtc":  # a lock may be held; NVRTC's results are few and small
            marker = path / RECORD if (path / RECORD).exists() else path
            used[path] = marker.stat().st_mtime if marker.exists() else 0.0
    for path in sorted(used, key=used.__getitem__, reverse=True):
        total += sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else 0
        if now - used[path] > KEEP_SECONDS or (total > KEEP_BYTES and path.is_dir()):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(  # noqa: S603 - our own compiler line
        [*command, "-MD"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}"
    return done.stdout


def _dependencies(rule: str) -> list[str]:
    """Return the prerequisites of a rule that GCC wrote for make."""
    _, _, names = rule.replace("\\\n", " ").partition(": ")
    names = names.partition("\n")[0]
    return [re.sub(r"\\([ #])", r"\1", name).replace("$$", "$") for name in re.findall(r"(?:\\ |\S)+", names)]


def _compilers(stages: Sequence[Sequence[list[str]]]) -> list[list[str]]:
    names = {command[0] for stage in stages for command in stage}
    if any(Path(name).name == "nvcc" for name in names):
        names.add("g++")  # compiles what is for the CPU
    return [_identity(shutil.which(name) or name) for name in sorted(names)]


def _identity(path: str) -> list[str]:
    """Return what tells a compiler from others: its path, its file and its version."""
    file = Path(path).resolve()
    state = [str(file), str(file.stat().st_size), str(file.stat().st_mtime_ns)]
    return [path, *state, _version(path, *state)]


@cache
def _version(path: str, *_state: str) -> str:
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603


@cache
def _temporary_folder() -> Path:
    holder = tempfile.TemporaryDirectory(prefix="cornernet-build-", ignore_cleanup_errors=True)
    _HOLDERS.append(holder)  # the folder goes when the process ends
    return Path(holder.name)


_HOLDERS: list[tempfile.TemporaryDirectory] = []


def _contents(paths: Iterable[str]) -> str:
    """Return a digest of names and contents; raises OSError where one is missing."""
    return _digest([(path, _file_digest(Path(path))) for path in paths])


def _file_digest(path: Path) -> str:
    state = path.stat()
    return _digest_of(str(path), state.st_mtime_ns, state.st_size)


@cache
def _digest_of(path: str, _mtime_ns: int, _size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
