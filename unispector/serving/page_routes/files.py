"""The page's own files, as they were built into the package."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, Response

from unispector.serving.refusal import RefusedError

BUILT = Path(str(files("unispector"))) / "page" / "dist"

# Nothing from elsewhere is loaded, and no other site shows the page in a frame.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter()


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """The page."""
    headers = {
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
    }
    if not (BUILT / "index.html").is_file():
        raise RefusedError(500, "the page was not built; `make page` builds it")
    return FileResponse(BUILT / "index.html", headers=headers)


@router.get("/assets/{name}", include_in_schema=False)
async def asset(name: str) -> Response:
    """A script, a style or a font of the page; its name changes with its content."""
    known = {file.name: file for file in (BUILT / "assets").iterdir() if file.is_file()}
    if name not in known:
        raise RefusedError(404, "no such file; load the page again")
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return FileResponse(known[name], headers=headers)
