"""Images of many requests, looked at in turns by one thread."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unispector.detections import Detections
from unispector.inference.prompt_bank import PromptBank
from unispector.serving.engine import Engine
from unispector.serving.limits import Limits
from unispector.serving.metrics import Metrics
from unispector.serving.refusal import RefusedError, shown


@dataclass(frozen=True)
class Query:
    """The classes to look for on an image."""

    engine: Engine
    bank: PromptBank
    classes: tuple[str, ...]  # of the bank that are looked for; empty = all
    limit: int  # (query, class) pairs kept per image

    @property
    def prompts(self) -> PromptBank:
        """Those of the classes that are asked for."""
        return self.bank.select(self.classes) if self.classes else self.bank

    @property
    def key(self) -> tuple[object, ...]:
        """Images of queries with equal keys share a turn."""
        return id(self.engine), self.classes, self.limit


@dataclass(eq=False)
class _Job:
    picture: npt.NDArray[np.uint8]
    query: Query
    found: asyncio.Future[Detections]


_NO_IMAGE = np.empty((0, 0, 3), dtype=np.uint8)


class Batcher:
    """Puts images together up to a batch, in turn one of each request, and has one thread detect on them.

    An image's detections do not depend on the others of its batch. One that fails fails alone.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._waiting: deque[deque[_Job]] = deque()  # of each request
        self._some = asyncio.Event()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="detector")

    async def detect(self, pictures: Sequence[npt.NDArray[np.uint8]], query: Query) -> list[Detections]:
        """Detections per image, in their order.

        Args:
            images: uint8 RGB [h, w, 3].
            query: what to look for; its engine has a bank with its classes.
        """
        loop = asyncio.get_running_loop()
        jobs = [_Job(picture, query, loop.create_future()) for picture in pictures]
        if jobs:
            self._waiting.append(deque(jobs))
            self._some.set()
        try:
            return list(await asyncio.gather(*(job.found for job in jobs)))
        finally:
            for job in jobs:  # without an answer to give, the rest need not be looked at, nor kept
                job.found.cancel()
                job.picture = _NO_IMAGE

    async def run(self) -> None:
        """Answer until cancelled."""
        while True:
            batch = await self._gathered()
            groups: dict[tuple[object, ...], list[_Job]] = {}
            for job in batch:
                if not job.found.done():  # else its request is gone
                    groups.setdefault(job.query.key, []).append(job)
            for jobs in groups.values():
                await self._answer(jobs)

    def close(self) -> None:
        """Let the thread end."""
        self._worker.shutdown(wait=False)

    async def _gathered(self) -> list[_Job]:
        await self._some.wait()
        batch = self._taken()
        if on_cpu(batch[0].query):
            return batch  # a pass for each image: only a short turn keeps other requests from waiting
        if len(batch) < self._limits.batch:
            await asyncio.sleep(self._limits.batch_wait)
        while self._waiting and len(batch) < self._limits.batch:
            batch += self._taken(len(batch))
        return batch

    def _taken(self, had: int = 0) -> list[_Job]:
        """The next image of each request, in turn, up to a batch with those that are had."""
        batch = []
        for _ in range(min(len(self._waiting), self._limits.batch - had)):
            own = self._waiting.popleft()
            batch.append(own.popleft())
            if own:
                self._waiting.append(own)
        if not self._waiting:
            self._some.clear()
        return batch

    async def _answer(self, jobs: list[_Job]) -> None:
        pictures = [job.picture for job in jobs]
        loop = asyncio.get_running_loop()
        results = await loop.run_in_executor(self._worker, _detected, jobs[0].query, pictures)
        self._metrics.batches.observe(len(jobs))
        self._metrics.pictures.inc(len(jobs))
        for job, result in zip(jobs, results, strict=True):
            if job.found.done():
                continue
            if isinstance(result, Exception):
                job.found.set_exception(result)
            else:
                job.found.set_result(result)


def query_for(engine: Engine | None, trouble: str, classes: tuple[str, ...], limit: int) -> Query:
    """A query that the engine can answer.

    Raises:
        RefusedError: 503 without a model or prompts, 400 for a class without a prompt.
    """
    if engine is None:
        raise RefusedError(503, f"no model yet: {trouble}")
    if engine.bank is None:
        raise RefusedError(503, "no prompts yet; add some with POST /prompts")
    if unknown := [name for name in classes if name not in engine.bank.class_names]:
        name = shown(unknown[0])
        raise RefusedError(400, f"classes: '{name}' has no prompt; GET /prompts lists those that have")
    return Query(engine, engine.bank, tuple(dict.fromkeys(classes)), limit)


def on_cpu(query: Query) -> bool:
    """Return whether the images of a query are looked at on a CPU."""
    return bool(query.engine.detector.device.type == "cpu")


def _detected(query: Query, pictures: list[npt.NDArray[np.uint8]]) -> list[Detections | Exception]:
    """Detections per image, or why there are none."""
    engine = query.engine
    # A pass for each image is no slower on a CPU, and equal to the last bit whatever shares the turn.
    at_once = 1 if on_cpu(query) else len(pictures)
    try:
        return list(engine.detector.detect(pictures, query.prompts, at_once, query.limit))
    except Exception as error:  # noqa: BLE001 - told to the one request whose image it is
        if len(pictures) == 1:
            return [error]
        return [found for picture in pictures for found in _detected(query, [picture])]
