"""The web server without replicas: heads, bodies and connections without end, as strangers send them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import socket
import threading
import time
from types import SimpleNamespace

import pytest

if importlib.util.find_spec("ray") is None:
    pytest.skip('Ray is not installed: pip install "cornernet-trt[cluster]"', allow_module_level=True)

from ray.exceptions import RayActorError

from cornernet_runtime.errors import ServeError
from cornernet_runtime.serve.deployment import Replicas
from cornernet_runtime.serve.messages import ModelInfo
from cornernet_runtime.serve.metrics import Metrics
from cornernet_runtime.serve.options import Limits, ModelOptions, ServeRequest
from cornernet_runtime.serve.server import _start, _web_server, listen
from cornernet_runtime.serve.uploads import RefusalError, Uploads
from cornernet_runtime.serve.web import create_app

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments:DeprecationWarning")  # within Ray
UPLOAD_S = 0.3
LIMITS = Limits(upload_s=UPLOAD_S, connections=4)
PATIENCE_S = 20  # of these tests, far more than any limit: what is never closed fails


@contextlib.contextmanager
def web_server(limits, replicas=None):
    """Yield the port of the application, by default with replicas that have not started."""
    request = ServeRequest(ModelOptions("none"), limits=limits)
    app = create_app(replicas or Replicas(request), limits, b"a-token", Metrics())
    server = _web_server(app, request)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def port():
    with web_server(LIMITS) as port:
        yield port


@pytest.fixture
def connection(port):
    # Of the one before, the server may not have seen the end yet.
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        yield connection


def response(connection):
    """Return status, head and body of one response on a connection that may go on."""
    said = b""
    while b"\r\n\r\n" not in said:
        part = connection.recv(65536)
        assert part, said
        said += part
    head, _, body = said.partition(b"\r\n\r\n")
    [length] = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), head.lower(), body


def sent_until_closed(connection, part, pause_s=0.0):
    """Send a part again and again until the connection is closed; return how many bytes went out, and what came."""
    sent, said, end = 0, b"", time.monotonic() + PATIENCE_S
    connection.settimeout(pause_s or 0.001)
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < end and sent < 100_000_000:
            with contextlib.suppress(TimeoutError):
                sent += connection.send(part)
            with contextlib.suppress(TimeoutError):
                came = connection.recv(65536)
                said += came
                if not came:
                    return sent, said
        pytest.fail(f"still open after {sent} bytes")
    return sent, said


HEALTH = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /detect HTTP/1.1\r\nHost: a\r\n"


@pytest.mark.parametrize("first", [b"", b"P", POST, b"\r\n"], ids=["nothing", "a byte", "half a head", "an empty line"])
@pytest.mark.parametrize("requests", [0, 1])
def test_a_head_without_end_is_given_up(connection, first, requests):
    for _ in range(requests):
        connection.sendall(HEALTH)
        assert response(connection)[0] == 200
    if requests and not first:
        return  # uvicorn's own time between two requests, which is 5 s
    connection.sendall(first)
    assert connection.recv(100) == b""


@pytest.mark.parametrize("part", [b"a: b\r\n" * 1000, b"x" * 6000], ids=["lines", "one line"])
def test_a_head_of_many_bytes_is_refused(connection, part):
    connection.sendall(POST + (b"y: " if part[:1] == b"x" else b""))
    sent, _ = sent_until_closed(connection, part)
    assert sent < 20_000_000  # what the kernel takes is in it


def test_the_bytes_of_a_head_are_counted_exactly(connection):
    for value in (b"x" * 60_000, b"x" * 65_536):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nlong: " + value + b"\r\n\r\n")
        status, head, _ = response(connection)
        assert status == (200 if len(value) == 60_000 else 431)
    assert b"connection: close" in head
    assert connection.recv(100) == b""


def test_what_stands_behind_the_last_part_of_a_body_is_counted_too(connection):
    connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
    sent, said = sent_until_closed(connection, b"a: b\r\n" * 1000)
    assert said.startswith(b"HTTP/1.1 401 ")
    assert sent < 20_000_000


def test_the_body_of_a_refused_request_may_come_and_then_the_next(connection):
    for _ in range(2):
        connection.sendall(POST + b"Content-Length: 200000\r\n\r\n" + bytes(200_000))
        status, head, _ = response(connection)
        assert (status, b"connection: close" in head) == (401, False)


def test_the_body_of_a_refused_request_is_given_up(connection, monkeypatch):
    monkeypatch.setattr("cornernet_runtime.serve.connections._BODY_GRACE_S", 0.2)
    connection.sendall(POST + b"Content-Length: 200000\r\n\r\n")
    sent, said = sent_until_closed(connection, b"x", 0.05)
    assert said.startswith(b"HTTP/1.1 401 ")
    assert sent < 200_000


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"POST /detect HTTP/1.1\r\n", 401),
        (b"POST /detect HTTP/1.1\r\nAuthorization: Bearer a-token\r\n", 503),
        (b"POST /detect?score=7 HTTP/1.1\r\n", 422),
        (b"POST /health HTTP/1.1\r\n", 405),
        (b"POST /nowhere HTTP/1.1\r\n", 404),
    ],
)
def test_who_asks_before_sending_and_is_refused_is_closed(connection, start, status):
    connection.sendall(start + b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 34\r\n\r\n")
    got, head, _ = response(connection)
    assert (got, b"connection: close" in head) == (status, True)
    assert connection.recv(100) == b""


def test_connections_are_bounded():
    with web_server(Limits(connections=4)) as port, contextlib.ExitStack() as opened:

        def connect():
            one = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
            one.sendall(HEALTH)
            return one

        kept = [connect() for _ in range(3)]
        assert [response(one)[0] for one in kept] == [200] * 3
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
        for one in silent:
            opened.enter_context(one)
        ninth = opened.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S))
        with contextlib.suppress(ConnectionError):
            assert ninth.recv(100) == b""
        kept[0].sendall(HEALTH)
        assert response(kept[0])[0] == 503
        for one in silent:
            one.close()
        end = time.monotonic() + PATIENCE_S
        while (status := response(connect())[0]) == 503 and time.monotonic() < end:
            time.sleep(0.05)
        assert status == 200


class Started:
    """Replicas of which Ray counts, slowly."""

    def __init__(self):
        self.asked = 0

    def status(self):
        self.asked += 1
        if self.asked > 1:
            raise RayActorError
        time.sleep(0.1)
        running = SimpleNamespace(replica_states={"RUNNING": 2, "STARTING": 1})
        return SimpleNamespace(applications={self.name: SimpleNamespace(deployments={"detector": running})})


def test_who_asks_often_whether_it_is_ready_does_not_ask_ray_as_often(monkeypatch):
    replicas, controller = Replicas(ServeRequest(ModelOptions("none"))), Started()
    replicas.info, controller.name = ModelInfo("a model"), replicas._name
    monkeypatch.setattr("ray.serve.status", controller.status)

    async def counts():
        first = await asyncio.gather(*(replicas.running() for _ in range(50)))
        monkeypatch.setattr("cornernet_runtime.serve.deployment._COUNT_S", 0)
        return first, await replicas.running()

    assert asyncio.run(counts()) == ([2] * 50, 0)  # without its controller none is up
    assert controller.asked == 2


def test_whatever_keeps_replicas_from_starting_ends_the_server():
    def start():
        raise RayActorError

    server = SimpleNamespace(should_exit=False)
    with pytest.raises(RayActorError):
        asyncio.run(_start(SimpleNamespace(start=start), server, print))
    assert server.should_exit


def test_what_ray_raises_at_the_start_is_an_error_of_ours(monkeypatch):
    def start(**_options):
        raise RayActorError

    monkeypatch.setattr("ray.serve.start", start)
    with pytest.raises(ServeError, match="the replicas cannot be started: The actor "):
        Replicas(ServeRequest(ModelOptions("none"))).start()


def test_bodies_are_counted_until_they_are_answered():
    async def check():
        async def stream():
            yield bytes(60)

        uploads = Uploads(Limits(uploads_bytes=100))
        async with uploads.receive(stream(), None, waits=False) as body:
            assert body == bytes(60)
            with pytest.raises(RefusalError, match="too many uploads"):
                async with uploads.receive(stream(), None, waits=False):
                    pass
        for _ in range(3):
            async with uploads.receive(stream(), None, waits=False) as body:
                assert body == bytes(60)

    asyncio.run(check())


def test_a_service_that_is_loading_says_so(connection):
    connection.sendall(POST + b"Authorization: Bearer a-token\r\nContent-Length: 1\r\n\r\nx")
    status, _, body = response(connection)
    assert (status, json.loads(body)["detail"]) == (503, "the model is being loaded; try again in a second")
