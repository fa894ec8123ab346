"""Live streams of real servers on this machine, which are killed, stalled, and send garbage."""

from __future__ import annotations

import gc
import socket
import threading
import time
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from cases.video_clips import write_clip
from servers.live_servers import (
    HOST,
    PATIENCE,
    Ffmpeg,
    Server,
    free_port,
    http_answer,
    need_ffmpeg,
    number_of,
    numbered,
    paced,
    rtsp,
    stream_of,
)

from cornernet_runtime.errors import VideoError
from cornernet_runtime.video import network
from cornernet_runtime.video.file import image_of

AT_ONCE = 3.0  # seconds; it takes milliseconds, on a machine that is not busy


pytestmark = pytest.mark.usefixtures("nothing_is_left")


def take(results, count, until=lambda _: True):
    """Return the next results, so many and until one is as it should be."""
    taken, deadline = [], time.perf_counter() + PATIENCE
    while len(taken) < count or not until(taken[-1]):
        taken.append(next(results))
        assert time.perf_counter() < deadline
    return taken


def assert_each_once_and_in_order(taken):
    """Assert that frames, which show their number, are given once and in order, with indices and times that grow."""
    assert all(before < after for before, after in pairwise(number_of(frame.image) for frame in taken))
    assert all(before < after for before, after in pairwise(frame.index for frame in taken))
    assert all(before < after for before, after in pairwise(frame.seconds for frame in taken))


def recorded(folder, first, count=50, **options):
    """Return a TS of frames that show their numbers."""
    path, ticks = folder / f"{first}.ts", list(range(first, first + count))
    options |= {"time_base": Fraction(1, 25), "keyframes": 10}
    return write_clip(path, numbered(first, count), ticks, **options).read_bytes()


# Servers that go and come back.


@pytest.mark.slow
@need_ffmpeg()
@pytest.mark.parametrize("policy", ["every", "newest"])
def test_a_server_that_is_killed_stalled_and_restarted_is_connected_again(detector, policy):
    port = free_port()
    server = Ffmpeg(f"tcp://{HOST}:{port}?listen=1")
    source = stream_of(f"tcp://{HOST}:{port}", silence_s=4)
    with server, detector.stream(source, policy) as stream:
        taken = take(stream, 10)
        assert stream.statistics.state == "live"
        server.restart(200)
        taken += take(stream, 10, lambda result: number_of(result.image) > 200)
        server.stall()
        restart = threading.Thread(target=after_state, args=(stream, "stalled", lambda: server.restart(400)))
        restart.start()
        taken += take(stream, 10, lambda result: number_of(result.image) > 400)
        restart.join(PATIENCE)
        assert stream.statistics.state == "live"
    assert_each_once_and_in_order(taken)
    assert source.connections >= 3
    assert source.stalls >= 1


def after_state(stream, state, action):
    deadline = time.perf_counter() + PATIENCE
    while stream.statistics.state != state and time.perf_counter() < deadline:
        time.sleep(0.005)
    action()


@pytest.mark.slow
@need_ffmpeg()
def test_a_stream_over_udp_that_falls_silent_is_waited_for():
    port = free_port(socket.SOCK_DGRAM)
    server = Ffmpeg(f"udp://{HOST}:{port}?pkt_size=1316")
    source = stream_of(f"udp://{HOST}:{port}", silence_s=2)
    with server:
        frames = iter(source)
        taken = take(frames, 10)
        server.restart(200)
        taken += take(frames, 10, lambda frame: number_of(frame.image) > 200)
        server.kill()
        restart = threading.Thread(target=after_stall, args=(source, lambda: server.start(400)))
        restart.start()
        taken += take(frames, 10, lambda frame: number_of(frame.image) > 400)
        restart.join(PATIENCE)
        frames.close()
    assert_each_once_and_in_order(taken)
    assert source.stalls >= 1


def after_stall(source, action):
    deadline = time.perf_counter() + PATIENCE
    while source.stalls == 0 and time.perf_counter() < deadline:
        time.sleep(0.005)
    action()


