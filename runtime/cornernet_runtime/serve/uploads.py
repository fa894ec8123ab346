"""Bodies of requests, received within limits of bytes and seconds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator

    from cornernet_runtime.serve.options import Limits


class RefusalError(Exception):
    """A request that is answered with a status and a message.

    Args:
        status: Of HTTP.
        detail: What was expected, what came, what to do.
        headers: Further ones of the response.
    """

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}


class Uploads:
    """Receives bodies, so many at the same time.

    Args:
        limits: Bytes, seconds and how many at the same time.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._under_way = self._held = 0  # bodies, and bytes of them

    @contextlib.asynccontextmanager
    async def receive(
        self, stream: AsyncIterable[bytes], declared: str | None, *, waits: bool
    ) -> AsyncIterator[bytearray]:
        """Receive a body, which counts among the bytes that are held until the context ends.

        One that is too large is read to its end all the same, and thrown away, since many clients look for a response
        only when they have sent everything; the seconds bound that too.

        Args:
            stream: Its parts.
            declared: The header Content-Length, if there is one.
            waits: Whether the client waits for leave to send ("Expect: 100-continue").

        Raises:
            RefusalError: It is empty, too large or too slow, or too many are under way.
        """
        limits = self._limits
        too_large = RefusalError(413, f"the body exceeds {limits.body_bytes} bytes; send a smaller picture", CLOSE)
        exceeds = declared is not None and declared.isdecimal() and int(declared) > limits.body_bytes
        if exceeds and waits:
            raise too_large
        if self._under_way >= limits.uploads:
            raise _too_many()
        self._under_way += 1
        body = bytearray()
        try:
            try:
                async with asyncio.timeout(limits.upload_s):
                    complete = await self._collect(stream, body, 0 if exceeds else limits.body_bytes)
            except TimeoutError:
                if exceeds:
                    raise too_large from None
                detail = f"the body did not come within {limits.upload_s:g} seconds; send a smaller picture"
                raise RefusalError(408, detail, CLOSE) from None
            finally:
                self._under_way -= 1
            if not complete:
                raise too_large
            if not body:
                detail = "the body is empty; send the bytes of a picture: curl --data-binary @picture.jpg"
                raise RefusalError(400, detail)
            yield body
        finally:
            self._held -= len(body)

    async def _collect(self, stream: AsyncIterable[bytes], body: bytearray, most: int) -> bool:
        """Add all parts to a body, and say after the last whether they fit; of those that do not, none is kept."""
        size = 0
        async for part in stream:
            size += len(part)
            if size > most:
                self._held -= len(body)
                body.clear()
                continue
            body += part
            self._held += len(part)
            if self._held > self._limits.uploads_bytes:
                raise _too_many()
        return size <= most


CLOSE = {"Connection": "close"}


def _too_many() -> RefusalError:
    detail = "too many uploads at the same time; try again in a second"
    return RefusalError(503, detail, {"Retry-After": "1", **CLOSE})
