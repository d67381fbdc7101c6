"""The model registry, against MLflow's own client."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from unispector.errors import RegistryError
from unispector.tracking.registry import Event, ModelRegistry, now
from unispector.tracking.run import TrackingStore


@pytest.fixture
def registry(store):
    return ModelRegistry(store)


def test_an_unused_store_has_no_versions_and_is_not_made_by_asking(tmp_path):
    registry = ModelRegistry(TrackingStore(tmp_path / "absent"))
    assert registry.versions() == ()
    assert registry.history() == ()
    assert registry.find("champion") is None
    assert not (tmp_path / "absent").exists()


def test_versions_carry_tags_aliases_run_and_files(registry, store, client, package):
    with store.run("training", "seed 42", {}) as run:
        pass
    began = time.time()
    first = registry.register(package, run.run_id, {"key": "a", "state": "challenger"})
    second = registry.register(package, run.run_id, {"key": "b"})
    registry.set_alias("champion", 1)
    registry.set_alias("challenger", 2)
    registry.set_alias("best", 1)
    registry.tag(1, {"state": "champion", "why": "best"})
    assert (first.number, second.number, first.run_id) == (1, 2, run.run_id)
    assert [version.number for version in registry.versions()] == [2, 1]
    champion = registry.version("champion")
    assert champion == registry.version(1) == registry.version("1")
    assert champion.aliases == ("best", "champion")
    assert champion.tags == {"key": "a", "state": "champion", "why": "best"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", champion.created)
    saved = client.get_model_version("unispector", "1")
    assert saved.run_id == run.run_id
    assert abs(saved.creation_timestamp / 1000 - began) < 30
    assert (registry.model_directory(1) / "lineage.json").read_text() == "{}"
    assert registry.model_directory(1) != registry.model_directory(2)
    assert registry.with_tag("key", "a") == champion
    assert registry.with_tag("key", "c") is None
    registry.remove_alias("best")
    registry.remove_alias("best")
    assert client.get_model_version_by_alias("unispector", "champion").tags == {
        "key": "a",
        "state": "champion",
        "why": "best",
    }


def test_versions_without_a_key_keep_their_own_files(registry, package):
    lineage = package / "artifacts" / "package" / "lineage.json"
    for number in (1, 2):
        lineage.write_text(str(number))
        registry.register(package, "", {})
    assert [(registry.model_directory(n) / "lineage.json").read_text() for n in (1, 2)] == ["1", "2"]


def test_an_alias_stands_for_one_version(registry, package):
    for key in "ab":
        registry.register(package, "", {"key": key})
    registry.set_alias("champion", 1)
    registry.set_alias("champion", 2)
    assert [version.aliases for version in registry.versions()] == [("champion",), ()]


def test_a_model_without_its_training_run_gets_one(registry, client, package):
    version = registry.register(package, "0" * 32, {"key": "a"})
    assert client.get_run(version.run_id).info.status == "FINISHED"
    assert (registry.model_directory(1) / "lineage.json").is_file()


def test_a_registration_that_starts_again_keeps_one_set_of_files(registry, client, package, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", lambda *_, **__: 1 / 0)
        with pytest.raises(RegistryError, match="division by zero"):
            registry.register(package, "", {"key": "a"})
    assert registry.versions() == ()
    version = registry.register(package, "", {"key": "a"})
    assert len(registry.versions()) == 1
    experiment = client.get_experiment_by_name("registry").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.run_id == version.run_id
    assert len(client.list_artifacts(version.run_id)) == 1


@pytest.mark.parametrize("reference", [7, "7", "best"])
def test_an_absent_version_is_one_line(registry, package, reference):
    with pytest.raises(RegistryError, match=r"^unispector: no version.* (7|best) in .*mlflow; it is empty"):
        registry.version(reference)
    registry.register(package, "", {"key": "a"})
    with pytest.raises(RegistryError, match=r"^unispector: no version.* (7|best) in .*mlflow; it has 1$"):
        registry.version(reference)
    with pytest.raises(RegistryError) as caught:
        registry.set_alias("champion", 7)
    assert "\n" not in str(caught.value)


def test_files_that_are_gone_are_told_of(registry, package):
    registry.register(package, "", {"key": "a"})
    (registry.mlflow_directory(1) / "MLmodel").unlink()
    with pytest.raises(RegistryError, match="the files of unispector 1 are gone; delete the version"):
        registry.model_directory(1)


def record(registry, event, files=()):
    registry.begin(event, files)
    registry.finish(event)


def test_the_history_is_newest_first_and_has_an_event_once(registry, tmp_path):
    (tmp_path / "decision.md").write_text("passed")
    first = Event("promoted", 1, None, "rules", "the first\nmodel: 'quoted'", now())
    second = Event("refused", 2, 1, "ann", "worse", now())
    for event in (second, first, first):
        record(registry, event, [tmp_path / "decision.md"] if event is first else [])
    newest, oldest = registry.history()
    assert (newest.action, newest.version, newest.before, newest.by) == ("refused", 2, 1, "ann")
    assert (oldest.reason, oldest.before, oldest.time) == (first.reason, None, first.time)
    (file,) = registry.event_files(oldest)
    assert (file.name, file.read_text()) == ("decision.md", "passed")
    assert registry.event_files(newest) == ()


def test_many_versions_and_events_are_all_told(registry, package, monkeypatch):
    monkeypatch.setattr("unispector.tracking.registry._PAGE", 2)
    for number in range(5):
        registry.register(package, "", {"key": "same"})
        record(registry, Event("refused", number, None, "ann", "x", now()))
    assert [version.number for version in registry.versions()] == [5, 4, 3, 2, 1]
    assert [event.version for event in registry.history()] == [4, 3, 2, 1, 0]


def test_a_store_that_is_away_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    registry = ModelRegistry(TrackingStore(tmp_path / "mlflow"))
    with pytest.raises(RegistryError) as caught:
        registry.versions()
    line = str(caught.value)
    assert line.startswith("http://127.0.0.1:9: the model registry cannot be used (")
    assert "\n" not in line
    assert "secret" not in line


@pytest.fixture
def server(tmp_path):
    """The address of an MLflow server of its own, which keeps the files too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", "kept"]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **quiet}, stdout=log, stderr=log, start_new_session=True
        )
    address, end = f"http://127.0.0.1:{port}", time.monotonic() + 240
    try:
        while True:
            assert process.poll() is None
            assert time.monotonic() < end
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.slow
def test_a_registry_on_a_server(server, package, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    store = TrackingStore(tmp_path / "local")
    registry = ModelRegistry(store)
    assert registry.versions() == ()
    assert registry.find("champion") is None
    with store.run("training", "seed 42", {}) as run:
        pass
    lineage = package / "artifacts" / "package" / "lineage.json"
    for key, run_id in (("a", run.run_id), ("b", "")):
        lineage.write_text(f'{{"key": "{key}"}}')
        registry.register(package, run_id, {"key": key})
    registry.set_alias("champion", 1)
    registry.tag(1, {"state": "champion"})
    champion = registry.version("champion")
    assert (champion.number, champion.run_id, champion.tags["state"]) == (1, run.run_id, "champion")
    assert [version.aliases for version in registry.versions()] == [(), ("champion",)]
    directories = [registry.model_directory(number) for number in (1, 2)]
    assert [(d / "lineage.json").read_text() for d in directories] == ['{"key": "a"}', '{"key": "b"}']
    assert all(store.root in directory.parents for directory in directories)
    decision = tmp_path / "decision.md"
    decision.write_text("passed")
    record(registry, Event("promoted", 1, None, "rules", "passed", now()), [decision])
    (event,) = registry.history()
    assert [file.read_text() for file in registry.event_files(event)] == ["passed"]
    with pytest.raises(RegistryError, match=re.escape(f"no version 3 in {server}; it has 2, 1")):
        registry.version(3)
    monkeypatch.setattr(MlflowClient, "download_artifacts", lambda *_: 1 / 0)  # what is here stays here
    assert [registry.model_directory(number) for number in (1, 2)] == directories
    assert not list((store.root / "downloads").rglob("tmp*"))


def test_a_reason_in_any_script_comes_back_whole_and_one_too_long_is_refused(registry, package):
    registry.register(package, "", {"key": "a"})
    for reason in ("ж" * 1900, "質" * 2000, '"' * 2000):
        record(registry, Event("refused", 1, None, "ann", reason, now()))
        assert registry.history()[0].reason == reason
    with pytest.raises(RegistryError, match="shorter"):
        record(registry, Event("refused", 1, None, "ann", "\x01" * 2000, now()))
    assert len(registry.history()) == 3


@pytest.mark.parametrize(
    "event",
    [
        "",
        "[]",
        '{"action": "sold"}',
        '{"action": "approved", "version": "1", "before": null, "by": "a", "reason": "b", "time": "c"}',
        '{"action": "approved", "version": 1, "before": null, "by": "a", "reason": "b", "time": null}',
        "[" * 10**5,
    ],
)
def test_a_damaged_event_is_named(registry, client, event):
    record(registry, Event("approved", 1, None, "ann", "x", now()))
    (run,) = client.search_runs([client.get_experiment_by_name("promotion").experiment_id])
    client.set_tag(run.info.run_id, "event", event[:5000])
    with pytest.raises(RegistryError, match=f"run {run.info.run_id}: its tag `event` is damaged; delete"):
        registry.history()


@pytest.mark.parametrize("field", ["version", "creation_timestamp", "tags"])
def test_an_answer_that_mlflow_does_not_give_is_one_line(registry, package, client, field, monkeypatch):
    registry.register(package, "", {})
    answer = {"version": "1", "creation_timestamp": 1, "tags": {}, "run_id": ""} | {field: "x"}
    pages = type("Page", (list,), {"token": None})([SimpleNamespace(**answer)])
    monkeypatch.setattr(type(client), "search_model_versions", lambda *_, **__: pages)
    with pytest.raises(
        RegistryError, match=r"mlflow: no answer that MLflow's registry gives \(.*\); check"
    ) as told:
        registry.versions()
    assert "\n" not in str(told.value)
