"""What of a training goes to MLflow, and what becomes of trainings that recorded nothing in time."""

import contextlib
import json
import time

import pytest
from mlflow import MlflowClient

from unispector.config import load_config
from unispector.errors import TrainingError
from unispector.pipeline.train import plan
from unispector.project.paths import TRACKING
from unispector.training.ray_trainer import Reported
from unispector.training.runs import recorded, send_left


@pytest.fixture
def jobs(tiny_project, store):
    """The store is made beforehand, because MLflow takes seconds to make its database."""
    (tiny_project / "artifacts").mkdir(exist_ok=True)
    store.root.rename(tiny_project / TRACKING)
    return plan(load_config(tiny_project / "params.yaml"), tiny_project)


@pytest.fixture
def runs(tiny_project):
    """`runs()` -> job's name -> its runs, by MLflow's own client."""
    client = MlflowClient(tracking_uri=f"sqlite:///{tiny_project / TRACKING}/mlflow.db")

    def found():
        experiment = client.get_experiment_by_name("training")
        listed = client.search_runs([experiment.experiment_id]) if experiment else []
        return {
            name: [
                (run.info.status, [m.step for m in client.get_metric_history(run.info.run_id, "loss/total")])
                for run in listed
                if run.info.run_name == name
            ]
            for name in {run.info.run_name for run in listed}
        }

    return found


def report(step):
    return Reported(step, time.time(), {"loss/total": 1.0 / step})


def progress(job, steps):
    job.work_directory.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": s, "time": 1.7e9 + s, "metrics": {"loss/total": 1.0 / s}}) for s in steps]
    (job.work_directory / "progress.jsonl").write_text("\n".join(lines) + "\n")


def test_a_failed_training_is_a_failed_run_and_goes_on_with_it(tiny_project, jobs, runs):
    job = jobs[0]
    with contextlib.suppress(TrainingError), recorded(job, tiny_project) as follower:
        for step in (1, 2):
            follower(report(step))
        raise TrainingError("a loss is not finite")
    assert runs() == {job.name: [("FAILED", [1, 2])]}
    with recorded(job, tiny_project) as follower:
        for step in (1, 2, 3):
            follower(report(step))
        follower.write_curve(tiny_project / "curve.csv")
    assert runs() == {job.name: [("FINISHED", [1, 2, 3])]}
    assert (tiny_project / "curve.csv").read_text().splitlines() == [
        "step,loss/total",
        "1,1.0",
        "2,0.5",
        "3,0.3333333333333333",
    ]
    assert follower.loss == pytest.approx(1 / 3)


def leave(job, tiny_project, monkeypatch, port, ended):
    """A training whose MLflow was away; one that has no end was killed."""
    progress(job, (1, 2, 3))
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
        with recorded(job, tiny_project):
            kept = (job.work_directory / "run.json").read_text()
    if not ended:
        (job.work_directory / "run.json").write_text(kept)


def test_what_was_left_is_sent_once(tiny_project, jobs, runs, monkeypatch):
    ended, killed, begun = jobs[:3]
    leave(ended, tiny_project, monkeypatch, 9, ended=True)
    leave(killed, tiny_project, monkeypatch, 9, ended=False)
    leave(begun, tiny_project, monkeypatch, 9, ended=False)
    (killed.work_directory / "checkpoint.safetensors").write_bytes(b"x")
    assert runs() == {}
    # Another training may be under way: what has no end is left alone.
    assert send_left(tiny_project) == 0
    assert runs() == {ended.name: [("FINISHED", [1, 2, 3])]}
    assert not ended.work_directory.exists()
    # A training starts, hence no other one runs.
    for _ in range(2):
        assert send_left(tiny_project, going_on=[begun.work_directory]) == 0
        assert runs() == {ended.name: [("FINISHED", [1, 2, 3])], killed.name: [("KILLED", [1, 2, 3])]}
    assert [path.name for path in sorted(killed.work_directory.iterdir())] == [
        "checkpoint.safetensors",
        "progress.jsonl",
    ]
    assert (begun.work_directory / "run.json").exists()


def test_what_cannot_be_sent_yet_stays(tiny_project, jobs, runs, monkeypatch):
    leave(jobs[0], tiny_project, monkeypatch, 9, ended=True)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert send_left(tiny_project) == 1
    assert send_left(tiny_project) == 0
    assert runs() == {jobs[0].name: [("FINISHED", [1, 2, 3])]}
