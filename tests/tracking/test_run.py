"""The experiment store, against MLflow's own client."""

import contextlib
import json
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unispector.errors import CheckpointError, DataError
from unispector.tracking.run import Point, TrackingStore, flat, metric_part


def record(run, values, step=0):
    run.points([Point(step, time.time(), values)])


def test_everything_logged_is_in_the_store(store, client, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.txt").write_text("b")
    with store.run("train", "seed 42", {"variant": "base"}) as run:
        run.params(flat({"train": {"steps": 10, "rate": 0.1}, "seed": 42}))
        record(run, {"loss": 2.0}, step=1)
        record(run, {"loss": 1.0}, step=2)
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
    with store.run("train", "renamed", {"job": "abc", "commit": "new"}) as again:
        opened = client.get_run(again.run_id)
        assert (opened.info.status, opened.info.run_name) == ("RUNNING", "renamed")
        assert opened.data.tags["commit"] == "new"
        again.params({"steps": 10})
        record(again, {"loss": 1.0}, step=3)
    with store.run("train", "second", {"job": "abd"}) as other, store.run("train", "none", {}) as none:
        pass
    assert again.run_id == first.run_id
    assert len({first.run_id, other.run_id, none.run_id}) == 3
    assert client.get_run(first.run_id).info.status == "FINISHED"


def history(client, run, key):
    return [(m.step, m.value) for m in client.get_metric_history(run.run_id, key)]


def test_a_resumed_job_records_no_step_twice(store, client):
    with contextlib.suppress(RuntimeError), store.run("train", "x", {"job": "abc"}) as run:
        for step in (20, 40, 60):
            record(run, {"loss": 100.0 - step, "rate": 1.0}, step)
        raise RuntimeError("killed; the last checkpoint was at step 20")
    with store.run("train", "x", {"job": "abc"}) as again:
        for step in (40, 60, 80):
            record(again, {"loss": 200.0 - step, "norm": 5.0}, step)
        record(again, {"loss": 7.0}, 80)  # this run's own: nothing of it is held back
    assert history(client, run, "loss") == [(20, 80), (40, 60), (60, 40), (80, 120), (80, 7)]
    assert history(client, run, "norm") == [(40, 5), (60, 5), (80, 5)]
    assert history(client, run, "rate") == [(20, 1), (40, 1), (60, 1)]


def test_a_job_that_ran_to_its_end_and_runs_again_changes_no_curve(store, client):
    for value in (1.0, 2.0, 3.0):
        with store.run("train", "x", {"job": "abc"}) as run:
            for step in range(1, 4):
                record(run, {"loss": value}, step)
    assert history(client, run, "loss") == [(1, 1), (2, 1), (3, 1)]


def test_results_are_recorded_once_and_brought_up_to_date(store, client):
    curves = {"sweep/tile/AP50": {0: 50.0, 2: 40.0, 1: 45.0}, "AP50": {0: 50.0}}
    for _ in range(2):
        with store.run("evaluation", "x", {"job": "abc"}) as run:
            run.results(curves)
    assert sorted(history(client, run, "sweep/tile/AP50")) == [(0, 50), (1, 45), (2, 40)]
    assert history(client, run, "AP50") == [(0, 50)]
    store.existing(run.run_id).results({"sweep/tile/AP50": {0: 50.0, 1: 44.0, 2: 40.0}, "AP50": {0: 51.0}})
    assert history(client, run, "sweep/tile/AP50")[3:] == [(1, 44)]
    assert history(client, run, "AP50") == [(0, 50), (0, 51)]
    assert client.get_run(run.run_id).data.metrics == {"sweep/tile/AP50": 40, "AP50": 51}
    store.existing(run.run_id).results({"sweep/tile/AP50": {0: 50.0, 1: 45.0, 2: 40.0}})
    assert history(client, run, "sweep/tile/AP50")[-1] == (1, 45)


def test_any_amount_is_recorded_but_no_result_that_is_no_number(store, client):
    many = {f"m{number}": {0: float(number)} for number in range(2345)}
    with store.run("evaluation", "x", {}) as run:
        run.params(dict.fromkeys(many, 1))
        run.tags(dict.fromkeys(many, "1"))
        run.results({**many, "nan": {0: float("nan"), 1: 2.0}, "inf": {0: float("inf")}})
    data = client.get_run(run.run_id).data
    assert data.metrics == {"nan": 2.0, **{name: curve[0] for name, curve in many.items()}}
    assert set(data.params) == set(many)
    assert set(data.tags) > set(many)


def test_a_table_takes_the_place_of_the_one_before(store, client):
    with store.run("evaluation", "x", {}) as run:
        run.table("a/rows", [{"set": "tile", "AP50": 1.5}])
        run.table("a/classes", [{"class": "crack"}])
        run.table("a/rows", [{"set": "tile", "AP75": 2.5}, {"set": "steel", "AP75": float("nan")}])
    table = json.loads(next(store.root.glob(f"artifacts/evaluation/{run.run_id}/**/rows.json")).read_text())
    assert table == {"columns": ["set", "AP75"], "data": [["tile", 2.5], ["steel", None]]}
    with store.run("evaluation", "MLflow's own way", {}) as own:
        for name in ("rows", "classes"):
            client.log_table(own.run_id, {"set": ["tile"]}, f"a/{name}.json")
    tags = [client.get_run(each.run_id).data.tags["mlflow.loggedArtifacts"] for each in (run, own)]
    assert tags[0] == tags[1]


def test_the_latest_run_with_a_tag_is_the_one_that_ended_last(store, tmp_path):
    assert store.latest("evaluation", "models", "m") is None
    for job in ("first", "second", "first", "other"):
        with store.run("evaluation", job, {"job": job, "models": "m" if job != "other" else "n"}) as run:
            pass
        if job == "first":
            expected = run.run_id
    assert store.latest("evaluation", "models", "m").run_id == expected
    assert store.latest("evaluation", "models", "x") is None
    assert TrackingStore(tmp_path / "never").latest("evaluation", "models", "m") is None
    assert not (tmp_path / "never").exists()


def broken_stores(template, folder):
    """Stores that cannot be used, and what the warning says of each."""
    (folder / "text").mkdir()
    (folder / "text" / "mlflow.db").write_text("no database " * 100)
    yield folder / "text", "not a database"
    (folder / "directory" / "mlflow.db").mkdir(parents=True)
    yield folder / "directory", "unable to open"
    shutil.copytree(template, folder / "newer")
    with contextlib.closing(sqlite3.connect(folder / "newer" / "mlflow.db")) as database:
        database.execute("update alembic_version set version_num = 'of the future'")
        database.commit()
    yield folder / "newer", "of the future"
    (folder / "file").write_text("")
    yield folder / "file", "Not a directory"


def test_trouble_with_a_store_can_be_only_warned_of(template, tmp_path, caplog):
    for root, reason in broken_stores(template, tmp_path):
        caplog.clear()
        store = TrackingStore(root)
        with store.unfailing("the evaluation"), store.run("evaluation", "x", {}):
            pytest.fail("opened")
        (record,) = caplog.records
        assert reason in record.getMessage()
        assert "the evaluation" in record.getMessage()
        assert "\n" not in record.getMessage()


def test_only_trouble_with_the_store_is_passed_over(store, client, tmp_path, caplog):
    with store.unfailing("a file"), store.run("evaluation", "x", {}) as run:
        run.artifact(tmp_path / "absent")
    assert "absent" in caplog.text
    assert client.get_run(run.run_id).info.status == "FAILED"
    with pytest.raises(DataError), store.unfailing("a file"):
        raise DataError("not the store's")


NAMES = st.text(min_size=1, max_size=20) | st.text("aB1_-. :/+.", min_size=1, max_size=6)


@given(NAMES, NAMES)
def test_any_name_becomes_part_of_a_metric_and_stays_its_own(name, other):
    from mlflow.utils.validation import _validate_metric_name

    part = metric_part(name)
    assert "/" not in part
    _validate_metric_name(f"unseen/{part}/bbox_AP50")
    assert (part == metric_part(other)) == (name == other)


def test_plain_names_stay_readable_in_metrics():
    assert metric_part("Real-IAD v1.0_a") == "Real-IAD v1.0_a"
    assert metric_part("a+b") == "a:2b:b"
    assert metric_part("..") == ":2e::2e:"


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
    record(store.existing(run.run_id), {"AP50": 12.5})
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


def test_a_password_of_the_server_is_not_shown(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@tracking.example:5000/path")
    store = TrackingStore(tmp_path)
    assert store.uri == "https://me:secret@tracking.example:5000/path"
    assert store.place == "https://tracking.example:5000/path"
    assert store.ui_command() == "python -m webbrowser https://tracking.example:5000/path"


def test_threads_share_a_store(store):
    ids, barrier = [], threading.Barrier(3)

    def work(seed):
        barrier.wait()
        with store.run("fan-out", f"seed {seed}", {"job": str(seed)}) as run:
            record(run, {"loss": float(seed)}, step=1)
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