@need_ffmpeg()
@pytest.mark.parametrize(("scheme", "container"), [("http", "mpegts"), ("rtmp", "flv")])
def test_a_stream_over_other_protocols_is_joined(scheme, container):
    address = f"{scheme}://{HOST}:{free_port()}/live/a"
    with Ffmpeg(address, ("-listen", "1", "-f", container)):
        frames = iter(stream_of(address))
        taken = take(frames, 20)
        frames.close()
    assert_each_once_and_in_order(taken)
    steps = {round(after.seconds - before.seconds, 3) for before, after in pairwise(taken)}
    assert steps == {0.04}, "times are those of the stream"


@need_ffmpeg()
@pytest.mark.parametrize("password", [None, "secret"])
def test_a_camera_that_speaks_rtsp_is_read_over_tcp(password):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.bind((HOST, 0))
        address = f"rtp://{HOST}:{packets.getsockname()[1]}"
        talk = lambda client, _: rtsp(client, packets, server.over, password)  # noqa: E731
        with Server(talk) as server, Ffmpeg(address, ("-f", "rtp")):
            user = "" if password is None else f"me:{password}@"
            source = stream_of(f"rtsp://{user}{HOST}:{server.port}/stream")
            frames = iter(source)
            taken = take(frames, 20)
            frames.close()
            assert_each_once_and_in_order(taken)
            assert {frame.source for frame in taken} == {f"rtsp://{HOST}:{server.port}/stream"}
            if password is not None:
                wrong = stream_of(f"rtsp://me:wr0ng@{HOST}:{server.port}/stream")
                with pytest.raises(VideoError, match=r"it wants a user and a password \(401\)"):
                    next(iter(wrong))


