import json
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from unispector.config import load_config
from unispector.errors import ConfigError, TrainingError
from unispector.modeling.saved_model import load_model
from unispector.pipeline.train import plan
from unispector.project.paths import CHECKPOINTS, TRACKING, TRAINING_CURVES, TRAINING_SUMMARY
from unispector.tracking.run import TrackingStore
from unispector.training.jobs import TrainingReport
from unispector.training.ray_trainer import WorkerLostError


class FailedState:
    def __init__(self, error):
        self.error = error

    def result(self, raise_on_failure):
        assert raise_on_failure is False
        return self.error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TrainingError("a loss is not finite"), False),
        (WorkerLostError("a process was lost"), True),
        (ConfigError("mend it"), False),
        (RuntimeError("controller"), True),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(error, again):
    from flows.train import worth_a_retry

    assert worth_a_retry(None, SimpleNamespace(name="unispector-seed42"), FailedState(error)) is again


def test_the_task_trains_one_job(tiny_project):
    from flows.train import train_model

    job = plan(load_config(tiny_project / "params.yaml"), tiny_project)[-1]
    report = train_model.fn(job)
    assert (report.variant, report.seed) == ("untrained", 82)
    assert load_model(job.model_directory).fingerprint == report.fingerprint


def test_a_mistake_in_the_parameters_is_one_line(tiny_project, monkeypatch, capsys):
    from flows import train

    def refuse():
        raise ConfigError("params.yaml: train.steps: must be above 0")

    monkeypatch.setattr(train, "train_flow", refuse)
    monkeypatch.setattr(train.signal, "signal", lambda *_: None)  # its handlers would outlive the test
    with pytest.raises(SystemExit) as stopped:
        train.main()
    assert stopped.value.code == "error: params.yaml: train.steps: must be above 0"


SLEEPING_FLOW = """
import threading, time
from flows import train

def train_flow():
    threading.Thread(target=time.sleep, args=(600,)).start()  # as a thread that waits for Ray
    print("asleep", flush=True)
    time.sleep(600)

train.train_flow = train_flow
train.main()
"""


@pytest.mark.integration
def test_an_interrupt_ends_it_at_once(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPING_FLOW], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert said == "interrupted; `make repro` goes on from the last checkpoints\n"
    assert process.returncode == 128 + signal.SIGINT


@pytest.mark.slow
@pytest.mark.integration
def test_the_flow_trains_every_model(tiny_project, monkeypatch, prefect_server):
    """Prefect, Ray and MLflow for real: three trainings and two untrained models."""
    from flows.train import train_flow

    monkeypatch.chdir(tiny_project)
    reports = train_flow()
    jobs = plan(load_config(), tiny_project)
    assert [(report.variant, report.seed) for report in reports] == [(job.variant, job.seed) for job in jobs]
    assert set(json.loads((tiny_project / TRAINING_SUMMARY).read_text())) == {job.name for job in jobs}
    assert not any((tiny_project / CHECKPOINTS).iterdir())
    store = TrackingStore(tiny_project / TRACKING)
    for job, report in zip(jobs, reports, strict=True):
        saved = load_model(job.model_directory)
        assert saved.fingerprint == report.fingerprint
        if job.variant != "untrained":
            assert saved.provenance["mlflow_run_id"] == report.run_id
            assert store.model_directory(report.run_id).samefile(job.model_directory)
            history = store.client().get_metric_history(report.run_id, "loss/total")
            assert [point.step for point in history] == [1, 2, 3, 4]
            assert history[-1].value == pytest.approx(report.loss)
            curve = (tiny_project / TRAINING_CURVES / f"{job.name}.csv").read_text().splitlines()
            assert [row.split(",")[0] for row in curve] == ["step", "1", "2", "3", "4"]


@pytest.mark.slow
@pytest.mark.integration
def test_a_failed_training_fails_the_flow_with_its_reason(tiny_project, monkeypatch, prefect_server):
    """The image is damaged after planning: only the worker finds out."""
    from flows.train import train_flow

    file = tiny_project / "params.yaml"
    parameters = yaml.safe_load(file.read_text())
    parameters["train"] |= {"seeds": [42], "ablation_seeds": []}
    file.write_text(yaml.safe_dump(parameters))
    monkeypatch.chdir(tiny_project)
    for image in (tiny_project / "data" / "raw" / "set").glob("42-*.png"):
        image.write_bytes(image.read_bytes()[:60])
    state = train_flow(return_state=True)
    assert state.is_failed()
    assert re.search(
        r"TrainingError: unispector-seed42: .*42-\d\.png: not a readable image \(.*$", state.message
    )
    assert "\n" not in state.message
    assert not (tiny_project / TRAINING_SUMMARY).exists()
    store = TrackingStore(tiny_project / TRACKING)
    (experiment,) = [each for each in store.client().search_experiments() if each.name == "training"]
    (run,) = store.client().search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


def test_the_page_of_a_run_tells_what_became_of_each_model(tiny_project):
    from flows.train import page

    jobs = plan(load_config(tiny_project / "params.yaml"), tiny_project)[-2:]
    report = TrainingReport("untrained", 42, 0, None, 90.0, "abc", "")
    assert page(jobs, [report, TrainingError("a loss is not finite")]).splitlines()[2:] == [
        "| untrained-seed42 | 0 |  | 1.5 |  |",
        "| untrained-seed82 | failed: a loss is not finite |  |  |  |",
    ]
