"""The checks of every request before its route: sender, time limit, and the log of its end."""

import asyncio
import base64
import hmac
import ipaddress
import logging
import secrets
import time
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unispector.names import shortened, shown
from unispector.serving.lacks import lack
from unispector.serving.refusal import RETRY_SECONDS, RefusedError
from unispector.serving.service import Service

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/health", "/ready", "/")
"""Answered without a token: supervisors ask them, and the page that asks for the token loads."""
PAGE_FILES = "/assets/"
PAGE = "/bench/"
"""What the page asks for; no other site's page may."""
COOKIE = "unispector-page"
SINGLE = ("authorization", "host", "origin", "sec-fetch-site")
"""Headers that say who asks."""
STUDIO = "/label-studio/"
"""What Label Studio asks for; it knows no other credentials than a user's name and password."""


class Gate:
    """Refuses foreign requests before a byte of their body is read, and counts all."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; of an unforeseen error only an id is reported that is in the log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # answered as GET; the server leaves out the body
            scope = {**scope, "method": "GET"}
        began, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, noting)
        except Exception as error:
            identity = secrets.token_hex(6)
            later = lack(error)
            if not later:
                logger.exception("error %s of %s", identity, scope["method"])
            if status:
                raise  # too late for an answer; the connection is closed
            later = later or ("took too long" if isinstance(error, TimeoutError) else "")
            text = later or f"internal error {identity}; the service's log says more"
            await error_response(RefusedError(503 if later else 500, text))(scope, receive, noting)
        finally:
            # Only what is known: a label of whatever clients ask would fill the memory.
            route = "unknown" if status in (404, 405) else getattr(scope.get("route"), "path", "unknown")
            method = "" if route == "unknown" else scope["method"]
            self._service.metrics.requests.labels(route, method, str(status)).inc()
            self._service.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_sender(_headers(scope), self._service.token, scope["path"])
        except RefusedError as refused:
            await error_response(refused)(scope, receive, send)
            return
        async with asyncio.timeout(self._service.limits.request_seconds) as patience:
            scope.setdefault("state", {})["patience"] = patience
            await self._app(scope, receive, send)


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by their names in lower case.

    Raises:
        RefusedError: 400, one that says who asks comes twice: two readers could believe another one each.
    """
    headers: dict[str, str] = {}
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1")
        if name in headers and name in SINGLE:
            raise RefusedError(400, f"the header {name.title()} comes twice; send one")
        headers[name] = value.decode("latin-1")
    return headers


def page_cookie(token: str) -> str:
    """The cookie that stands for the token in requests of the page, whose images cannot carry a header."""
    return hmac.digest(token.encode(), b"unispector page", "sha256").hex()


def check_page(headers: dict[str, str]) -> None:
    """Refuse what another site's page asks for, whatever it carries.

    Raises:
        RefusedError: 403.
    """
    origin = headers.get("origin")
    elsewhere = origin is not None and origin.partition("://")[2] != headers.get("host", "")
    if elsewhere or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise RefusedError(403, "pages of other sites may not call this service")


def _carries(headers: dict[str, str], token: str, path: str) -> bool:
    """Return whether a request carries the token, of the page its cookie, of Label Studio it as password."""
    given = headers.get("authorization", "").encode("latin-1", "replace")
    scheme, _, credentials = given.partition(b" ")
    scheme = scheme.lower()
    if scheme == b"bearer" and hmac.compare_digest(credentials.lstrip(b" "), token.encode()):
        return True
    is_studio = path.startswith(STUDIO) and scheme == b"basic"
    if is_studio and hmac.compare_digest(_password(credentials), token.encode()):
        return True
    morsels = [part.strip().partition("=") for part in headers.get("cookie", "").split(";")]
    cookies = [value for name, _, value in morsels if name == COOKIE]
    known = page_cookie(token).encode()
    return path.startswith(PAGE) and any(
        hmac.compare_digest(each.encode("latin-1", "replace"), known) for each in cookies
    )


def _password(credentials: bytes) -> bytes:
    """The password of `Basic` credentials, of whatever user; empty of damaged ones."""
    try:
        pair = base64.b64decode(credentials, validate=True)
    except ValueError:
        return b""
    return pair.partition(b":")[2]


def check_sender(headers: dict[str, str], token: str, path: str) -> None:
    """Return whether a request comes from someone who may ask.

    Without a token only this machine's programs may: a page in a browser reaches loopback too, under a
    name of its own (`Host`) or from its own origin (`Origin`).

    Args:
        token: that requests must carry; empty = none.

    Raises:
        RefusedError: 401 or 403.
    """
    if path.startswith(PAGE):
        check_page(headers)
    if token:
        is_open = path in OPEN_PATHS or path.startswith(PAGE_FILES)
        if not is_open and not _carries(headers, token, path):
            raise RefusedError(401, "a token is needed; send `Authorization: Bearer TOKEN`")
        return
    if not is_loopback(_host_of(f"//{headers.get('host', '')}")):
        raise RefusedError(403, "this service answers on loopback only; call it as localhost or 127.0.0.1")
    if "origin" in headers and not is_loopback(_host_of(headers["origin"])):
        raise RefusedError(403, "pages of other sites may not call this service")


def is_loopback(host: str) -> bool:
    """Return whether a name or address is of the machine itself, and only it reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def error_response(refused: RefusedError) -> JSONResponse:
    """The one shape of errors; what a client has written into a line cannot make it two, or no UTF-8."""
    headers = {"Allow": refused.allow} if refused.allow else {}
    if refused.status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if refused.status == 408:
        headers["Connection"] = "close"
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": shown(shortened(str(refused)))}, refused.status, headers)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
