"""What the texts of sources tell: which are videos, which are live, and their names without what is secret."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

# Containers that hold a finished video, as far as a name can tell; MPEG-TS, FLV and MJPEG are sent live as well.
FILE_SUFFIXES = frozenset({".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm", ".wmv"})
# Of a query, what tells one camera of a recorder from another and is no secret.
SHOWN = re.compile(r"(?:camera|channel|profile|stream|subtype|track)=\w{1,16}", re.ASCII | re.IGNORECASE)
LONGEST_STEM = 150  # of 255 letters that file systems take, with what is added
FILE_SCHEMES = frozenset({"ftp", "http", "https", "sftp"})

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "h264", "hevc", "m2ts", "m4v", "mkv", "mov"),
        *("mp4", "mpeg", "mpg", "mts", "ogv", "ts", "webm", "wmv", "y4m"),
    )
)


def is_address(source: object) -> bool:
    """Return whether a source is the address (URL) of something rather than a path."""
    return isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def is_live(address: str) -> bool:
    """Return whether an address is that of a live stream: all but finished files, which their names tell."""
    scheme, _, rest = masked(address).partition("://")
    suffix = PurePosixPath(rest.partition("?")[0].partition("/")[2]).suffix.lower()
    return scheme != "file" and (scheme not in FILE_SCHEMES or suffix not in FILE_SUFFIXES)


def masked(address: str) -> str:
    """Return an address without user, password, values in its path, and its query but for ``SHOWN``."""
    scheme, _, rest = address.partition("://")
    authority = re.match(r"[^/?#]*", rest)[0]  # type: ignore[index] # it matches the empty text too
    after = rest.rpartition("@")[2]
    if "@" in authority and not (":" in authority and "/" in after):
        rest = rest[authority.rindex("@") + 1 :]
    elif "@" in rest and ":" in authority:  # it may be a password with a / in it, whatever else it is
        rest = after
    path, _, query = rest.partition("#")[0].partition("?")
    shown = re.sub(r"=[^/]*", "=...", path)
    if told := "&".join(part for part in query.split("&") if SHOWN.fullmatch(part)):
        shown += f"?{told}"
    return "".join(letter if letter.isprintable() else "?" for letter in f"{scheme.lower()}://{shown}")


def host_of(address: str) -> str | None:
    """Return the name of an address's host, as it is shown, or None."""
    try:
        return urlsplit(masked(address)).hostname  # which else may be part of a password with a / in it
    except ValueError:
        return None


def file_stem(address: str) -> str:
    """Return a name for a file about an address: its host and path, of letters that every file system takes."""
    name = re.sub(r"[^A-Za-z0-9.]+", "-", masked(address).partition("://")[2]).strip("-.")
    return name[:LONGEST_STEM].strip("-.") or "stream"


def are_videos(sources: Sequence[str]) -> list[bool]:
    """Say of each source whether it is a video, a stream or a camera, by its name alone."""
    return [
        is_address(source)
        or Path(source).suffix.lower() in SUFFIXES
        or (is_camera(source) and not Path(source).exists())
        for source in sources
    ]


def is_live_source(source: str) -> bool:
    """Return whether a source is a camera or a live stream, by its name alone."""
    return is_camera(source) or (is_address(source) and is_live(source))


def is_camera(source: str) -> bool:
    """Return whether a source is the index of a camera, as far as its text tells."""
    return source.isascii() and source.isdigit()
