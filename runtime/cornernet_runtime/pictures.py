"""Pictures on disk: finding them, reading them, writing them."""

from __future__ import annotations

import contextlib
import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from cornernet_runtime.errors import FrameError, OutputError
from cornernet_runtime.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

_SILENT = 0  # OpenCV's LOG_LEVEL_SILENT, which has no name in Python before 5
SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def find_pictures(sources: Sequence[str]) -> list[Path]:
    """Return the pictures that the sources name, in the order given, a folder's or glob's sorted by name.

    Args:
        sources: Files, folders (their pictures, not those of folders within) and globs (``**`` goes deeper).

    Raises:
        FrameError: A source names nothing, or a folder or glob has no picture.
    """
    return [path for source in sources for path in _expand(source)]


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read a picture as uint8 [H, W, 3], BGR, turned as its EXIF says; other depths and channels are converted.

    Raises:
        FrameError: It cannot be read or decoded.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FrameError(f"{path}: cannot be read: {error.strerror or error}") from error
    return decode_picture(content, str(path))


def decode_picture(content: bytes | bytearray, source: str) -> NDArray[np.uint8]:
    """Decode the content of a picture's file, as ``read_picture`` does; ``source`` names it in errors.

    Raises:
        FrameError: It cannot be decoded.
    """
    try:
        with quiet_opencv():
            picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error as error:
        raise FrameError(f"{source}: cannot be decoded: {error.err}") from error
    if picture is None:
        raise FrameError(f"{source}: cannot be decoded as a picture")
    return np.asarray(picture, np.uint8)


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3], BGR, in the format of the path's suffix.

    Raises:
        OutputError: The format is unknown or the file cannot be written.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix.lower() in (".jpg", ".jpeg") else []
    try:
        with quiet_opencv():
            done, encoded = cv2.imencode(path.suffix, picture, options)
    except cv2.error as error:
        raise OutputError(f"{path}: cannot be encoded: {error.err}") from error
    if not done:
        height, width = picture.shape[:2]
        raise OutputError(f"{path}: cannot be encoded: {width}x{height} pixels may be too many for the format")
    write_atomically(path, encoded.tobytes())


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing where in its sources a decoder gave up."""
    log: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 5, OpenCV 4
    level = log.getLogLevel()
    log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _expand(source: str) -> list[Path]:
    try:
        return _pictures_of(source)
    except OSError as error:
        raise FrameError(f"{source}: cannot be read: {error.strerror or error}") from error


def _pictures_of(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        found = sorted(item for item in path.iterdir() if _is_picture(item))
        if not found:
            raise FrameError(f"{source}: no picture in this folder; it looks for {', '.join(sorted(SUFFIXES))}")
        return found
    if path.exists():
        return [path]
    matches = (Path(match) for match in glob.glob(source, recursive=True))  # noqa: PTH207 - takes absolute ones too
    found = sorted(match for match in matches if _is_picture(match))
    if not found:
        raise FrameError(f"{source}: no such picture, folder or match; give an image, a folder or a glob")
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.is_dir()
