"""Servers of live streams on this machine: a real ffmpeg, and sockets that send what they are told."""

from __future__ import annotations

import base64
import contextlib
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time

import numpy as np
import pytest

from cornernet_runtime.video.network import NetworkStream
from cornernet_runtime.video.reconnect import Reconnection

HOST = "127.0.0.1"
PATIENCE = 60  # seconds, for machines that are busy; nothing here takes long by itself
# Frames that show their number, plus an offset, as ten columns: dark is 0, bright is 1, the first counts 1.
NUMBERED = "nullsrc=size=160x96:rate=25,geq=lum='if(mod(floor((N+{first})/pow(2,floor(X/16))),2),235,16)':cb=128:cr=128"


def need_ffmpeg():
    """Return a mark that skips where the program is missing."""
    return pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed: apt-get install ffmpeg")


QUICK = {"first_wait_s": 0.05, "longest_wait_s": 0.2, "connect_s": PATIENCE, "give_up_after_s": PATIENCE}


def stream_of(url, **plan):
    """Return a live stream that is connected again soon."""
    return NetworkStream(url, Reconnection(**{**QUICK, **plan}))


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def number_of(image):
    """Return the number that a frame shows."""
    return sum(1 << bit for bit in range(10) if image[40:56, 16 * bit + 4 : 16 * bit + 12].mean() > 127)


def numbered(first, count):
    """Yield frames that show their numbers."""
    for number in range(first, first + count):
        columns = np.repeat([235 * (number >> bit & 1) for bit in range(10)], 16).astype(np.uint8)
        yield np.broadcast_to(columns[None, :, None], (96, 160, 3)).copy()


class Ffmpeg:
    """An ffmpeg that makes numbered frames in real time and sends them; it ends with the block.

    Args:
        address: Where to.
        output: Options that say how.
        keyframes: Frames from one key frame to the next.
    """

    def __init__(self, address, output=("-f", "mpegts"), keyframes=10):
        self._command = [
            *("ffmpeg", "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi", "-i", NUMBERED),
            *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-threads", "1"),
            *("-g", str(keyframes), *output, address),
        ]
        self.process = None

    def start(self, first=0):
        """Start it, with a number for its first frame."""
        command = [part.replace("{first}", str(first)) for part in self._command]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603
        return self

    def restart(self, first):
        """Kill it and start it again."""
        self.kill()
        self.start(first)

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)

    def stall(self):
        self.process.send_signal(signal.SIGSTOP)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()


class Server:
    """A TCP server that lets a function talk to each client, in a thread each.

    Args:
        talk: Called with the client's socket and its number, from 0; when it returns, the client is hung up on.
    """

    def __init__(self, talk):
        self._talk = talk
        self.clients = 0
        self.over = threading.Event()
        self._threads = []

    def __enter__(self):
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._threads.append(threading.Thread(target=self._listen, daemon=True))
        self._threads[0].start()
        return self

    def _listen(self):
        while not self.over.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._serve, args=(client, self.clients), daemon=True)
            self.clients += 1
            self._threads.append(thread)
            thread.start()

    def _serve(self, client, number):
        with client, contextlib.suppress(OSError):
            self._talk(client, number)

    def __exit__(self, *_):
        self.over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self._listener.close()

    def wait(self):
        """Say nothing until the end."""
        self.over.wait(PATIENCE)


def http_answer(status, body=b"", kind="text/html"):
    """Return the bytes of an answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def paced(client, content, seconds, *, part=1316):
    """Send bytes evenly over a time."""
    begin, parts = time.perf_counter(), range(0, len(content), part)
    for number, at in enumerate(parts):
        client.sendall(content[at : at + part])
        time.sleep(max(0.0, begin + seconds * number / len(parts) - time.perf_counter()))


SDP = """v=0
o=- 0 0 IN IP4 127.0.0.1
s=a
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/90000
""".replace("\n", "\r\n")
RTSP_ANSWERS = {
    "OPTIONS": "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n",
    "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(SDP)}\r\n\r\n{SDP}",
    "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
    "PLAY": "Session: 1\r\n\r\n",
}


def rtsp(client, packets, over, password=None):
    """Serve RTSP to one client, over its TCP connection, as short as can be.

    Args:
        client: The socket.
        packets: UDP socket at which RTP packets of H.264 arrive.
        over: Set when it is to end.
        password: That is wanted with the user "me", or None.
    """
    token = "" if password is None else "Basic " + base64.b64encode(f"me:{password}".encode()).decode()
    playing = False
    while not over.is_set():
        ready, _, _ = select.select([client, packets], [], [], 0.05)
        if packets in ready:
            packet = packets.recv(65536)
            if playing:
                client.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
        if client not in ready:
            continue
        request = client.recv(65536).decode(errors="replace")
        method, number = request.partition(" ")[0], re.search(r"CSeq: \d+", request)
        if not request or method == "TEARDOWN":
            return
        if number is None:
            continue  # what a client tells of the packets that it got
        if method == "DESCRIBE" and token not in request:
            status, more = "401 Unauthorized", 'WWW-Authenticate: Basic realm="a"\r\n\r\n'
        else:
            status, more = "200 OK", RTSP_ANSWERS.get(method, "\r\n")
        client.sendall(f"RTSP/1.0 {status}\r\n{number[0]}\r\n{more}".encode())
        playing = playing or method == "PLAY"
