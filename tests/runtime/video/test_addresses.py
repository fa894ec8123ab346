"""Addresses of streams: nothing secret is shown, and files are told from live streams."""

from __future__ import annotations

import pytest

from cornernet_runtime.video.addresses import file_stem, host_of, is_address, is_live, masked


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://camera/stream1", "rtsp://camera/stream1"),
        ("rtsp://me:secret@camera:554/stream1", "rtsp://camera:554/stream1"),
        ("rtsp://me:sec@ret@camera/a@2", "rtsp://camera/a@2"),
        ("rtsp://me:sec/ret@camera/a", "rtsp://camera/a"),
        ("rtsp://me:sec#ret@camera/a", "rtsp://camera/a"),
        ("rtsp://me:sec?ret@camera/a", "rtsp://camera/a"),
        ("rtsp://me:sec@secret/ret@camera/a", "rtsp://camera/a"),
        ("rtsp://me@camera/a@2/b", "rtsp://camera/a@2/b"),
        ("HTTP://host/live.ts?token=secret&x=1#secret", "http://host/live.ts"),
        ("rtsp://camera/user=me_password=secret_channel=1/0.sdp", "rtsp://camera/user=.../0.sdp"),
        ("rtsp://recorder/a?channel=1&token=secret&subtype=0", "rtsp://recorder/a?channel=1&subtype=0"),
        ("rtsp://recorder/a?channel=1%20secret", "rtsp://recorder/a"),
        ("udp://@:5000", "udp://:5000"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://[::1/a", "http://[::1/a"),
        ("http://host/a\n\x1b[31mb", "http://host/a??[31mb"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(address, shown):
    assert masked(address) == shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    ("address", "live"),
    [
        ("rtsp://host/a.mp4", True),
        ("http://host/a.mp4", False),
        ("https://me:secret@host/folder/A.MKV?token=1", False),
        ("ftp://host/a.webm", False),
        ("http://host/live.ts", True),
        ("http://host/live.m3u8", True),
        ("http://host/?name=a.mp4", True),
        ("http://host.mov", True),
        ("http://host/a.mp4?channel=1", False),
        ("http://[::1/a", True),
        ("file:///folder/live.ts", False),
    ],
)
def test_a_finished_file_is_told_by_scheme_and_suffix(address, live):
    assert is_live(address) == live


@pytest.mark.parametrize("source", ["a.mp4", "C:\\a.mp4", "://a", "1://a", 7, None])
def test_what_has_no_scheme_is_no_address(source):
    assert not is_address(source)


@pytest.mark.parametrize(
    ("address", "stem"),
    [
        (
            "rtsp://me:secret@camera.lan:554/Streaming/Channels/101?token=secret",
            "camera.lan-554-Streaming-Channels-101",
        ),
        ("rtsp://recorder/a?channel=1&subtype=0", "recorder-a-channel-1-subtype-0"),
        ("udp://@:5000", "5000"),
        ("http://host/../../etc", "host-..-..-etc"),
        ("rtsp://camera/user=me&password=secret", "camera-user"),
        ("srt://", "stream"),
        ("http://host/" + "long" * 100, "host-" + "long" * 36 + "l"),
    ],
)
def test_a_file_is_named_after_host_and_path(address, stem):
    assert file_stem(address) == stem
    assert "/" not in stem


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("rtsp://me:secret@camera:554/a", "camera"),
        ("rtsp://secret:sec/ret@camera/a", "camera"),
        ("rtsp://secret:sec#ret@camera/a", "camera"),
        ("http://[::1]:80/a", "::1"),
        ("http://[::1/a", None),
        ("udp://@:5000", None),
    ],
)
def test_a_host_is_no_part_of_a_password(address, host):
    assert host_of(address) == host
