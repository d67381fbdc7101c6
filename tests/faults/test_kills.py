"""Workers, the driver and DVC killed in the middle of a real training."""

import csv
import signal
import sys
from dataclasses import replace

import pytest
import torch
import yaml

from unispector.modeling.saved_model import load_model
from unispector.project.paths import CHECKPOINTS, MODELS, TRACKING, TRAINING_CURVES
from unispector.tracking.run import TrackingStore
from unispector.training.job import train
from unispector.training.ray_trainer import WorkerGroup

pytestmark = [pytest.mark.slow, pytest.mark.integration]

LEFT = {"checkpoint.safetensors", "progress.jsonl", "run.json", "pictures"}


@pytest.fixture
def undisturbed(job, tmp_path):
    """The same training in this process, without Ray: its losses and its weights."""
    straight = replace(job, model_directory=tmp_path / "straight", work_directory=tmp_path / "straight-work")
    losses = []
    train(straight, "", WorkerGroup(), lambda step, metrics: losses.append(losses_of(metrics)))
    return losses, load_model(straight.model_directory).model.state_dict()


def losses_of(figures):
    return {name: float(value) for name, value in figures.items() if name.startswith(("loss", "gradient"))}


def assert_as_undisturbed(job, project, undisturbed):
    losses, weights = undisturbed
    with (project / TRAINING_CURVES / f"{job.name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 31))
    assert [losses_of({k: v for k, v in row.items() if v}) for row in rows] == losses
    saved = load_model(job.model_directory).model.state_dict()
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[name], weights[name]) for name in saved)


def assert_recorded_once(project):
    client = TrackingStore(project / TRACKING).client()
    (experiment,) = [each for each in client.search_experiments() if each.name == "training"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "loss/total")
    assert [point.step for point in history] == list(range(1, 31))


def assert_nothing_left(project):
    assert not list((project / CHECKPOINTS).iterdir())
    models = sorted(path.name for path in (project / MODELS).glob("*/*"))
    assert models == ["seed42", "seed42"]


def test_a_killed_worker(job, training_flow, steps_done, until, undisturbed):
    flow = training_flow.start()
    until("eight steps", lambda: steps_done() >= 8, 300)
    training_flow.worker().kill()
    assert flow.wait(300) == 0
    assert "a training process was lost" in training_flow.said()
    assert_as_undisturbed(job, training_flow.project, undisturbed)
    assert_recorded_once(training_flow.project)
    assert_nothing_left(training_flow.project)


def test_a_killed_driver(job, training_flow, steps_done, until, undisturbed):
    flow = training_flow.start()
    until("eight steps", lambda: steps_done() >= 8, 300)
    flow.kill()
    flow.wait(10)
    until("nothing of it lives", lambda: not training_flow.alive(), 20)
    done = steps_done()
    assert done < 30
    left = {path.name for path in job.work_directory.iterdir() if not path.name.startswith("ray-")}
    assert left <= LEFT | {path for path in left if path.startswith(".checkpoint.")}

    again = training_flow.start()
    assert again.wait(300) == 0
    until("nothing of it lives", lambda: not training_flow.alive(), 20)
    assert_as_undisturbed(job, training_flow.project, undisturbed)
    assert_recorded_once(training_flow.project)
    assert_nothing_left(training_flow.project)


def test_a_killed_dvc(job, training_flow, steps_done, until):
    project = training_flow.project
    stage = {"cmd": f"{sys.executable} -m flows.train", "outs": [str(MODELS)]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": stage}}))
    assert training_flow.start(sys.executable, "-m", "dvc", "init", "--no-scm").wait(60) == 0
    repro = sys.executable, "-m", "dvc", "repro"
    dvc = training_flow.start(*repro)
    until("eight steps", lambda: steps_done() >= 8, 300)
    dvc.send_signal(signal.SIGKILL)
    dvc.wait(10)
    until("nothing of it lives", lambda: not training_flow.alive(), 20)
    assert "DVC is gone" in training_flow.said()
    assert steps_done() < 30

    assert training_flow.start(*repro).wait(300) == 0
    assert_recorded_once(project)
    assert_nothing_left(project)
