"""The requests that Label Studio sends to a machine-learning backend."""

import logging
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel

from unispector.config.evaluation import KEPT_PAIRS
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.serving.batching import Query, query_for
from unispector.serving.gate import STUDIO
from unispector.serving.label_studio.images import StudioImages
from unispector.serving.label_studio.interface import Interface, read_interface
from unispector.serving.refusal import RefusedError
from unispector.serving.service import Service

logger = logging.getLogger(__name__)
router = APIRouter(prefix=STUDIO.rstrip("/"), include_in_schema=False)

NOT_READ = "image not read"
"""Version of a prediction without an image, so that nobody takes it for one without a defect."""


class SetupBody(BaseModel):
    """A project that is connected; what else is sent is not needed."""

    schema_: str = ""  # its labelling configuration

    model_config = {"alias_generator": lambda name: name.rstrip("_")}


class Task(BaseModel):
    """A task to predict."""

    id: int | None = None
    data: dict[str, Any]


class PredictBody(BaseModel):
    """Tasks to predict; what else is sent is not needed."""

    tasks: list[Task]
    label_config: str


@router.get("/")
@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the service lives."""
    return {"status": "UP", "model_class": "UniSpector"}


@router.post("/setup")
async def setup(request: Request, body: SetupBody) -> dict[str, str]:
    """Check that the project's labels and the classes with prompts go together."""
    query = _query(request, read_interface(body.schema_))
    return {"model_version": _version(query)}


@router.post("/predict")
async def predict(request: Request, body: PredictBody) -> dict[str, Any]:
    """Detections for each task, in their order."""
    interface = read_interface(body.label_config)
    query = _query(request, interface)
    service: Service = request.app.state.service
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    for task in body.tasks:  # one after the other, so that any number fits into the memory
        try:
            found = await _found(service, query, task.data.get(interface.data_key))
            results.append(_prediction(query, interface, found))
        except DataError as error:
            failed.append(f"task {task.id}: {error}")
            logger.warning("%s", failed[-1])
            results.append({"result": [], "score": 0.0, "model_version": NOT_READ})
    if failed and len(failed) == len(results):
        raise RefusedError(400, failed[0])
    return {"results": results, "model_version": _version(query)}


@router.post("/webhook")
@router.post("/train")
async def train() -> dict[str, str]:
    """Learn nothing from annotations: prompts are added on purpose."""
    return {"status": "nothing is trained; POST /prompts adds a marked image"}


def _query(request: Request, interface: Interface) -> Query:
    reloader = request.app.state.service.reloader
    query = query_for(reloader.engine, reloader.trouble, (), KEPT_PAIRS)
    return replace(query, classes=interface.known(query.bank.class_names))


def _version(query: Query) -> str:
    return f"unispector {query.engine.bank_version}"


def _prediction(query: Query, interface: Interface, found: Detections) -> dict[str, Any]:
    task = found.above(query.prompts.thresholds).to_label_studio(
        "",
        interface.shape,
        from_name=interface.from_name,
        to_name=interface.to_name,
        model_version=_version(query),
    )
    prediction: dict[str, Any] = task["predictions"][0]
    return prediction


async def _found(service: Service, query: Query, address: object) -> Detections:
    """What is on the image of an address.

    Raises:
        DataError: it cannot be read.
    """
    source: StudioImages | None = service.studio
    if source is None or not isinstance(address, str):
        raise DataError("the task's data has no image where the labelling configuration reads it")
    limits = service.limits
    with service.memory.share() as memory, service.queue.share() as queue:
        queue.take(1)
        memory.take(limits.body_bytes)
        data = await service.waiting(source.read, address, limits.body_bytes, limits.body_seconds)
        pixels = await service.decoders.image(data, "the image", memory)
        (found,) = await service.batcher.detect([pixels], query)
        return found
