"""Connections: how many, and how long one may take to say what it wants."""

import asyncio
import json
from http import HTTPStatus
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

from unispector.serving.limits import Limits


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 of uvicorn; a connection that is one too many or dawdles is closed, errors are JSON.

    Attributes:
        limits: of seconds and connections; set by `bounded_protocol`.
    """

    limits: ClassVar[Limits]
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too many connections; try again in a moment")
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._stop()
        if self._unread is not None:
            self._unread.cancel()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._unread is not None and not self.transport.get_write_buffer_size():
            self._unread.cancel()
            self._unread = None
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._stop()
        if self._unread is None and self.transport.get_write_buffer_size():
            self._unread = self.loop.call_later(self.limits.request_seconds, self._give_up)
        super().on_response_complete()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._refuse(400, msg)

    def _watch(self) -> None:
        """Let the time run while no request is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.limits.header_seconds, self._too_slow)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self.cycle is None:
            self._refuse(408, f"the headers took more than {self.limits.header_seconds:g} s")
        else:  # after an answer, for which nothing follows that could be refused
            self.transport.close()

    def _give_up(self) -> None:
        """Drop a connection whose answers are not read; to close it would wait for that."""
        self._unread = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        if not self.transport.is_closing():
            self.transport.write(_answer(status, message))
            self.transport.close()


def bounded_protocol(limits: Limits) -> type[BoundedProtocol]:
    """The protocol with limits of its own, as uvicorn takes it."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})


def _answer(status: int, message: str) -> bytes:
    body = json.dumps({"error": message})
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}"
    ).encode("ascii")
