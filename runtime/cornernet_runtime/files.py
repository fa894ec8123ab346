"""Writing files and folders so that a failure or a kill leaves either the old state or the new one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from cornernet_runtime.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


CACHE_VARIABLE = "CORNERNET_CACHE"


def cache_folder() -> Path | None:
    """Return where our caches of this user lie: CORNERNET_CACHE, else within XDG_CACHE_HOME or ``~/.cache``.

    None where there is no home folder.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    usual = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(usual) if Path(usual).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "cornernet-trt"


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` under a temporary name beside ``path`` and rename it.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full. Nothing is left behind.
    """
    with open_atomically(path) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Yield a stream that becomes ``path`` when the block ends without an error, and nothing otherwise.

    A pipe or device, such as ``/dev/stdout``, is written to as it is; renaming a file over it would replace it.

    Raises:
        OutputError: The folder is missing or not writable, or the disk is full.
    """
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            with path.open("wb") as stream:
                yield stream
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield cast("BinaryIO", file.file)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, *, replace: bool) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` that takes its place when the block ends without an error.

    Args:
        path: The folder to make.
        replace: Whether an existing folder at ``path`` may be replaced; it stays until the new one is whole.

    Raises:
        OutputError: ``path`` exists and is not to be replaced, is no folder, or cannot be written.
    """
    try:
        target = Path(os.path.realpath(path))  # a link stays, what it names is replaced
        if target.is_dir() and not replace and any(target.iterdir()):
            raise OutputError(f"{path} exists: choose another folder, or add --force to replace it")
        if target.exists() and not target.is_dir():
            raise OutputError(f"{path} is a file: choose the name of a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        _exchange(temporary, target)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: Path) -> Path:
    """Make a folder and its parents unless it is there.

    Raises:
        OutputError: It cannot be made or is a file.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {path}: {error.strerror or error}") from error
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _exchange(new: Path, path: Path) -> None:
    """Rename ``new`` to ``path``; what stood there goes last, and comes back if the rename fails."""
    if not path.exists():
        new.rename(path)
        return
    old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
    try:
        path.rename(old)
    except OSError:
        old.rmdir()
        raise
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
