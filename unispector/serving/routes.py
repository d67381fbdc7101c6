"""The routes of the service."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from unispector.detections import Detections
from unispector.ops.memory import PEAK_BYTES
from unispector.ops.rle import count_runs, encode_rle
from unispector.prompts.store import MarkedImage
from unispector.serving.answers import DetectAnswer, ErrorAnswer, HealthAnswer, PromptsAnswer
from unispector.serving.batching import Query, query_for
from unispector.serving.forms import DetectBody, DetectForm, FormRoute, PromptBody, check_label, shown_name
from unispector.serving.gate import error_response
from unispector.serving.messages import image_message
from unispector.serving.prompts import stored
from unispector.serving.refusal import RefusedError, Share
from unispector.serving.service import Result, Service

router = APIRouter(route_class=FormRoute)

_SAID = {
    400: "Something in the request cannot be used; `error` says what.",
    401: "The token is missing or wrong.",
    403: "Without a token: a caller from elsewhere.",
    404: "There is no such class.",
    408: "The body came too slowly.",
    409: "The prompts are a bank file, which never changes.",
    413: "Too many bytes, pixels or images.",
    415: "No multipart form.",
    500: "Unforeseen; `error` has an id that is in the service's log.",
    503: "No model or no prompts yet, prompts that cannot be read or written, or too busy; try again after "
    "`Retry-After` seconds.",
}
_ANYWHERE = (403, 500)
_BODY = (400, 401, 408, 413, 415, 503)


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    said: dict[int | str, str] = {status: _SAID[status] for status in sorted({*_ANYWHERE, *statuses})}
    said["default"] = "Any other error."  # else FastAPI tells of an answer of its own, 422
    return {status: {"model": ErrorAnswer, "description": text} for status, text in said.items()}


_LATER: dict[int | str, dict[str, Any]] = {
    202: {"model": PromptsAnswer, "description": "Done, but not used yet; `trouble` says why."}
}


MOST_RUNS = 100_000
"""Of a mask, which every later version of the prompts repeats."""
_DETECT = "Find the prompted defects on images"


@router.post("/detect", response_model=DetectAnswer, responses=_errors(*_BODY), summary=_DETECT)
async def detect(request: Request, form: DetectBody) -> Response:
    """Every image is looked at for every class, or for those named by `classes`.

    All images of a request are answered by one model with one version of the prompts, which the answer
    names. Scores, boxes and masks are exactly those of `UniSpector.detect` in Python.
    """
    service, count = _service(request), len(form.images)
    if count > service.limits.pictures:
        raise RefusedError(413, f"{count} images; send at most {service.limits.pictures} at a time")
    reloader = service.reloader
    classes = tuple(filter(None, form.classes))  # an empty field counts as not sent
    query = query_for(reloader.engine, reloader.trouble, classes, form.limit)
    with service.queue.share() as queue:
        queue.take(count)
        found = await _while_heard(request, _found(service, query, form, request.state.memory))
        body = await service.working(_answer, query, form, found)
    return Response(body, media_type="application/json")


@router.get(
    "/prompts",
    response_model=PromptsAnswer,
    responses=_errors(401, 503),
    summary="List the classes that are looked for",
)
async def list_prompts(request: Request) -> Response:
    """Classes, how often each is marked, and the versions before."""
    return _json(await _listing(_service(request)))


@router.post(
    "/prompts",
    response_model=PromptsAnswer,
    responses={**_LATER, **_errors(409, *_BODY)},
    summary="Show the service a defect",
)
async def add_prompt(request: Request, form: PromptBody) -> Response:
    """Adds a marked image to a class, or makes the class; it is looked for from now on.

    Mark every instance of the defect on the image: what is not marked counts as its surroundings. Three to
    five images a class are better than one. Nothing is trained. The image is kept as it came. With `negative`
    the marks show what the class is not: what resembles them more is found no longer.
    """
    service, memory = _service(request), request.state.memory
    prompts = stored(service.reloader.prompts)
    if len(form.boxes) > service.limits.marks:
        raise RefusedError(413, f"{len(form.boxes)} boxes; send at most {service.limits.marks} at a time")
    name, image = shown_name(form.image.filename, 1), await form.image.read()
    # What reads it again needs no deadline any more, but as much room.
    pixels = await service.decoders.image(image, name, memory)
    memory.take((PEAK_BYTES - 3) * (pixels.nbytes // 3))
    picture = MarkedImage(image, name, form.boxes, negative=form.negative)
    if form.mask is not None:
        marked = await service.decoders.mask(await form.mask.read(), "the mask", memory)
        if await service.working(count_runs, marked) > MOST_RUNS:
            raise RefusedError(413, f"the mask has more than {MOST_RUNS} runs; draw its outline smoother")
        codes = await service.working(encode_rle, marked[None])
        picture = MarkedImage(image, name, masks_rle=codes, negative=form.negative)
    return await _changed(request, partial(prompts.add, form.label, picture, form.by, form.note))


@router.delete(
    "/prompts/{label:path}",
    response_model=PromptsAnswer,
    responses={**_LATER, **_errors(400, 401, 404, 409, 503)},
    summary="Stop looking for a class",
)
async def remove_prompts(request: Request, label: str) -> Response:
    """Takes a class out. The versions before keep it: `unispector prompts revert` brings it back."""
    prompts = stored(_service(request).reloader.prompts)
    return await _changed(request, partial(prompts.remove, check_label(label), "http", ""))


@router.get(
    "/health",
    response_model=HealthAnswer,
    responses=_errors(),
    summary="How the service is; always 200 while it lives",
)
async def health(request: Request) -> Response:
    """For people and for supervisors that restart what does not answer."""
    return _json(_health(_service(request)))


@router.get(
    "/ready",
    response_model=HealthAnswer,
    responses=_errors(503),
    summary="200 when images can be sent, 503 before",
)
async def ready(request: Request) -> Response:
    """For load balancers and for scripts that wait."""
    state = _health(_service(request))
    return _json(state) if state.ready else error_response(RefusedError(503, state.reason))


@router.get("/metrics", response_class=Response, responses=_errors(401), summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    """Requests, times, images, batches, queue, reloads and memory, in Prometheus' text format."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _json(answer: HealthAnswer | PromptsAnswer, status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status, media_type="application/json")