# What is sent.


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_frames_are_given_from_a_key_frame_on(tmp_path, codec):
    content = recorded(tmp_path, 0, codec=codec)
    with Server(lambda client, _: (paced(client, content[len(content) // 5 :], 1), server.wait())) as server:
        source = stream_of(f"tcp://{HOST}:{server.port}")
        frames = iter(source)
        taken = take(frames, 15)
        frames.close()
    assert number_of(taken[0].image) % 10 == 0
    assert [number_of(frame.image) for frame in taken] == [number_of(taken[0].image) + index for index in range(15)]
    assert source.damaged <= 1, "the packet that was cut in two"


def test_segments_that_come_again_with_a_new_connection_are_given_once(tmp_path):
    segments = [recorded(tmp_path, first, 25) for first in range(0, 100, 25)]

    def talk(client, _):
        asked = client.recv(65536)
        path = asked.split()[1].decode().lstrip("/") if asked else "live.m3u8"
        names = range(3 + bool(source.stalls))
        listed = "".join(f"#EXTINF:1.0,\n{name}.ts\n" for name in names)
        playlist = f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n{listed}"
        content = playlist.encode() if path == "live.m3u8" else segments[int(path.partition(".")[0])]
        client.sendall(http_answer("200 OK", content, "application/vnd.apple.mpegurl"))

    with Server(talk) as server:
        source = stream_of(f"http://{HOST}:{server.port}/live.m3u8", silence_s=1.5)
        frames = iter(source)
        taken = take(frames, 90, lambda frame: number_of(frame.image) >= 95)
        frames.close()
        source.close()
    assert_each_once_and_in_order(taken)
    assert source.connections == 2


@pytest.mark.slow
def test_garbage_is_counted_and_the_stream_goes_on(tmp_path, detector):
    parts = [recorded(tmp_path, first) for first in (0, 100, 200)]
    noise = np.random.default_rng(8).bytes(200_000)

    def talk(client, number):
        # A part and noise that ends the connection, or that FFmpeg finds its way out of; then nothing but noise.
        paced(client, parts[number] if number < 3 else b"", 0.5)
        client.sendall(noise)
        if number >= 3:
            server.wait()

    with Server(talk) as server:
        source = stream_of(f"tcp://{HOST}:{server.port}", silence_s=2, give_up_after_s=6)
        taken = []
        with pytest.raises(VideoError, match="given up after 6 s without a frame"):
            taken.extend(detector.stream(source, "every"))
    assert_each_once_and_in_order(taken)
    numbers = [number_of(frame.image) for frame in taken]
    assert [sum(first <= number < first + 50 for number in numbers) >= 40 for first in (0, 100, 200)] == [True] * 3
    assert source.connections == 3


def test_damage_within_a_stream_costs_frames_up_to_the_next_key_frame(tmp_path):
    content = bytearray(recorded(tmp_path, 0, 100))
    middle = len(content) // 2 // 188 * 188
    content[middle : middle + 188 * 6] = np.random.default_rng(8).bytes(188 * 6)
    with Server(lambda client, _: (paced(client, content, 1), server.wait())) as server:
        source = stream_of(f"tcp://{HOST}:{server.port}")
        frames = iter(source)
        taken = take(frames, 60, lambda frame: number_of(frame.image) >= 95)
        frames.close()
        source.close()
    good = [number_of(frame.image) for frame in taken]
    assert set(range(40)) | set(range(70, 95)) <= set(good)
    assert source.damaged >= 1
    assert len(source.problems) == 1
    assert source.problems[0].startswith(f"tcp://{HOST}:{server.port}: damaged in ")


def test_a_picture_that_cannot_be_converted_costs_itself_alone(tmp_path, monkeypatch):
    seen = []

    def convert(picture):
        seen.append(picture)
        if len(seen) == 5:
            raise av.error.ArgumentError(22, "Invalid argument")
        return image_of(picture)

    monkeypatch.setattr(network, "image_of", convert)
    content = recorded(tmp_path, 0)
    with Server(lambda client, _: (paced(client, content, 1), server.wait())) as server:
        source = stream_of(f"tcp://{HOST}:{server.port}")
        frames = iter(source)
        taken = take(frames, 20)
        frames.close()
        source.close()
    assert [number_of(frame.image) for frame in taken] == [0, 1, 2, 3, *range(5, 21)]
    assert source.damaged == 1
    assert source.connections == 1


def test_pictures_without_times_have_those_at_which_they_came():
    def talk(client, _):
        client.recv(65536)
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=next\r\n\r\n")
        for image in numbered(0, 30):
            picture = cv2.imencode(".jpg", image)[1].tobytes()
            head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
            client.sendall(head.encode() + picture + b"\r\n")
            server.over.wait(0.1)

    with Server(talk) as server:
        frames = iter(stream_of(f"http://{HOST}:{server.port}/video.mjpg"))
        taken = take(frames, 20)
        frames.close()
    assert_each_once_and_in_order(taken)
    # FFmpeg counts them as 25 a second, which would be 0.6 s from the fifth to the last.
    assert taken[-1].seconds - taken[4].seconds > 1.2


# Ends.


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtsp", "rtmp", "udp"])
def test_a_server_that_never_answers_does_not_keep_a_stream_from_closing(scheme, detector):
    with Server(lambda *_: server.wait()) as server:
        port = free_port(socket.SOCK_DGRAM) if scheme == "udp" else server.port
        stream = detector.stream(stream_of(f"{scheme}://{HOST}:{port}/a/b"))
        deadline = time.perf_counter() + PATIENCE
        while scheme != "udp" and server.clients == 0 and time.perf_counter() < deadline:
            time.sleep(0.005)
        assert stream.statistics.state == "connecting"
        begin = time.perf_counter()
        stream.close()
        assert time.perf_counter() - begin < AT_ONCE
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("cornernet")]


def test_a_stream_that_is_stalled_or_lost_closes_at_once(tmp_path, detector):
    content = recorded(tmp_path, 0)
    with Server(lambda client, number: (client.sendall(content if number == 0 else b""), server.wait())) as server:
        for _ in range(2):
            stream = detector.stream(stream_of(f"tcp://{HOST}:{server.port}", silence_s=0.5))
            if server.clients == 0:
                take(stream, 1)
                after_state(stream, "stalled", lambda: None)
            begin = time.perf_counter()
            stream.close()
            assert time.perf_counter() - begin < AT_ONCE
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("cornernet")]


def test_a_stream_that_nobody_refers_to_any_more_ends(detector):
    with Server(lambda *_: server.wait()) as server:
        stream = detector.stream(stream_of(f"tcp://{HOST}:{server.port}"))
        del stream
        gc.collect()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("cornernet")]
