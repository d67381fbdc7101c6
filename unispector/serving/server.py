"""The HTTP server: one process, one event loop, a clean end."""

import asyncio
import json
import logging
import os
import resource
import signal
import socket
import sys
import warnings
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from unispector.environment import end_on_signals
from unispector.errors import ServiceError
from unispector.serving.app import build_app
from unispector.serving.lacks import lack
from unispector.serving.service import Service

logger = logging.getLogger(__name__)

HEADER_BYTES = 2**14  # of a request, all headers together
# Longer than clients and proxies keep an idle connection, so that none is closed just as it is used again.
KEEP_ALIVE_SECONDS = 75

CONNECTIONS = 1000
"""At a time; of more, the one that was idle longest is closed."""
WAITING = 128
"""Connections that the system keeps until they are taken."""
FILES = 4096
"""Open files that are asked of the system: a connection is one, so is a larger part of a body."""

INTERRUPTED = 130
"""The exit code after SIGINT."""
PIECES, PIECE_BYTES = 1000, 256
"""A body may come in so many pieces, and in one more for each so many bytes."""
LATE_SECONDS = 0.5  # between two looks for connections that came in while the server stops

_REFUSAL = (
    b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
)


class _Connection(h11.Connection):
    """HTTP/1.1 that refuses a body of crumbs, each of which costs as much as a large piece."""

    _pieces = 0
    _bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What came next."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
            names = {name for name, _ in event.headers}
            if {b"content-length", b"transfer-encoding"} <= names:  # RFC 9112, 6.1: it may be two requests
                raise h11.RemoteProtocolError("a body of two lengths")
            if sum(len(name) + len(value) + 4 for name, value in event.headers) > HEADER_BYTES:
                raise h11.RemoteProtocolError("too large headers")  # h11 looks only at what came in pieces
            if len(event.target) > HEADER_BYTES:
                raise h11.RemoteProtocolError("too long a path")
        elif isinstance(event, h11.Data):
            self._pieces, self._bytes = self._pieces + 1, self._bytes + len(event.data)
            if self._pieces > PIECES + self._bytes // PIECE_BYTES:
                raise h11.RemoteProtocolError("a body in too small pieces")
        return event


class _Protocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which would answer what is not HTTP in plain text, and fail after an answer."""

    most = CONNECTIONS
    idle_since = 0.0

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.conn = _Connection(h11.SERVER, HEADER_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in place of the one that was idle longest where there are too many."""
        super().connection_made(transport)
        self.idle_since = self.loop.time()
        others = [
            each
            for each in self.connections
            if isinstance(each, _Protocol) and each is not self and not each.transport.is_closing()
        ]
        if len(others) < self.most:
            return
        idle = [each for each in others if each.cycle is None or each.cycle.response_complete]
        if idle:
            min(idle, key=lambda each: each.idle_since).transport.close()
        else:
            self._refuse(b"503 Service Unavailable", "too many connections; try again in a moment")

    def on_response_complete(self) -> None:
        """Count from now on as idle."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse in the one shape of errors, and close the connection."""
        self._refuse(b"400 Bad Request", msg)

    def _refuse(self, status: bytes, message: str) -> None:
        if not self.transport.is_closing():
            body = json.dumps({"error": message}).encode("ascii")
            self.transport.write(_REFUSAL % (status, len(body), body))
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which would wait for a connection that came in just as it was told to stop."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections from now on."""
        asyncio.get_running_loop().set_exception_handler(_outside_of_a_request)
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to stop: also when the service cannot be what it was started for."""
        return await super().on_tick(counter) or bool(self._service.failure)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; connections that come in meanwhile are closed as soon as they are idle."""
        logger.info("ending; requests in flight are answered first")
        closing = asyncio.create_task(self._close_late())
        try:
            await super().shutdown(sockets)
        finally:
            closing.cancel()

    async def _close_late(self) -> None:
        while True:
            for connection in list(self.server_state.connections):
                if isinstance(connection, _Protocol) and not connection.transport.is_closing():
                    connection.shutdown()
            await asyncio.sleep(LATE_SECONDS)


def _outside_of_a_request(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Handle an error, such as of a connection that cannot be taken, which asyncio tries all the time."""
    if not lack(context.get("exception")):
        loop.default_exception_handler(context)


def most_connections() -> int:
    """How many connections are held at a time; as many open files as needed are asked of the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        soft = min(FILES, hard) if hard != resource.RLIM_INFINITY else FILES
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(CONNECTIONS, soft // 2))


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on.

    Args:
        port: 0 = a free one.

    Raises:
        ServiceError: the address is in use, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ServiceError(
            f"{host}:{port}: cannot listen there ({error.strerror}); choose another --host or --port"
        ) from error
    # Else an answer's body waits until its head is acknowledged, and is lost if the connection is closed.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def address(sock: socket.socket) -> str:
    """Where a listening socket is reached."""
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}"


def make_server(service: Service) -> uvicorn.Server:
    """A server that does not run yet."""
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every broken body
    config = uvicorn.Config(
        build_app(service),
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEADER_BYTES,
        backlog=WAITING,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(service.limits.shutdown_seconds),
    )
    _Protocol.most = most_connections()
    return _Server(config, service)


def run_server(service: Service, sock: socket.socket) -> None:
    """Answer requests until SIGTERM, SIGHUP or SIGINT; those in flight are answered first.

    Raises:
        ServiceError: the model that the service was started for cannot be used.
        SystemExit: 0 after SIGTERM or SIGHUP.
        KeyboardInterrupt: after SIGINT.
    """
    warnings.filterwarnings("ignore", module="PIL")  # what it thinks of clients' images
    # The server repeats the signal when it is done.
    end_on_signals(sys.exit)
    logger.info("answering on %s", address(sock))
    try:
        make_server(service).run(sockets=[sock])
    except (SystemExit, KeyboardInterrupt) as ending:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second one would change the exit code
        logger.info("ended")
        if service.is_loading:  # Python would wait for the thread, and nothing can end it
            logging.shutdown()
            os._exit(0 if isinstance(ending, SystemExit) else INTERRUPTED)
        raise
    if service.failure:
        raise ServiceError(service.failure)
