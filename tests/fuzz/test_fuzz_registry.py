"""Answers of MLflow that are odd: a version as it is told, or one line that names the registry."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.mutations import changed_bytes, changed_json, examples, outcome
from unispector.cli import registry as verbs
from unispector.cli.main import main
from unispector.tracking.registry import Event, ModelRegistry
from unispector.tracking.run import TrackingStore

RUN = "0" * 32
EVENT = Event("approved", 1, None, "ann", "why", "2026-01-01T00:00:00+00:00")
ANSWERS: dict[str, Any] = {
    "versions": [
        {
            "version": "2",
            "creation_timestamp": 1_700_000_000_000,
            "run_id": RUN,
            "tags": {"state": "challenger", "unseen_bbox_AP50": "41.5", "key": "b"},
            "source": f"mlflow-artifacts:/1/{RUN}/artifacts/model-1",
        },
        {
            "version": "1",
            "creation_timestamp": 1_600_000_000_000,
            "run_id": "",
            "tags": {},
            "source": f"mlflow-artifacts:/1/{RUN}/artifacts/model-2",
        },
    ],
    "aliases": {"champion": "1", "challenger": "2", "gone": "7"},
    "runs": [{"run_id": RUN, "tags": {"event": json.dumps(asdict(EVENT)), "model": "unispector"}}],
    "artifact_uri": "file:///nowhere/artifacts",
}


class Odd:
    """Stands for MLflow's client, whose answers are what a test says."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = answers

    def search_model_versions(self, *_: object, **__: object) -> "Page":
        return Page(named(each) for each in self._answers["versions"])

    def get_registered_model(self, _: str) -> Any:
        return SimpleNamespace(aliases=self._answers["aliases"])

    def get_model_version(self, _: str, number: str) -> Any:
        return next(named(each) for each in self._answers["versions"] if str(each.get("version")) == number)

    def get_experiment_by_name(self, _: str) -> Any:
        return SimpleNamespace(experiment_id="1")

    def search_runs(self, *_: object, **__: object) -> "Page":
        return Page(
            SimpleNamespace(
                info=SimpleNamespace(run_id=each["run_id"]), data=SimpleNamespace(tags=each["tags"])
            )
            for each in self._answers["runs"]
        )

    def get_run(self, _: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(artifact_uri=self._answers["artifact_uri"]))


class Page(list[Any]):
    """The only page of an answer."""

    token = None


def named(answer: Any) -> Any:
    return SimpleNamespace(**answer)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> ModelRegistry:
    store = TrackingStore(tmp_path_factory.mktemp("mlflow"))
    (store.root / "mlflow.db").touch()
    return ModelRegistry(store)


@given(data=st.data())
@examples(100)
def test_answers(registry: ModelRegistry, data: st.DataObject) -> None:
    answers = data.draw(changed_json(ANSWERS))
    if not isinstance(answers, dict) or data.draw(st.integers(0, 4)) == 0:
        answers = ANSWERS | {
            "runs": [{"run_id": RUN, "tags": {"event": text_of(data), "model": "unispector"}}]
        }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry._store, "_connection", Odd(answers))
        for ask in (
            registry.versions,
            registry.history,
            registry.begun,
            lambda: registry.version("champion"),
            lambda: registry.mlflow_directory(2),
            lambda: registry.model_directory(1),
        ):
            outcome(ask, registry.place, str(registry._store.root), "run ", "unispector")
        patch.setattr(verbs, "_registry", lambda: registry)
        for verb in ("list", "history"):
            assert main(["registry", verb]) in (0, 1)


def text_of(data: st.DataObject) -> str:
    text = json.dumps(data.draw(changed_json(asdict(EVENT))))
    return data.draw(st.one_of(st.just(text.encode()), changed_bytes(text.encode()))).decode("latin-1")


def test_the_answers_themselves(
    registry: ModelRegistry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(registry._store, "_connection", Odd(ANSWERS))
    assert [(each.number, each.aliases) for each in registry.versions()] == [
        (2, ("challenger",)),
        (1, ("champion",)),
    ]
    assert registry.history() == (Event(**{**asdict(EVENT), "run_id": RUN}),)
