"""The routes behind the page: the session, what was found, pictures, exports."""

from pathlib import Path
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import Field

from unispector.errors import DataError
from unispector.serving.gate import COOKIE, page_cookie
from unispector.serving.messages import Message
from unispector.serving.page_routes.shown import (
    ImageSize,
    ShownFinding,
    ShownImages,
    ShownNews,
    ShownSession,
    Start,
    shown_findings,
    shown_news,
    shown_session,
    start,
)
from unispector.serving.refusal import RefusedError
from unispector.serving.service import Service
from unispector.workbench.bench import Bench, ExportState, FolderEntry, folders
from unispector.workbench.exports import FILES, Kind
from unispector.workbench.folder import ImageFile
from unispector.workbench.jobs import Provable
from unispector.workbench.session import Change, OutdatedError

PREFIX = "/bench"
WAIT_SECONDS = 2.0
"""So long a request for news waits for some; the end of the program waits for it."""
SEEN = 300
"""Images that are looked at first, at most."""

router = APIRouter(prefix=PREFIX, include_in_schema=False)


class ChangeBody(Message):
    """A change of the session."""

    version: int  # that it was made to
    change: Change


class StepBody(Message):
    """Undo or redo."""

    version: int
    redo: bool = False


class FolderBody(Message):
    """A folder of this machine."""

    folder: Annotated[str, Field(min_length=1, max_length=4096)]


class SeenBody(Message):
    """Images that are seen now, most wanted first."""

    images: Annotated[list[str], Field(max_length=SEEN)]


class CheckBody(Message):
    """Marks that the prompt doctor shall look at."""

    label: Annotated[str, Field(max_length=200)] = ""  # empty = of all classes


class BudgetBody(Message):
    """False alarms that a class may raise."""

    label: Annotated[str, Field(max_length=200)]
    one_in: Annotated[int, Field(ge=2, le=1_000_000)]  # good images, of which at most one may show one


class ExportBody(Message):
    """What is to be written."""

    kind: Kind


@router.post("/login", status_code=204)
async def login(request: Request, response: Response) -> None:
    """Give the page, which has sent the token, a cookie for its images."""
    token = _service(request).token
    if token:
        response.set_cookie(COOKIE, page_cookie(token), path=PREFIX, httponly=True, samesite="strict")


@router.get("/start")
async def get_start(request: Request) -> Start:
    """What the page must know first."""
    return start(_service(request).identity, _bench(request))


@router.post("/open")
async def open_folder(request: Request, body: FolderBody) -> Start:
    """Open a folder."""
    bench = _bench(request)
    await _service(request).working(bench.open, _folder(body.folder))
    return start(_service(request).identity, bench)


@router.get("/folders")
async def list_folders(request: Request, path: str) -> list[FolderEntry]:
    """Folders to choose from."""
    if _bench(request).fixed:
        raise RefusedError(403, "this page shows the folder it was started with")
    return await _service(request).working(folders, _folder(path))


@router.post("/demo")
async def demo(request: Request) -> Start:
    """Draw the demo images and open them."""
    bench = _bench(request)
    await _service(request).working(bench.demo)
    return start(_service(request).identity, bench)


@router.put("/images")
async def add_image(request: Request, name: str) -> str:
    """Take in an image; its file is the body."""
    data = await request.body()
    return await _service(request).working(_bench(request).add, unquote(name), data)


@router.get("/session")
async def get_session(request: Request) -> ShownSession:
    """The session."""
    return await _service(request).working(shown_session, _bench(request).project)


@router.post("/session")
async def change_session(request: Request, body: ChangeBody) -> ShownSession:
    """Change the session; 409 where it has changed meanwhile."""
    project = _bench(request).project
    try:
        await _service(request).working(project.change, body.change, body.version)
    except OutdatedError as error:
        raise RefusedError(409, str(error)) from error
    return await _service(request).working(shown_session, project)


