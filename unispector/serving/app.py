"""The service as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from unispector.errors import DataError, PromptBankError
from unispector.serving.body import BodyLimit
from unispector.serving.decoding.uploads import TooLargeError
from unispector.serving.gate import Gate, error_response
from unispector.serving.label_studio import routes as label_studio
from unispector.serving.page_routes import files, routes
from unispector.serving.refusal import RefusedError, shown, without_folders
from unispector.serving.routes import router
from unispector.serving.service import Service

_ABOUT = """Show it one marked image of a defect (`POST /prompts`); it finds that defect, boxed and masked,
on every image you send (`POST /detect`). Boxes are left, top, width, height in pixels of the upright
image; masks are COCO run-length codes. Every error is `{"error": "one line"}`."""


def build_app(service: Service) -> FastAPI:
    """The application, ready for a server that runs its lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    # The usual pages for trying it out load scripts from elsewhere.
    app = FastAPI(
        title="UniSpector",
        version=version("unispector"),
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(HTTPBearer(auto_error=False, description="Where the service has a token."))],
    )
    app.state.service = service
    app.include_router(router)
    if service.bench is not None:
        app.state.bench = service.bench
        app.include_router(files.router)
        app.include_router(routes.router)
    if service.studio is not None:
        app.include_router(label_studio.router)
    app.add_exception_handler(RefusedError, _refused)
    app.add_exception_handler(DataError, _bad_data)
    app.add_exception_handler(PromptBankError, _bad_store)
    app.add_exception_handler(HTTPException, _bad_request)
    app.add_exception_handler(RequestValidationError, _bad_form)
    app.add_middleware(BodyLimit, service=service)
    app.add_middleware(Gate, service=service)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedError) else 500
    return error_response(RefusedError(status, str(error)))


async def _bad_data(_: Request, error: Exception) -> Response:
    return error_response(RefusedError(413 if isinstance(error, TooLargeError) else 400, str(error)))


async def _bad_form(_: Request, error: Exception) -> Response:
    """The first thing in a form that cannot be used, and where it is."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    place = shown(".".join(map(str, first.get("loc", ())[1:])))
    text = str(first.get("msg", error)).removeprefix("Value error, ")
    return error_response(RefusedError(400, f"{place}: {text}" if place else text))


async def _bad_store(_: Request, error: Exception) -> Response:
    """Prompts that cannot be read or written; the client can do nothing about it."""
    return error_response(RefusedError(503, without_folders(error)))


async def _bad_request(request: Request, error: Exception) -> Response:
    """What the routing refuses: an unknown path or method, a body that is no JSON or that was refused."""
    if isinstance(error.__cause__, RefusedError):
        return await _refused(request, error.__cause__)
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = {
        400: "the body is no JSON",
        404: "no such path; /openapi.json lists them",
        405: "no such method here",
    }
    allow = (getattr(error, "headers", None) or {}).get("Allow", "")
    return error_response(RefusedError(status, text.get(status, "cannot be answered"), allow))
