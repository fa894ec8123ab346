"""What tests only read and that takes long to make, such as exported models, kept between runs beside what is compiled.

It is made anew when a source of the project, the file that makes it, or a package that is installed has changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import shutil
import tempfile
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import build_cache
from places import ROOT, SOURCE_ROOTS, SUPPORT

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDERS = (*SOURCE_ROOTS, SUPPORT, ROOT / "models")
# Of the environment, what changes how networks are computed.
VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "CORNERNET_TEST_NOISE")


def fill(folder: Path, name: str, make: Callable[[Path], object]) -> None:
    """Have ``make`` fill an empty folder, or copy what it made in an earlier run."""
    try:
        _fill_from_cache(folder, f"made-{_digest(name, inspect.getsourcefile(make))}", make)
    except OSError:  # no cache, or no space in it: only time is lost
        shutil.rmtree(folder)
        folder.mkdir()
        make(folder)


def _fill_from_cache(folder: Path, entry: str, make: Callable[[Path], object]) -> None:
    cached = build_cache.folder()
    if not (cached / entry).is_dir():
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=cached))
        try:
            make(unfinished)
            with contextlib.suppress(OSError):  # another process was quicker
                unfinished.rename(cached / entry)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    os.utime(cached / entry)
    shutil.copytree(cached / entry, folder, dirs_exist_ok=True)


def _digest(name: str, file: str | None) -> str:
    parts = [name, sources(), _contents(Path(str(file))), {name: os.environ.get(name) for name in VARIABLES}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@cache
def sources() -> str:
    """Return a digest of all that a network and its files are made of."""
    files = [path for folder in FOLDERS for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [path for path in files if "__pycache__" not in path.parts]
    installed = sorted(f"{one.name} {one.version}" for one in metadata.distributions())
    states = [(str(path), _contents(path)) for path in files]
    return hashlib.sha256(json.dumps([installed, states]).encode()).hexdigest()


def _contents(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
