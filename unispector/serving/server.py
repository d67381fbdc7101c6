"""The HTTP server: one process, one event loop, a clean end."""

import asyncio
import json
import logging
import signal
import socket
import sys
import warnings

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from unispector.errors import ServiceError
from unispector.serving.app import build_app
from unispector.serving.service import Service

logger = logging.getLogger(__name__)

HEADER_BYTES = 2**14  # of a request, all headers together
# Longer than clients and proxies keep an idle connection, so that none is closed just as it is used again.
KEEP_ALIVE_SECONDS = 75

LATE_SECONDS = 0.5  # between two looks for connections that came in while the server stops

_NOT_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%s"
)


class _Protocol(H11Protocol):
    """HTTP/1.1 of uvicorn, which would answer what is not HTTP in plain text, and fail after an answer."""

    def send_400_response(self, msg: str) -> None:
        """Refuse in the one shape of errors, and close the connection."""
        if not self.transport.is_closing():
            body = json.dumps({"error": msg}).encode("ascii")
            self.transport.write(_NOT_HTTP % (len(body), body))
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server, which would wait for a connection that came in just as it was told to stop."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; connections that come in meanwhile are closed as soon as they are idle."""
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
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=round(service.limits.shutdown_seconds),
    )
    return _Server(config)


def run_server(service: Service, sock: socket.socket) -> None:
    """Answer requests until SIGTERM or SIGINT; those in flight are answered first.

    Raises:
        SystemExit: 0 after SIGTERM.
        KeyboardInterrupt: after SIGINT.
    """
    warnings.filterwarnings("ignore", module="PIL")  # what it thinks of clients' images
    # The server repeats the signal when it is done: then, as before it began, there is nothing left to do.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logger.info("answering on %s", address(sock))
    make_server(service).run(sockets=[sock])
