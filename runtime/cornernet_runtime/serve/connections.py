"""Connections within limits: of their number, of the bytes of a head, and of the seconds for a head and for a body.

Each is a file that this process may have only so many of, and none needs the token. Needs uvicorn, of the extra
``cluster``; only ``server`` imports this module, when a service starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio import BaseTransport, TimerHandle

    from cornernet_runtime.serve.options import Limits

_BODY_GRACE_S = 5.0  # for the application, which has the same seconds for a body, to say why it ends
_TOO_LONG = b"the head of the request is too long\n"
_REFUSAL = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TOO_LONG), _TOO_LONG)
)


def patient_protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """Return uvicorn's protocol, with limits that it does not have by itself.

    It waits for ever for a head whose first byte has come, keeps however many bytes it has, and takes the body of a
    request that was refused for as long as it comes.

    Args:
        limits: Of them ``upload_s``, ``head_bytes`` and ``connections``.
    """

    class Limited(_Patient):
        _limits = limits

    return Limited


class _Patient(HttpToolsProtocol):
    """Closes a connection whose head or body does not come to its end; a subclass says what the limits are."""

    _limits: Limits
    _timer: TimerHandle | None = None
    _loose = 0  # bytes since the last that were of use: heads, and what stands around the parts of a body

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # narrower there
        if len(self.connections) > 2 * self._limits.connections:  # so many are not even told
            self.transport.abort()
            return
        self._arm(self._limits.upload_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._loose += len(data)
        super().data_received(data)
        if self._loose > self._limits.head_bytes:
            self._refuse()
        elif self._timer is None and getattr(self.cycle, "response_complete", True):
            self._arm(self._limits.upload_s)  # an empty line is no beginning, and yet it ended uvicorn's own time-out

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._arm(self._limits.upload_s)

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._limits.head_bytes:
            self._refuse()
            raise ValueError("too long a head")  # or the parser would go on
        self._loose = 0
        self._arm(self._limits.upload_s + _BODY_GRACE_S)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._loose = 0
        self._disarm()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self.loop.call_later(seconds, self._give_up, seconds)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, seconds: float) -> None:
        if self.pipeline:  # not the client's fault: nothing is read until the requests before are answered
            self._arm(seconds)
        else:
            self.transport.close()

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_REFUSAL)
            self.transport.close()