@router.post("/undo")
async def undo(request: Request, body: StepBody) -> ShownSession:
    """Undo or redo; 409 where the session has changed meanwhile."""
    project = _bench(request).project
    try:
        await _service(request).working(lambda: project.undo(body.version, redo=body.redo))
    except OutdatedError as error:
        raise RefusedError(409, str(error)) from error
    return await _service(request).working(shown_session, project)


@router.post("/check", status_code=204)
async def check(request: Request, body: CheckBody) -> None:
    """Begin to check marks."""
    await _service(request).working(_bench(request).jobs.check, body.label)


@router.post("/threshold", status_code=204)
async def choose_threshold(request: Request, body: BudgetBody) -> None:
    """Begin to choose a threshold."""
    await _service(request).working(_bench(request).jobs.choose, body.label, body.one_in)


@router.get("/threshold")
async def provable(
    request: Request,
    label: Annotated[str, Query(max_length=200)],
    one_in: Annotated[int, Query(ge=2, le=1_000_000)],
) -> Provable:
    """What the good images can prove of a class."""
    return await _service(request).working(_bench(request).jobs.provable, label, one_in)


@router.post("/stop", status_code=204)
async def stop(request: Request) -> None:
    """Give up what runs beside the search."""
    _bench(request).jobs.stop()


@router.get("/images")
async def get_images(request: Request) -> ShownImages:
    """The list of images."""
    folder = _bench(request).project.folder
    files = folder.files
    return ShownImages(folder.version, list(files), [file.stamp for file in files.values()])


@router.get("/news")
async def get_news(request: Request, after: int, version: int) -> ShownNews:
    """What happened since; waits a moment for something to happen."""
    service, project = _service(request), _bench(request).project
    news = await service.waiting(project.news, after, version, WAIT_SECONDS)
    return shown_news(news, service.identity)


@router.post("/seen", status_code=204)
async def seen(request: Request, body: SeenBody) -> None:
    """These images are seen; they are looked at first."""
    _bench(request).project.look(body.images)


@router.get("/findings")
async def get_findings(request: Request, image: str) -> list[ShownFinding]:
    """The outlines of everything found on an image."""
    return await _service(request).working(shown_findings, _bench(request).project, image)


@router.get("/size")
async def get_size(request: Request, image: str) -> ImageSize:
    """Width and height of an image."""
    height, width = await _service(request).working(_bench(request).project.size, image)
    return ImageSize(width, height)


@router.get("/thumbnail")
async def thumbnail(request: Request, image: str) -> Response:
    """A small image."""
    project = _bench(request).project
    file = _image(request, image)
    path = project.folder.root / file.name
    return _picture(await _service(request).working(project.pictures.thumbnail, path, file.stamp))


@router.get("/tile")
async def tile(request: Request, image: str, level: int, column: int, row: int) -> Response:
    """One tile of an image."""
    project = _bench(request).project
    file, path = _image(request, image), project.folder.path(image)
    make = project.pictures.tile
    return _picture(await _service(request).working(make, path, file.stamp, level, column, row))


@router.post("/export")
async def begin_export(request: Request, body: ExportBody) -> ExportState:
    """Begin to write an export."""
    bench = _bench(request)
    bench.export(body.kind)
    return bench.exporting


@router.get("/export")
async def export_state(request: Request) -> ExportState:
    """How far the newest export is."""
    return _bench(request).exporting


@router.get("/export/file")
async def export_file(request: Request, number: Annotated[int, Query(ge=1)]) -> Response:
    """The file of a finished export."""
    bench = _bench(request)
    file = bench.exported(number)
    name = next(own for own in FILES.values() if own == file.name)
    return FileResponse(file, filename=name, headers={"Cache-Control": "no-store"})


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _bench(request: Request) -> Bench:
    bench: Bench = request.app.state.bench
    return bench


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser().resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # also no such user, or no path
        raise DataError(f"{text[:200]!a}: no such folder; check the path") from error


def _image(request: Request, name: str) -> ImageFile:
    project = _bench(request).project
    project.folder.path(name)
    return project.folder.files[name]


def _picture(data: bytes) -> Response:
    # The address carries the file's stamp, so that another content has another address.
    headers = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}
    return Response(data, media_type="image/jpeg", headers=headers)