async def _found(service: Service, query: Query, form: DetectForm, memory: Share) -> list[Detections]:
    pictures = [
        await service.decoders.image(await file.read(), shown_name(file.filename, n), memory)
        for n, file in enumerate(form.images, start=1)
    ]
    return await service.batcher.detect(pictures, query)


async def _while_heard(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of work that is given up when its client goes; the body was read."""
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise RefusedError(400, "the connection ended early")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _changed(request: Request, change: Callable[[], None]) -> Response:
    """Change the prompts; 202 where they could not be taken in within the request's time.

    A change that has begun is waited for however long it takes: whoever asked must learn that it was made.
    """
    service, loop, patience = _service(request), asyncio.get_running_loop(), request.state.patience
    end: float = patience.when()
    patience.reschedule(None)
    await service.finishing(change, end)
    refreshed = asyncio.ensure_future(service.loading(service.reloader.refresh))
    await asyncio.wait([refreshed], timeout=end - loop.time())
    patience.reschedule(loop.time() + service.limits.request_seconds)
    listing = await _listing(service)
    return _json(listing, 200 if listing.served == listing.version else 202)


def _answer(query: Query, form: DetectForm, found: Sequence[Detections]) -> str:
    prompts = query.prompts
    least = prompts.thresholds if form.min_score is None else form.min_score
    pictures = [
        image_message(shown_name(file.filename, n), detections.above(least))
        for n, (file, detections) in enumerate(zip(form.images, found, strict=True), start=1)
    ]
    engine = query.engine
    answer = DetectAnswer(
        model=engine.answer,
        bank_version=engine.bank_version,
        thresholds=dict(zip(prompts.class_names, prompts.thresholds, strict=True)),
        pictures=pictures,
    )
    return answer.model_dump_json()


async def _listing(service: Service) -> PromptsAnswer:
    reloader = service.reloader
    served = reloader.engine.bank_version if reloader.engine else ""
    trouble = service.trouble or "the newest prompts are still being encoded"
    return await service.working(reloader.prompts.listing, served, trouble)


def _health(service: Service) -> HealthAnswer:
    reloader = service.reloader
    engine, trouble = reloader.engine, service.trouble
    bank = engine.bank if engine else None
    no_bank = "no prompts yet; add some with POST /prompts" if engine else trouble
    return HealthAnswer(
        ready=bank is not None,
        reason="" if bank else no_bank,
        model=engine.answer if engine else None,
        bank_version=engine.bank_version if engine else "",
        classes=len(bank) if bank else 0,
        since=engine.since if engine else "",
        trouble=trouble,
    )
