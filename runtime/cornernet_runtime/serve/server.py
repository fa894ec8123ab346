"""The process that takes requests: Ray and the replicas behind it, a web server in front, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import signal
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from cornernet_runtime.cluster.connect import sigterm_kept
from cornernet_runtime.cluster.model import identify
from cornernet_runtime.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import uvicorn
    from fastapi import FastAPI

    from cornernet_runtime.serve.deployment import Replicas
    from cornernet_runtime.serve.messages import ModelInfo
    from cornernet_runtime.serve.metrics import Metrics
    from cornernet_runtime.serve.options import ServeRequest

_BACKLOG = 2048  # connections that the kernel keeps until they are accepted


def serve(request: ServeRequest, say: Callable[[str], None]) -> signal.Signals:
    """Serve until a signal ends it, and return that.

    Afterwards no new connection is accepted, and requests under way are finished, within ``request.drain_s``; a
    second signal does not wait for them.

    Args:
        request: What to serve.
        say: Told where it listens, and when it is ready.

    Raises:
        ServeError: It cannot listen there, or the replicas cannot be started.
        ClusterError: Ray cannot be started or is not there, or a replica has another model.
        CornerNetError: The model cannot be opened.
    """
    identity = identify(request.model.path)  # Ray would need seconds to say what is wrong with it
    request = replace(request, model=replace(request.model, sha256=identity.sha256))
    listening = listen(request.host, request.port)
    try:
        from cornernet_runtime.serve.deployment import Replicas  # noqa: PLC0415 - slow to import
        from cornernet_runtime.serve.metrics import Metrics  # noqa: PLC0415 - an extra

        try:
            metrics = Metrics()
        except ImportError as error:
            raise ServeError(f'the service needs {error.name}; pip install "cornernet-trt[cluster]"') from error
        replicas = Replicas(request, metrics.count_retry)
        with sigterm_kept():
            try:
                replicas.connect()
                return asyncio.run(_serve(request, replicas, metrics, listening, say))
            finally:
                replicas.stop()
    finally:
        listening.close()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, so that nobody else can take the port while Ray starts.

    Raises:
        ServeError: The host is unknown or not of this machine, or the port is taken or not to be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ServeError(f"--host {host}: no such host: {getattr(error, 'strerror', None) or error}") from error
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it; without it a body may wait 40 ms for the acknowledgement of its head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind(address)
        listening.listen(_BACKLOG)  # until the server accepts; binding alone would not find a port taken
    except OSError as error:
        listening.close()
        raise ServeError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    return listening


def is_loopback(host: str) -> bool:
    """Say whether only programs of this machine reach a host; a name counts if all its addresses do."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(one[4][0]).partition("%")[0]).is_loopback for one in found)


def address_of(listening: socket.socket) -> str:
    """Return the address of a bound socket, as browsers take it."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _serve(
    request: ServeRequest,
    replicas: Replicas,
    metrics: Metrics,
    listening: socket.socket,
    say: Callable[[str], None],
) -> signal.Signals:
    """Run the web server until a signal comes or the replicas cannot be started."""
    from cornernet_runtime.serve.web import create_app  # noqa: PLC0415 - needs FastAPI, an extra

    app = create_app(replicas, request.limits, request.token, metrics, lambda: server.should_exit)
    server = _web_server(app, request)
    ended = _end_on_signals(server)
    say(f"listening on {address_of(listening)}; loading {request.model.path}")
    starting = asyncio.create_task(_start(replicas, server, say))
    await server.serve(sockets=[listening])
    if starting.done():
        starting.result()  # raises what kept the replicas from starting
    else:
        starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    return ended[0] if ended else signal.SIGTERM


async def _start(replicas: Replicas, server: uvicorn.Server, say: Callable[[str], None]) -> None:
    """Start the replicas beside the web server, which says meanwhile that it is not ready; end it if they fail."""
    try:
        info = await _in_a_thread(replicas.start)
    except BaseException:  # also what nobody thought of: better no service than one that says 503 for ever
        server.should_exit = True
        raise
    say(f"ready: {info.description}")


async def _in_a_thread(work: Callable[[], ModelInfo]) -> ModelInfo:
    """Return what a function returns; its thread does not keep the process from ending, as those of asyncio do."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[ModelInfo] = loop.create_future()

    def settle(result: ModelInfo | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        elif result is not None:
            future.set_result(result)

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - told where it is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="start", daemon=True).start()
    return await future


def _end_on_signals(server: uvicorn.Server) -> list[signal.Signals]:
    """Have SIGTERM and SIGINT end a server, the second of them at once; return what came, which is filled later."""
    came: list[signal.Signals] = []

    def end(number: signal.Signals) -> None:
        server.force_exit = bool(came)
        server.should_exit = True
        came.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    return came


def _web_server(app: FastAPI, request: ServeRequest) -> uvicorn.Server:
    import uvicorn  # noqa: PLC0415 - an extra

    from cornernet_runtime.serve.connections import patient_protocol  # noqa: PLC0415 - needs uvicorn

    class Server(uvicorn.Server):
        """Leaves signals to ``_end_on_signals``."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        app,
        http=patient_protocol(request.limits),
        limit_concurrency=request.limits.connections,
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="error",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(request.drain_s),
    )
    return Server(config)
