"""The timing cache: what TensorRT measured once it need not measure again, which shortens a build many times over.

Several processes may share a file: each adds what it measured to what the file holds by then, under a lock.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from typing import TYPE_CHECKING, Any

from cornernet_runtime.errors import CornerNetWarning, OutputError
from cornernet_runtime.files import CACHE_VARIABLE, cache_folder, make_folder, write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def default_cache(tensorrt: str, gpu: str) -> Path:
    """Return the file for a TensorRT version and a GPU, in the user's cache folder.

    Raises:
        OutputError: There is no home folder for one.
    """
    folder = cache_folder()
    if folder is None:
        raise OutputError(
            f"there is no home folder for a timing cache: add --timing-cache FILE, or set {CACHE_VARIABLE}"
        )
    name = re.sub(r"[^A-Za-z0-9.]+", "-", f"timing-{tensorrt}-{gpu}")
    return folder / f"{name}.cache"


def attach_cache(config: Any, path: Path) -> None:  # noqa: ANN401 - an extra
    """Give a builder's configuration what a file holds, or an empty cache, with a warning if the file does not fit."""
    cache = _read(config, path)
    if cache is not None and config.set_timing_cache(cache, False):
        return
    if cache is not None:
        _warn(path, "it is of another GPU")
    config.set_timing_cache(config.create_timing_cache(b""), False)


def keep_cache(config: Any, path: Path) -> None:  # noqa: ANN401
    """Add what a build measured to a file; a file that cannot be written costs only a warning."""
    own = config.get_timing_cache()
    if own is None:
        return
    try:
        make_folder(path.parent)
        with _locked(path):
            held = _read(config, path)
            if held is None or not held.combine(own, False):
                held = own
            content = held.serialize()
            if content is not None:
                write_atomically(path, bytes(content))
    except (OutputError, OSError) as error:
        _warn(path, f"it cannot be written: {error}")


def _read(config: Any, path: Path) -> Any:  # noqa: ANN401
    """Return the cache in a file, None with a warning if it is none, an empty one if there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    except OSError as error:
        _warn(path, f"it cannot be read: {error.strerror or error}")
        content = b""
    cache = config.create_timing_cache(content)
    if cache is None:
        _warn(path, "it is damaged or of another TensorRT version")
    return cache


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from the file; the lock ends with the process at the latest."""
    try:
        import fcntl  # noqa: PLC0415 - not on Windows, where the last writer wins
    except ImportError:
        yield
        return
    with path.with_name(f"{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _warn(path: Path, why: str) -> None:
    warnings.warn(f"timing cache {path} is not used: {why}", CornerNetWarning, stacklevel=3)
