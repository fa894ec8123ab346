"""The size of an encoded picture by its header, beside what Pillow says."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cornernet_runtime.errors import FrameError
from cornernet_runtime.pictures import decode_picture
from cornernet_runtime.serve.picture_header import MOST_SCANS, has_too_many_scans, header_size

WIDTH, HEIGHT = 37, 23
KINDS = {
    "jpeg": {"format": "JPEG"},
    "progressive jpeg": {"format": "JPEG", "progressive": True},
    "jpeg with EXIF, a profile and a comment": {
        "format": "JPEG",
        "exif": b"Exif\0\0" + b"\xff\xc0" * 400,  # as if it began a frame
        "icc_profile": bytes(150_000),
        "comment": b"x",
    },
    "png": {"format": "PNG"},
    "lossy webp": {"format": "WEBP", "quality": 50},
    "lossless webp": {"format": "WEBP", "lossless": True},
    "extended webp": {"format": "WEBP", "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"},
    "bmp": {"format": "BMP"},
}


def encoded(**options):
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).save(content, **options)
    return content.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_width_and_height_are_those_that_pillow_names(kind):
    content = encoded(**KINDS[kind])
    assert header_size(content) == Image.open(io.BytesIO(content)).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "extended webp"])
def test_what_has_a_size_can_be_decoded_to_it(kind):
    assert decode_picture(encoded(**KINDS[kind]), "it").shape == (HEIGHT, WIDTH, 3)


def test_fill_bytes_in_front_of_a_marker_are_passed_over():
    content = encoded(format="JPEG")
    assert header_size(content[:2] + b"\xff\xff\xff" + content[2:]) == (WIDTH, HEIGHT)


def test_a_bitmap_that_is_stored_from_the_top_has_a_height_all_the_same():
    content = bytearray(cv2.imencode(".bmp", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes())
    struct.pack_into("<i", content, 22, -HEIGHT)
    assert header_size(bytes(content)) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("content", [b"", b"hello", b"GIF89a" + bytes(20), b"\xff\xd8", b"RIFF\0\0\0\0WAVE"])
def test_what_is_no_such_picture_has_no_size(content):
    assert header_size(content) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_header_that_is_cut_off_is_named(kind):
    with pytest.raises(FrameError, match="cut off"):
        header_size(encoded(**KINDS[kind])[:18])


def test_a_picture_without_pixels_is_named():
    content = bytearray(encoded(format="PNG"))
    struct.pack_into(">I", content, 16, 0)
    with pytest.raises(FrameError, match="names no width and height"):
        header_size(bytes(content))


@pytest.mark.parametrize("step", [b"\xff\xe1\0\x02", b"\xff\x01", b"\xff"], ids=["segments", "markers", "fill bytes"])
def test_a_jpeg_in_which_the_size_comes_late_is_given_up(step):
    content = encoded(format="JPEG")
    assert header_size(content[:2] + step * 900 + content[2:]) == (WIDTH, HEIGHT)
    with pytest.raises(FrameError, match="names no width"):
        header_size(content[:2] + step * 1000 + content[2:])


def with_scans(content, count):
    """Return a progressive JPEG whose last scan is repeated until there are so many."""
    last, end = content.rindex(b"\xff\xda"), content.rindex(b"\xff\xd9")
    scan = content[last:end]
    return content[:end] + scan * (count - content.count(b"\xff\xda")) + content[end:]


def test_a_jpeg_of_too_many_scans_is_known():
    content = encoded(format="JPEG", progressive=True)
    assert 5 < content.count(b"\xff\xda") < 20
    assert not has_too_many_scans(with_scans(content, MOST_SCANS))
    assert has_too_many_scans(with_scans(content, MOST_SCANS + 1))
    assert decode_picture(with_scans(content, MOST_SCANS + 1), "it").shape == (HEIGHT, WIDTH, 3)  # no damaged one


def test_what_only_looks_like_scans_is_none():
    film = np.random.default_rng(0).bytes(20_000_000)
    assert film.count(b"\xff\xda") > MOST_SCANS
    assert not has_too_many_scans(encoded(format="JPEG") + film)
    assert not has_too_many_scans(encoded(format="PNG") + b"\xff\xda\0\x08\1" * 200)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_whatever_the_bytes_are_there_is_a_size_or_a_message(kind, data):
    content = bytearray(encoded(**KINDS[kind]))[:2000]
    for _ in range(data.draw(st.integers(0, 8))):
        content[data.draw(st.integers(12, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        size = header_size(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except FrameError:
        return
    assert size is None or min(size) >= 1
