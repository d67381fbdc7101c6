"""The experiment store, against MLflow's own client."""

import contextlib
import json
import logging
import shutil
import threading
from pathlib import Path

import pytest

from unispector.errors import CheckpointError
from unispector.tracking.run import TrackingStore, flat


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """An empty store; making its database takes seconds."""
    root = tmp_path_factory.mktemp("store")
    TrackingStore(root)._client()
    return root


@pytest.fixture
def store(template, tmp_path):
    shutil.copytree(template, tmp_path / "mlflow")
    return TrackingStore(tmp_path / "mlflow")


@pytest.fixture
def client(store):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{store.root}/mlflow.db")


def test_everything_logged_is_in_the_store(store, client, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_text("b")
    with store.run("train", "seed 42", {"variant": "base"}) as run:
        run.params(flat({"train": {"steps": 10, "rate": 0.1}, "seed": 42}))
        run.metrics({"loss": 2.0}, step=1)
        run.metrics({"loss": 1.0}, step=2)
        run.artifact(tmp_path / "a.txt", "files")
        run.artifact(tmp_path / "folder", "tree")
        run.table("tables/rows", [{"set": "tile", "AP50": 1.5}, {"set": "steel", "AP50": 2.5}])
    saved = client.get_run(run.run_id)
    assert saved.info.status == "FINISHED"
    assert saved.info.run_name == "seed 42"
    assert saved.data.params == {"train.steps": "10", "train.rate": "0.1", "seed": "42"}
    assert saved.data.tags["variant"] == "base"
    assert [(m.step, m.value) for m in client.get_metric_history(run.run_id, "loss")] == [(1, 2.0), (2, 1.0)]
    assert [file.path for file in client.list_artifacts(run.run_id, "files")] == ["files/a.txt"]
    assert [file.path for file in client.list_artifacts(run.run_id, "tree")] == ["tree/b.txt"]
    table = json.loads(next(store.root.glob(f"artifacts/train/{run.run_id}/**/rows.json")).read_text())
    assert table == {"columns": ["set", "AP50"], "data": [["tile", 1.5], ["steel", 2.5]]}


def test_same_job_goes_on_with_its_run_and_another_does_not(store, client):
    with contextlib.suppress(RuntimeError), store.run("train", "first", {"job": "abc"}) as first:
        first.params({"steps": 10})
        raise RuntimeError("killed")
    assert client.get_run(first.run_id).info.status == "FAILED"
    with store.run("train", "first", {"job": "abc"}) as again:
        assert client.get_run(again.run_id).info.status == "RUNNING"
        again.params({"steps": 10})
        again.metrics({"loss": 1.0}, step=3)
    with store.run("train", "second", {"job": "abd"}) as other, store.run("train", "none", {}) as none:
        pass
    assert again.run_id == first.run_id
    assert len({first.run_id, other.run_id, none.run_id}) == 3
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_interrupt_ends_a_run_as_killed(store, client):
    with pytest.raises(KeyboardInterrupt), store.run("train", "x", {}) as run:
        raise KeyboardInterrupt
    assert client.get_run(run.run_id).info.status == "KILLED"


def test_children_name_their_parent(store, client):
    with (
        store.run("train", "all", {}) as parent,
        store.run("train", "one", {}, parent=parent.run_id) as child,
    ):
        pass
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_existing_run_takes_more_and_keeps_its_status(store, client):
    with store.run("train", "x", {}) as run:
        pass
    before = client.get_run(run.run_id).info
    store.existing(run.run_id).metrics({"AP50": 12.5})
    after = client.get_run(run.run_id)
    assert (after.info.status, after.info.end_time) == (before.status, before.end_time)
    assert after.data.metrics == {"AP50": 12.5}


def test_model_of_a_run_is_found_after_the_project_moved(store, tmp_path):
    model = tmp_path / "models" / "seed42"
    model.mkdir(parents=True)
    with store.run("train", "x", {}) as run:
        run.model_directory(model)
    assert store.model_directory(run.run_id) == model
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for name in ("mlflow", "models"):
        shutil.move(tmp_path / name, moved / name)
    assert TrackingStore(moved / "mlflow").model_directory(run.run_id) == moved / "models" / "seed42"
    shutil.rmtree(moved / "models")
    with pytest.raises(CheckpointError, match="gone"):
        TrackingStore(moved / "mlflow").model_directory(run.run_id)


def test_unknown_runs_and_runs_without_a_model_are_refused(store, tmp_path):
    with store.run("train", "x", {}) as run:
        pass
    with pytest.raises(CheckpointError, match="no model"):
        store.model_directory(run.run_id)
    for use in (store.model_directory, store.existing):
        with pytest.raises(CheckpointError, match="no such run"):
            use("0" * 32)
    unused = TrackingStore(tmp_path / "never")
    with pytest.raises(CheckpointError, match="no such run"):
        unused.model_directory(run.run_id)
    assert not (tmp_path / "never").exists()


def test_deleted_run_counts_as_absent(store, client):
    with store.run("train", "x", {"job": "j"}) as run:
        pass
    assert store.has_run(run.run_id)
    client.delete_run(run.run_id)
    assert not store.has_run(run.run_id)
    with store.run("train", "x", {"job": "j"}) as new:
        assert new.run_id != run.run_id


def test_lost_metrics_are_warned_of_once_and_stop_nothing(store, client, caplog):
    with store.run("train", "x", {}) as run:
        client.delete_run(run.run_id)
        with caplog.at_level(logging.WARNING):
            run.metrics({"loss": 1.0}, step=5)
            run.metrics({"loss": 1.0}, step=6)
        client.restore_run(run.run_id)
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("unispector")]
    assert len(warnings) == 1
    assert "step 5" in warnings[0]


def test_threads_share_a_store(store):
    ids, barrier = [], threading.Barrier(3)

    def work(seed):
        barrier.wait()
        with store.run("fan-out", f"seed {seed}", {"job": str(seed)}) as run:
            run.metrics({"loss": float(seed)}, step=1)
            ids.append(run.run_id)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 3


def test_command_of_the_pages_is_relative_to_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = TrackingStore(Path("artifacts/mlflow")).ui_command()
    assert command.endswith("mlflow ui --backend-store-uri sqlite:///artifacts/mlflow/mlflow.db")
    far = TrackingStore(tmp_path.parent / "with space").ui_command()
    assert far.endswith(f"'sqlite:///{tmp_path.parent}/with space/mlflow.db'")


def test_flat_joins_keys():
    assert flat({"a": {"b": 1, "c": {"d": None}}, "e": (1, 2)}) == {"a.b": 1, "a.c.d": None, "e": (1, 2)}
