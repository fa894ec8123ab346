from __future__ import annotations

import os
import struct

import cv2
import numpy as np
import pytest

from cornernet_runtime.errors import FrameError, OutputError
from cornernet_runtime.pictures import SUFFIXES, decode_picture, find_pictures, read_picture, write_picture

# EXIF 2.3, table on Orientation: how the stored picture is turned to stand upright.
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}


def noise(height=13, width=17, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(suffix, picture):
    done, content = cv2.imencode(suffix, picture)
    assert done
    return content.tobytes()


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(folder, *sources):
    """Find pictures, and return their paths relative to ``folder``."""
    return [path.relative_to(folder).as_posix() for path in find_pictures([str(folder / name) for name in sources])]


# Finding.


def test_a_folder_gives_its_pictures_sorted_by_name(tmp_path):
    touch(tmp_path, "b.png", "a.jpg", "10.png", "9.png", "notes.txt", "picture", "deep/c.png")
    assert found(tmp_path, ".") == ["10.png", "9.png", "a.jpg", "b.png"]


def test_every_suffix_counts_in_any_case(tmp_path):
    names = sorted({f"x{suffix}" for suffix in SUFFIXES} | {f"y{suffix.upper()}" for suffix in SUFFIXES})
    assert len(names) == 14
    touch(tmp_path, *names)
    assert found(tmp_path, ".") == names


def test_sources_keep_the_order_in_which_they_are_given(tmp_path):
    touch(tmp_path, "z.png", "a/2.png", "a/1.png", "m.jpg")
    assert found(tmp_path, "z.png", "a", "m.jpg") == ["z.png", "a/1.png", "a/2.png", "m.jpg"]


def test_a_glob_gives_its_pictures_sorted(tmp_path):
    touch(tmp_path, "b2.png", "b1.png", "b3.txt", "c.png")
    assert found(tmp_path, "b*") == ["b1.png", "b2.png"]


def test_two_stars_go_into_folders_within(tmp_path):
    touch(tmp_path, "b/deep/2.png", "a/1.png", "0.png", "a/x.txt")
    assert found(tmp_path, "**/*.png") == ["0.png", "a/1.png", "b/deep/2.png"]


def test_a_relative_glob_gives_relative_paths(tmp_path, monkeypatch):
    touch(tmp_path, "a/1.png")
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in find_pictures(["a/*.png"])] == [os.path.join("a", "1.png")]  # noqa: PTH118 - text


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tmp_path):
    touch(tmp_path, "picture", "scan.gif")
    assert found(tmp_path, "picture", "scan.gif") == ["picture", "scan.gif"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(tmp_path):
    touch(tmp_path, "shot[1].png", "shot1.png", "set [2]/a.png")
    assert found(tmp_path, "shot[1].png", "set [2]") == ["shot[1].png", "set [2]/a.png"]


@pytest.mark.parametrize("source", [".", "*", "**/*.png"])
def test_a_folder_named_like_a_picture_is_none(tmp_path, source):
    touch(tmp_path, "a.png", "album.png/notes.txt")
    assert found(tmp_path, source) == ["a.png"]


def test_names_in_any_script_are_found_and_read(tmp_path):
    names = ["été.png", "写真.png", "😀 ü.png"]
    for seed, name in enumerate(sorted(names)):
        (tmp_path / name).write_bytes(encode(".png", noise(seed=seed)))
    pictures = find_pictures([str(tmp_path)])
    assert [path.name for path in pictures] == sorted(names)
    for seed, path in enumerate(pictures):
        assert np.array_equal(read_picture(path), noise(seed=seed))


def test_a_folder_without_pictures_is_named_with_what_is_looked_for(tmp_path):
    touch(tmp_path, "notes.txt")
    with pytest.raises(FrameError) as caught:
        find_pictures([str(tmp_path)])
    assert str(caught.value) == (
        f"{tmp_path}: no picture in this folder; it looks for .bmp, .jpeg, .jpg, .png, .tif, .tiff, .webp"
    )


@pytest.mark.parametrize("source", ["missing.png", "missing/", "*.png", "*.txt", "**/*.jpg", ""])
def test_a_source_that_names_nothing_is_named(tmp_path, monkeypatch, source):
    touch(tmp_path, "notes.txt")
    monkeypatch.chdir(tmp_path)
    source = source or "missing"
    with pytest.raises(FrameError) as caught:
        find_pictures([source])
    assert str(caught.value) == f"{source}: no such picture, folder or match; give an image, a folder or a glob"


def test_one_source_of_several_that_names_nothing_is_an_error(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(FrameError, match=r"b\.png: no such picture"):
        found(tmp_path, "a.png", "b.png")


@pytest.mark.parametrize("source", ["closed", "closed/a.png", "closed/*.png"])
def test_a_folder_closed_to_looking_is_a_frame_error(open_folder, unprivileged, source):
    touch(open_folder, "closed/a.png")
    (open_folder / "closed").chmod(0)
    with unprivileged(), pytest.raises(FrameError):
        find_pictures([str(open_folder / source)])


def test_a_name_too_long_for_the_file_system_is_a_frame_error():
    with pytest.raises(FrameError):
        find_pictures(["x" * 300])


# Reading.


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_a_picture_without_loss_is_read_in_bgr_order(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(encode(suffix, noise()))
    picture = read_picture(path)
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, noise())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_a_picture_with_loss_keeps_its_colours(tmp_path, suffix):
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:] = (200, 100, 30)
    path = tmp_path / f"picture{suffix}"
    path.write_bytes(encode(suffix, frame))
    picture = read_picture(path)
    assert picture.shape == frame.shape
    # The transform to luma and chroma and back rounds twice, on a scale of 255.
    assert np.abs(picture.astype(int) - frame).max() <= 4


def test_the_suffix_does_not_decide_on_the_format(tmp_path):
    path = tmp_path / "picture.jpg"
    path.write_bytes(encode(".png", noise()))
    assert np.array_equal(read_picture(path), noise())


def test_a_grey_picture_has_three_equal_channels(tmp_path):
    grey = noise()[..., 0]
    path = tmp_path / "grey.png"
    path.write_bytes(encode(".png", grey))
    assert np.array_equal(read_picture(path), np.stack([grey] * 3, axis=-1))


def test_a_picture_of_two_levels_becomes_black_and_white(tmp_path):
    # Netpbm: a black pixel is 1.
    path = tmp_path / "two.pbm"
    path.write_bytes(b"P1\n3 2\n1 0 1\n0 0 1\n")
    expected = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    assert np.array_equal(read_picture(path), np.stack([expected] * 3, axis=-1))


@pytest.mark.parametrize("opacity", [0, 128, 255])
def test_transparency_is_dropped_and_colours_stay(tmp_path, opacity):
    alpha = np.full((13, 17, 1), opacity, np.uint8)
    path = tmp_path / "alpha.png"
    path.write_bytes(encode(".png", np.concatenate([noise(), alpha], axis=-1)))
    assert np.array_equal(read_picture(path), noise())


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_levels_become_8_bit_levels(tmp_path, suffix, channels):
    deep = np.random.default_rng(0).integers(0, 2**16, (13, 17, channels), dtype=np.uint16)
    path = tmp_path / f"deep{suffix}"
    path.write_bytes(encode(suffix, deep))
    picture = read_picture(path)
    assert picture.dtype == np.uint8
    expected = np.broadcast_to(deep / 257, (13, 17, 3))
    # The exact factor is 1/257; decoders drop the lower byte, which is up to a level less.
    assert np.abs(picture - expected).max() <= 1


def with_orientation(jpeg, orientation):
    """Insert an EXIF segment with one entry, Orientation, after the start of a JPEG file."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_is_turned_as_its_exif_says(tmp_path, orientation):
    # Six squares of 16 pixels, each of one level, so that neither turning nor compressing changes them.
    levels = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)
    stored = np.stack([np.kron(levels, np.ones((16, 16), np.uint8))] * 3, axis=-1)
    path = tmp_path / "turned.jpg"
    path.write_bytes(with_orientation(encode(".jpg", stored), orientation))
    picture = read_picture(path)
    expected = UPRIGHT[orientation](stored)
    assert picture.shape == expected.shape
    # A level or two of loss at the edges of the blocks, where the next square is 50 levels away.
    assert np.abs(picture.astype(int) - expected).max() <= 5


BROKEN = {
    "empty": b"",
    "text": b"no picture",
    "zeros": b"\x00" * 1000,
    "PNG header": encode(".png", noise(64, 64))[:60],
    "PNG cut": encode(".png", noise(64, 64))[:-200],
    "JPEG header": encode(".jpg", noise(64, 64))[:100],
    "BMP cut": encode(".bmp", noise(64, 64))[:1000],
    "TIFF cut": encode(".tif", noise(64, 64))[:1000],
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_decoded_is_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(FrameError, match=f"^{path}: cannot be decoded"):
        read_picture(path)


@pytest.mark.parametrize("kind", ["BMP cut", "TIFF cut"])
def test_opencv_reports_nothing_beside_the_error(tmp_path, capfd, kind):
    # It would print the lines of its sources, between the one line a picture of the command.
    (tmp_path / "broken.png").write_bytes(BROKEN[kind])
    with pytest.raises(FrameError):
        read_picture(tmp_path / "broken.png")
    assert capfd.readouterr() == ("", "")


def test_a_missing_picture_is_named(tmp_path):
    path = tmp_path / "missing.png"
    with pytest.raises(FrameError, match=f"^{path}: cannot be read: No such file or directory$"):
        read_picture(path)


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(FrameError, match=f"^{tmp_path}: cannot be read: Is a directory$"):
        read_picture(tmp_path)


def test_a_picture_closed_to_reading_is_named(open_folder, unprivileged):
    path = open_folder / "closed.png"
    path.write_bytes(encode(".png", noise()))
    path.chmod(0)
    with unprivileged(), pytest.raises(FrameError, match=f"^{path}: cannot be read: Permission denied$"):
        read_picture(path)


# Writing.


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_a_picture_comes_back_equal_from_a_format_without_loss(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    write_picture(path, noise())
    assert np.array_equal(read_picture(path), noise())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".webp"])
def test_a_picture_is_written_in_the_format_of_its_suffix(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    write_picture(path, np.full((40, 50, 3), 90, np.uint8))
    head = path.read_bytes()[:12]
    assert head.startswith(b"\xff\xd8\xff") if suffix != ".webp" else head[8:] == b"WEBP"
    assert np.abs(read_picture(path).astype(int) - 90).max() <= 2  # one level is lost at most on each of two ways


def test_an_existing_picture_is_replaced(tmp_path):
    path = tmp_path / "picture.png"
    write_picture(path, noise(seed=1))
    write_picture(path, noise(seed=2))
    assert np.array_equal(read_picture(path), noise(seed=2))


@pytest.mark.parametrize("name", ["picture", "picture.xyz", "picture.txt"])
def test_an_unknown_format_is_an_output_error(tmp_path, name):
    with pytest.raises(OutputError, match=f"^{tmp_path / name}: cannot be encoded: "):
        write_picture(tmp_path / name, noise())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("suffix", "shape"), [(".webp", (16_384, 1, 3)), (".jpg", (1, 65_501, 3))])
def test_a_picture_too_large_for_its_format_is_an_output_error(tmp_path, capfd, suffix, shape):
    path = tmp_path / f"large{suffix}"
    with pytest.raises(OutputError, match=f"^{path}: cannot be encoded"):
        write_picture(path, np.zeros(shape, np.uint8))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_a_picture_in_a_missing_folder_is_an_output_error(tmp_path):
    path = tmp_path / "missing" / "picture.png"
    with pytest.raises(OutputError, match=f"^cannot write {path}: No such file or directory$"):
        write_picture(path, noise())


def test_opencv_4_is_quiet_while_it_decodes(monkeypatch):
    levels = [3]  # before 5 the level is set by functions of cv2 itself
    monkeypatch.delattr(cv2.utils, "logging")
    monkeypatch.setattr(cv2, "getLogLevel", lambda: levels[-1], raising=False)
    monkeypatch.setattr(cv2, "setLogLevel", levels.append, raising=False)
    with pytest.raises(FrameError, match="picture 3: cannot be decoded as a picture"):
        decode_picture(b"no picture", "picture 3")
    assert levels == [3, 0, 3]
