"""Images that Label Studio's tasks name: from its own server or a folder, and from nowhere else."""

import posixpath
import time
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from unispector.errors import DataError, ServiceError

API_KEY = "LABEL_STUDIO_API_KEY"
"""The variable with Label Studio's access token, as its own backends call it."""
DATA = "/data/"
"""Below this Label Studio serves uploads and local files; nothing else of it is asked for."""
LOCAL_FILES = "/data/local-files/"
CONNECT_SECONDS = 10.0
PIECE = 2**16


class _NoRedirect(HTTPRedirectHandler):
    """Makes a redirect, which may lead anywhere, an error."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow none."""


@dataclass(frozen=True)
class StudioImages:
    """Where images of tasks may come from."""

    url: str = ""  # of Label Studio, such as http://localhost:8080; empty = nothing is fetched
    folder: Path | None = None  # that holds its local files, or those of its object store; None = none
    api_key: str = ""  # Label Studio's legacy access token; sent to `url` only

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if self.url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query):
            raise ServiceError(
                f"--label-studio-url {self.url}: no address of a server; give one such as http://localhost:8080"
            )
        if self.folder is not None and not self.folder.is_dir():
            raise ServiceError(f"--label-studio-files {self.folder}: no such folder; give the images' folder")

    def read(self, address: str, most: int, seconds: float) -> bytes:
        """The bytes of a task's image.

        Args:
            most: bytes; a longer file is refused.
            seconds: in all, to fetch it.

        Raises:
            DataError: it may not be read, or cannot be.
        """
        try:
            parts = urlsplit(address)
            local = _local_path(address)
            elsewhere = bool(parts.scheme or parts.netloc)
            own = self.url and (
                _origin(address) == _origin(self.url) if elsewhere else parts.path.startswith("/")
            )
        except ValueError as error:
            raise DataError("the address of the image is none; correct the task") from error
        if local and self.folder is not None:
            return _from_folder(self.folder, local, most)
        if own:
            return self._fetched(parts.path, parts.query, most, seconds)
        if local:
            raise DataError(
                "the image's address needs --label-studio-files FOLDER; start the service with it"
            )
        if parts.netloc:
            raise DataError(
                "the image is on another server than Label Studio's, which is not asked; "
                "import the images into Label Studio, or start with another --label-studio-url"
            )
        raise DataError(
            "the task's image has no address of Label Studio or of its files; upload it there, "
            "or start the service with --label-studio-url"
        )

    def _fetched(self, path: str, query: str, most: int, seconds: float) -> bytes:
        base = urlsplit(self.url)
        below = base.path.rstrip("/")
        within = path.removeprefix(below) if path.startswith(f"{below}/") else path
        plain = posixpath.normpath(unquote(within))
        if not plain.startswith(DATA) or "\\" in plain:
            raise DataError(f"the image is not below {DATA} of Label Studio; upload it or use local files")
        safe = quote(unquote(within), safe="/")
        url = f"{base.scheme}://{base.netloc}{below}{safe}" + (
            f"?{quote(query, safe='=&%')}" if query else ""
        )
        request = Request(url, headers={"Authorization": f"Token {self.api_key}"} if self.api_key else {})  # noqa: S310 - http(s), checked
        end = time.monotonic() + seconds
        try:
            with _opener().open(request, timeout=min(CONNECT_SECONDS, seconds)) as response:
                return _small(_received(response, most, end), most)
        except HTTPError as error:
            hint = f"; check {API_KEY}" if error.code in (401, 403) else ""
            kind = "a redirect, which is not followed" if 300 <= error.code < 400 else "no image"
            raise DataError(f"Label Studio answers {error.code}, {kind}{hint}") from error
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise DataError(
                f"Label Studio does not send the image ({reason}); check --label-studio-url"
            ) from error


def _from_folder(folder: Path, local: str, most: int) -> bytes:
    try:
        root = folder.resolve()
        file = (root / local).resolve()
        if not file.is_relative_to(root):
            raise DataError("the image's path leaves the folder of images; correct the task")
        with file.open("rb") as stream:
            return _small(stream.read(most + 1), most)
    except (OSError, ValueError) as error:
        raise DataError(
            "the image is not in --label-studio-files; the folder must be Label Studio's document root"
        ) from error


def _local_path(address: str) -> str:
    """The path of a local file or of an object store's, relative to its folder; empty of another address."""
    parts = urlsplit(address)
    if parts.scheme in ("http", "https", "data"):
        return ""
    if parts.path.endswith(LOCAL_FILES):
        return parse_qs(parts.query).get("d", [""])[0].lstrip("/")
    return unquote(parts.path).lstrip("/") if parts.scheme else ""


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _opener() -> OpenerDirector:
    return build_opener(ProxyHandler({}), _NoRedirect)


def _received(response: HTTPResponse, most: int, end: float) -> bytes:
    data = bytearray()
    while len(data) <= most and (piece := response.read1(PIECE)):
        data += piece
        if time.monotonic() > end:
            raise TimeoutError("it takes too long")
    return bytes(data)


def _small(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise DataError(f"the image has more than {most / 2**20:g} MiB; raise --body-mib")
    return data
