"""Addresses that cannot be used, servers that refuse, and what is never shown of an address."""

from __future__ import annotations

import traceback

import pytest
from cases.video_clips import write_clip
from servers.live_servers import HOST, Server, free_port, http_answer, number_of, numbered, stream_of

from cornernet_runtime.errors import VideoError
from cornernet_runtime.video.file import VideoFile
from cornernet_runtime.video.network import NetworkStream
from cornernet_runtime.video.sources import open_source

pytestmark = pytest.mark.usefixtures("nothing_is_left")


ANSWERS = {
    "wants a user": (http_answer("401 Unauthorized"), r"it wants a user and a password \(401\); give "),
    "forbidden": (http_answer("403 Forbidden"), r"the server forbids it \(403\); give "),
    "not there": (http_answer("404 Not Found"), r"the server has nothing there \(404\); check the path"),
    "a page": (http_answer("200 OK", b"<html>no video</html>" * 500), "there is no video that FFmpeg can read; give "),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_a_server_refuses_for_good_is_raised_without_the_secrets(case, capfd, caplog, detector):
    answer, said = ANSWERS[case]
    with Server(lambda client, _: (client.recv(65536), client.sendall(answer))) as server:
        source = stream_of(f"http://me:s3cret@{HOST}:{server.port}/live.ts?token=s3cret")
        with pytest.raises(VideoError, match=said) as caught:
            list(detector.stream(source))
    assert str(caught.value).startswith(f"http://{HOST}:{server.port}/live.ts: ")
    told = "".join(traceback.format_exception(caught.value)) + caplog.text + repr(caught.value.__context__)
    assert "s3cret" not in told + "".join(capfd.readouterr()) + source.name + str(source.reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense://host/a", "this FFmpeg knows no nonsense://; give rtsp"),
        (f"tcp://{HOST}", "FFmpeg cannot use this address; give SCHEME://HOST:PORT/PATH"),
        ("http://[::1/a", "FFmpeg cannot use this address"),
    ],
)
def test_an_address_that_cannot_be_used_is_raised(url, said):
    with pytest.raises(VideoError, match=said):
        next(iter(stream_of(url)))


def test_a_server_that_refuses_or_a_host_that_is_unknown_is_given_up_as_the_plan_says():
    cases = {
        f"tcp://{HOST}:{free_port()}": "connection refused",
        "rtsp://me:s3cret@camera.invalid/a": r"the host camera\.invalid is not known",
    }
    for url, said in cases.items():
        source = stream_of(url, start_within_s=0.2)
        with pytest.raises(VideoError, match=f"given up after 0.2 s without a frame: {said}") as caught:
            next(iter(source))
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)
        assert source.state == "lost"


def test_a_server_that_says_nothing_is_named():
    with Server(lambda *_: server.wait()) as server:
        source = stream_of(f"tcp://{HOST}:{server.port}", connect_s=0.3, start_within_s=0.5)
        with pytest.raises(VideoError, match=r"given up after 0\.5 s without a frame: no frame for 0\.\d s"):
            next(iter(source))


def test_a_finished_file_is_no_live_stream_but_can_be_read_as_a_file(tmp_path):
    path = write_clip(tmp_path / "a.mp4", numbered(0, 25))
    content = path.read_bytes()
    with Server(lambda client, _: (client.recv(65536), client.sendall(http_answer("200 OK", content)))) as server:
        url = f"http://me:s3cret@{HOST}:{server.port}/a.mp4?token=s3cret"
        with pytest.raises(VideoError, match=r"it ends after 1\.0 s, so it is no live stream; open it with VideoFile"):
            next(iter(stream_of(url)))
        source = open_source(url)
        assert isinstance(source, VideoFile)
        assert source.name == f"http://{HOST}:{server.port}/a.mp4"
        numbers = [number_of(frame.image) for frame in source]
        source.close()
    assert numbers == list(range(25))
    with pytest.raises(VideoError, match="connection refused") as caught:
        open_source(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__)


def test_an_address_is_a_live_source_and_what_is_none_is_named():
    source = open_source(f"udp://{HOST}:5000")
    assert isinstance(source, NetworkStream)
    assert source.live
    assert source.state == "connecting"
    with pytest.raises(VideoError, match="expected the address of a stream such as rtsp://host/path"):
        NetworkStream("a.mp4")


def test_options_of_the_caller_reach_ffmpeg():
    asked = []

    def talk(client, _):
        asked.append(client.recv(65536).decode())
        client.sendall(http_answer("404 Not Found"))

    with Server(talk) as server:
        source = NetworkStream(f"http://{HOST}:{server.port}/a.ts", options={"user_agent": "mine"})
        with pytest.raises(VideoError, match="404"):
            next(iter(source))
    assert "User-Agent: mine" in asked[0]
