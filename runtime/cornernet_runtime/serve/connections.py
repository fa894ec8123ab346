"""Connections that say nothing: closed after a while, for each is a file that this process may have only so many of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import BaseTransport

    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def patient_protocol(seconds: float) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol, which then waits only so long for the head of a request.

    By itself it waits for ever for that of the first; between two requests of a connection it has its own limit.

    Args:
        seconds: From a connection's beginning until all of the first request's head must have come.
    """
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: PLC0415 - an extra

    class Patient(HttpToolsProtocol):
        """Closes a connection that has not begun to be served."""

        def connection_made(self, transport: BaseTransport) -> None:
            super().connection_made(transport)  # type: ignore[arg-type]  # narrower there
            self.loop.call_later(seconds, self._close_if_silent)

        def _close_if_silent(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.close()

    return Patient
