"""A client that loads a service: HTTP/1.1 on connections that are kept, and as little work a request as may be.

It shares the machine with the service that it measures, so what it needs for itself is counted too.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cornernet_runtime.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOST_HEAD = 1 << 16  # bytes of a response's head


@dataclass(frozen=True, slots=True)
class Target:
    """An address, and the token to bring.

    Attributes:
        host: Name or address.
        port: The same.
        secure: Whether to speak TLS.
        path: In front of the service's own paths; empty, or without a slash at its end.
        token: Or None.
    """

    host: str
    port: int
    secure: bool
    path: str
    token: str | None = None

    @classmethod
    def of(cls, url: str, token: str | None = None) -> Target:
        """Return what a URL names.

        Raises:
            ServeError: It is no URL of HTTP.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ServeError(f"{url}: no URL: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServeError(f"{url}: expected a URL such as http://127.0.0.1:8000")
        secure = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if secure else 80), secure, parts.path.rstrip("/"), token)

    def head(self, method: str, path: str, length: int) -> bytes:
        """Return a request's head, for a body of so many bytes."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        token = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        lines = f"{method} {self.path}{path} HTTP/1.1\r\nHost: {host}:{self.port}\r\n"
        return f"{lines}{token}Content-Length: {length}\r\n\r\n".encode()


@dataclass(slots=True)
class Load:
    """What a load came to.

    Attributes:
        times_ms: From the request's first byte to the response's last, of answers with status 200, milliseconds.
        statuses: Responses by status.
        failures: Requests without a response, by reason.
        bodies: Responses of status 200 by picture, and how often each came.
        seconds: Of the whole load.
        cpu_s: Of this process in that time.
    """

    times_ms: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    bodies: Counter[tuple[int, bytes]] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu_s: float = 0.0


class Connection:
    """A connection that is kept, and made anew where it ended.

    Args:
        target: Where to.
        timeout_s: For one response.
    """

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target, self._timeout_s = target, timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Return status and body of the response.

        Raises:
            OSError: There is no connection, or it ended within the response.
            TimeoutError: The response takes too long.
            ValueError: The response is none of HTTP/1.1 with a length.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(method, path, body)
        except BaseException:
            self.close()
            raise

    async def _ask(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            target = self._target
            self._streams = await asyncio.open_connection(
                target.host, target.port, ssl=target.secure or None, limit=_MOST_HEAD
            )
        reader, writer = self._streams
        writer.write(self._target.head(method, path, len(body)) + body)
        await writer.drain()
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            fields = {
                name.strip().lower(): value.strip()
                for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
            }
            content = await reader.readexactly(int(fields[b"content-length"]))
        except asyncio.IncompleteReadError as error:
            raise ConnectionResetError("the connection ended within a response") from error
        except (KeyError, asyncio.LimitOverrunError) as error:
            raise ValueError("no response of HTTP/1.1 with a length") from error
        if fields.get(b"connection", b"").lower() == b"close":
            self.close()
        return status, content

    def close(self) -> None:
        """End the connection; the next request makes another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def run_load(
    target: Target,
    pictures: Sequence[bytes],
    requests: int,
    concurrency: int,
    timeout_s: float,
    say: Callable[[int], None],
    path: str = "/detect",
) -> Load:
    """Send pictures in turn, so many at the same time, and return what came of it.

    Args:
        target: Where to.
        pictures: Encoded.
        requests: How many in all.
        concurrency: Connections, each of which waits for a response before its next request.
        timeout_s: For one response.
        say: Told of each response how many there are.
        path: Of the requests.
    """
    load, numbers = Load(), iter(range(requests))
    cpu, start = time.process_time(), time.perf_counter()

    async def work() -> None:
        connection = Connection(target, timeout_s)
        for number in numbers:
            begin = time.perf_counter()
            try:
                status, body = await connection.ask("POST", path, pictures[number % len(pictures)])
            except (OSError, TimeoutError, ValueError) as error:
                load.failures[str(error) or type(error).__name__] += 1
                continue
            load.statuses[status] += 1
            if status == 200:
                load.times_ms.append((time.perf_counter() - begin) * 1000)
                load.bodies[number % len(pictures), body] += 1
            say(load.statuses.total() + load.failures.total())
        connection.close()

    await asyncio.gather(*(work() for _ in range(concurrency)))
    load.seconds, load.cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return load
