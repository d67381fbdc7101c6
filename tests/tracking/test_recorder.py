"""A run whose store is away for a while, against MLflow's own client."""

import json
import socket
import sqlite3
import time
from dataclasses import asdict, replace

import pytest

from unispector.errors import DataError
from unispector.tracking import recorder as module
from unispector.tracking.recorder import Recorder, RunRecord
from unispector.tracking.run import MODEL_TAG, Point, TrackedRun, TrackingStore

RECORD = RunRecord("train", "seed 42", {"job": "abc", "variant": "base"}, {"steps": "10"})


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_TRIES", 0.0)


@pytest.fixture
def away(monkeypatch, tmp_path):
    """A store on a server that nobody runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        return TrackingStore(tmp_path / "mlflow")


def point(step, **values):
    return Point(step, 1_700_000_000.25 + step, {"loss": 1.0 / step, **values})


def history(client, run_id, key="loss"):
    return [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run_id, key)]


def expected(*steps):
    return [(step, 1.0 / step, 1_700_000_000_250 + 1000 * step) for step in steps]


def test_a_run_with_its_store_at_hand(store, client, tmp_path):
    file = tmp_path / "work" / "run.json"
    (tmp_path / "a.txt").write_text("a")
    recorder = Recorder(store, replace(RECORD, model=str(tmp_path / "model")), file)
    recorder.update()
    assert client.get_run(recorder.run_id).info.status == "RUNNING"
    assert json.loads(file.read_text())["status"] == "RUNNING"
    recorder.update([point(1)], [(str(tmp_path / "a.txt"), "files")])
    recorder.update([point(2)], [(str(tmp_path / "a.txt"), "files"), (str(tmp_path / "absent"), "")])
    assert recorder.end("FINISHED", at=1_700_000_100.5)
    saved = client.get_run(recorder.run_id)
    assert (saved.info.status, saved.info.end_time) == ("FINISHED", 1_700_000_100_500)
    assert saved.data.params == {"steps": "10"}
    assert saved.data.tags.items() >= {"job": "abc", "variant": "base", MODEL_TAG: "../model"}.items()
    assert history(client, recorder.run_id) == expected(1, 2)
    assert [each.path for each in client.list_artifacts(recorder.run_id, "files")] == ["files/a.txt"]
    assert not file.exists()


def test_what_a_store_that_was_away_missed_is_recorded_later(away, store, client, tmp_path, caplog):
    file = tmp_path / "run.json"
    recorder = Recorder(away, RECORD, file)
    began = time.monotonic()
    recorder.update()
    assert time.monotonic() - began < 15
    for step in (1, 2):
        recorder.update([point(step)])
    assert not recorder.end("FAILED", at=1_700_000_100.5)
    assert recorder.run_id == ""
    (warning,) = [each.getMessage() for each in caplog.records if each.name.startswith("unispector")]
    assert warning.startswith("seed 42: MLflow at http://127.0.0.1:")
    assert "\n" not in warning

    left = RunRecord.read(file)
    assert (left.status, left.ended, left.tags) == ("FAILED", 1_700_000_100.5, RECORD.tags)
    later = Recorder(store, left, file)
    assert later.end(left.status, at=left.ended, points=[point(1), point(2)])
    saved = client.get_run(later.run_id).info
    assert (saved.status, saved.end_time) == ("FAILED", 1_700_000_100_500)
    assert history(client, later.run_id) == expected(1, 2)
    assert not file.exists()


@pytest.mark.slow
def test_a_store_that_goes_and_comes_back_misses_nothing(store, client, tmp_path, caplog):
    recorder = Recorder(store, RECORD, tmp_path / "run.json")
    recorder.update([point(1)])
    with sqlite3.connect(store.root / "mlflow.db", isolation_level=None) as other:
        other.execute("begin exclusive")  # nobody else gets in
        recorder.update([point(2, other=5.0)])
        recorder._next_try = time.monotonic() + 60  # no second wait for the lock
        recorder.update([point(3)])
        other.execute("rollback")
    assert len([each for each in caplog.records if each.name.startswith("unispector")]) == 1
    recorder._next_try = 0
    recorder.update([point(4)])
    assert recorder.end("FINISHED")
    assert history(client, recorder.run_id) == expected(1, 2, 3, 4)
    assert [step for step, _, _ in history(client, recorder.run_id, "other")] == [2]
    assert len(client.search_runs(["0", client.get_run(recorder.run_id).info.experiment_id])) == 1


def test_what_arrived_without_an_answer_is_not_recorded_twice(store, client, tmp_path, monkeypatch):
    recorder = Recorder(store, RECORD, tmp_path / "run.json")
    recorder.update([point(1)])
    send = TrackedRun.points

    def arrives(run, points):
        send(run, [each._replace(time=each.time + 9) for each in points])  # the server's clock, say
        raise OSError("timed out")

    with monkeypatch.context() as patch:
        patch.setattr(TrackedRun, "points", arrives)
        recorder.update([point(2)])
    recorder.update([point(3)])
    assert recorder.end("FINISHED")
    assert sorted(step for step, _, _ in history(client, recorder.run_id)) == [1, 2, 3]


def test_a_job_that_starts_again_makes_no_second_run(store, client, tmp_path):
    ids = set()
    for last in (2, 4, 4):
        recorder = Recorder(store, RECORD, tmp_path / "run.json")
        for step in range(1, last + 1):  # a job replays its reports
            recorder.update([point(step)])
        recorder.end("FINISHED")
        ids.add(recorder.run_id)
    (run_id,) = ids
    assert history(client, run_id) == expected(1, 2, 3, 4)


@pytest.mark.parametrize("content", ["", "[]", '{"name": "x"}', '{"artifacts": 3}'])
def test_a_damaged_record_is_refused(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(DataError, match=r"run\.json: not the record of a run; delete it$"):
        RunRecord.read(tmp_path / "run.json")


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    old = {
        **asdict(RECORD),
        "artifacts": [["pictures/step-1.png", "pictures"]],
        "status": "KILLED",
        "ended": 5.0,
    }
    (tmp_path / "run.json").write_text(json.dumps(old))
    assert RunRecord.read(tmp_path / "run.json") == replace(RECORD, status="KILLED", ended=5.0)
