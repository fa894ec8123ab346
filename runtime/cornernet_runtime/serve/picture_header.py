"""The size of an encoded picture by its header, before anything is decoded.

Only what names the size is read, in a bounded number of steps, whatever the bytes are. OpenCV, which decodes, has the
same limit (``OPENCV_IO_MAX_IMAGE_PIXELS``), for a file that tells it something else.

Pillow also reads headers, but its ``Image.open`` of a WebP allocates the whole canvas: more than 1 GB for 13,000x13,000
pixels that a file of 100 bytes claims.
"""

from __future__ import annotations

import re
import struct
from itertools import islice
from typing import TYPE_CHECKING

from cornernet_runtime.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable

    Bytes = bytes | bytearray

FORMATS = "JPEG, PNG, WebP or BMP"
# Segments and fill bytes of a JPEG before its size; cameras write a dozen, a colour profile up to 255.
_MOST_STEPS = 1000
MOST_SCANS = 100  # of a JPEG; encoders write about ten, and each may cost the decoder as much as a whole picture
# The head of a scan as libjpeg takes it, of 0 to 4 components; by two bytes alone a film behind a picture has some too.
_SCAN = re.compile(rb"\xff\xda\x00(?:\x06\x00|\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, restarts, start of image
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that begin a frame and name its size


def header_size(content: Bytes) -> tuple[int, int] | None:
    """Return width and height in pixels as stored, not turned by EXIF, or None for what is in no format of FORMATS.

    Raises:
        FrameError: The bytes begin as such a picture and name no size, or one without pixels.
    """
    read = _reader(content)
    if read is None:
        return None
    try:
        size = read(content)
    except (struct.error, IndexError):
        size = None
    if size is None or min(size) < 1:
        raise FrameError("the picture's header is damaged or cut off: it names no width and height")
    return size


def has_too_many_scans(content: Bytes) -> bool:
    """Say whether the bytes are a JPEG of more than ``MOST_SCANS`` scans."""
    return _reader(content) is _jpeg and next(islice(_SCAN.finditer(content), MOST_SCANS, None), None) is not None


def _reader(content: Bytes) -> Callable[[Bytes], tuple[int, int] | None] | None:
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return _webp
    return _bmp if content.startswith(b"BM") else None


def _png(content: Bytes) -> tuple[int, int] | None:
    """Read IHDR, which is the first chunk."""
    kind, width, height = struct.unpack_from(">4sII", content, 12)
    return (width, height) if kind == b"IHDR" else None


def _jpeg(content: Bytes) -> tuple[int, int] | None:
    """Walk over the segments up to the one that begins the frame."""
    at = 2
    for _ in range(_MOST_STEPS):
        if content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        if marker in _WITHOUT_LENGTH:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", content, at + 2)
        at += 2 + length
    return None


def _webp(content: Bytes) -> tuple[int, int] | None:
    """Read the first chunk: lossy, lossless, or the canvas of an extended file."""
    kind = content[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", content, 24)
        return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    return None


def _bmp(content: Bytes) -> tuple[int, int] | None:
    """Read the header of OS/2 (12 bytes) or of Windows, whose height is negative where rows go down."""
    (length,) = struct.unpack_from("<I", content, 14)
    if length == 12:
        width, height = struct.unpack_from("<HH", content, 18)
        return width, height
    width, height = struct.unpack_from("<ii", content, 18)
    return width, abs(height)
