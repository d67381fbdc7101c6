"""Images that share a turn do not share their fate."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from unispector.detections import Detections
from unispector.errors import DataError
from unispector.inference.detector import Prompt, UniSpector
from unispector.ops.rle import decode_rle
from unispector.serving import batching
from unispector.serving.batching import Batcher, query_for
from unispector.serving.engine import Engine, WantedModel
from unispector.serving.limits import Limits
from unispector.serving.metrics import Metrics
from unispector.serving.refusal import RefusedError


def engine_of(folder: Path, picture: np.ndarray) -> Engine:
    detector = UniSpector.load(folder)
    bank = detector.encode([Prompt(picture, [(5, 5, 20, 10)], label=name) for name in ("spot", "line")])
    return Engine(detector, bank, WantedModel(str(folder), "", lambda: folder), "1", "")


@pytest.fixture(scope="module")
def engines(tiny_model, other_tiny_model, pictures) -> list[Engine]:
    return [engine_of(folder, pictures[0]) for folder in (tiny_model, other_tiny_model)]


def equal(one: Detections, other: Detections) -> bool:
    masks = zip(one.masks_rle, other.masks_rle, strict=True)
    return (
        one.scores.tolist() == other.scores.tolist()
        and one.boxes_xyxy.tolist() == other.boxes_xyxy.tolist()
        and one.labels.tolist() == other.labels.tolist()
        and all(np.array_equal(decode_rle(own), decode_rle(its)) for own, its in masks)
    )


def answered(requests, limits: Limits) -> tuple[list, Metrics]:
    """What each (images, query) gets when all come before the first turn."""
    metrics = Metrics()

    async def run():
        batcher = Batcher(limits, metrics)
        asked = [asyncio.create_task(batcher.detect(*request)) for request in requests]
        await asyncio.sleep(0)
        running = asyncio.create_task(batcher.run())
        results = await asyncio.gather(*asked, return_exceptions=True)
        running.cancel()
        batcher.close()
        return results

    return asyncio.run(run()), metrics


def turns(metrics: Metrics) -> list[float]:
    """Number of turns and of their images."""
    lines = metrics.text().decode().splitlines()
    return [
        next(
            float(line.split()[-1]) for line in lines if line.startswith(f"unispector_batch_pictures_{what} ")
        )
        for what in ("count", "sum")
    ]


def test_models_and_questions_in_one_turn_are_kept_apart(engines, pictures):
    asked = [
        ([pictures[n % 3]], query_for(engine, "", classes, limit))
        for n, (engine, classes, limit) in enumerate(
            (engine, classes, limit)
            for engine in (*engines, *reversed(engines))
            for classes in ((), ("line",))
            for limit in (300, 4)
        )
    ]
    results, metrics = answered(asked, Limits(batch=32))
    for ((picture,), query), (found,) in zip(asked, results, strict=True):
        bank = query.bank.select(query.classes) if query.classes else query.bank
        assert equal(found, query.engine.detector.detect([picture], bank, limit=query.limit)[0])
    assert turns(metrics) == [8, 16]  # two models, two choices of classes, two limits


@pytest.mark.parametrize(("device", "count"), [("cpu", 4), ("meta", 3)])
def test_a_turn_is_no_larger_than_a_batch_and_short_on_a_cpu(engines, pictures, device, count, monkeypatch):
    query = query_for(engines[0], "", (), 300)
    monkeypatch.setattr(batching, "on_cpu", lambda _: device == "cpu")
    results, metrics = answered([(pictures[:4], query), (pictures[:3], query)], Limits(batch=3))
    assert [len(found) for found in results] == [4, 3]
    assert turns(metrics) == [count, 7]
    if device != "cpu":
        return  # images of one pass differ by rounding
    for picture, found in zip(pictures, results[0], strict=False):
        assert equal(found, engines[0].detector.detect([picture], query.bank)[0])


def test_requests_take_turns(engines, pictures):
    query = query_for(engines[0], "", (), 300)
    seen = []

    async def run() -> None:
        metrics = Metrics()
        batcher = Batcher(Limits(batch=2), metrics)
        worker = asyncio.create_task(batcher.run())

        async def ask(name: str, count: int) -> None:
            await batcher.detect(pictures[:1] * count, query)
            seen.append(name)

        await asyncio.gather(ask("many", 12), ask("one", 1))
        worker.cancel()
        batcher.close()

    asyncio.run(run())
    assert seen == ["one", "many"]


def test_a_picture_that_fails_fails_alone(engines, pictures):
    query = query_for(engines[0], "", (), 300)
    bad = pictures[1].astype(np.float32)
    results, _ = answered([([pictures[0]], query), ([bad], query), ([pictures[2]], query)], Limits())
    assert isinstance(results[1], DataError)
    for n in (0, 2):
        assert equal(results[n][0], engines[0].detector.detect([pictures[n]], query.bank)[0])


def test_the_rest_of_a_request_that_failed_is_not_looked_at(engines, pictures):
    query = query_for(engines[0], "", (), 300)
    bad = pictures[1].astype(np.float32)
    results, metrics = answered([([bad, *pictures[:3]], query), ([pictures[2]], query)], Limits(batch=1))
    assert isinstance(results[0], DataError)
    assert equal(results[1][0], engines[0].detector.detect([pictures[2]], query.bank)[0])
    assert turns(metrics)[1] <= 3  # one more may have begun


def test_what_cannot_be_looked_for(engines):
    with pytest.raises(RefusedError, match="no model yet: because") as told:
        query_for(None, "because", (), 300)
    assert told.value.status == 503
    with pytest.raises(RefusedError, match="'hole' has no prompt") as told:
        query_for(engines[0], "", ("hole",), 300)
    assert told.value.status == 400
    with pytest.raises(RefusedError, match="'_b__' has no prompt"):
        query_for(engines[0], "", ("<b>\n",), 300)
