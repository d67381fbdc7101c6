"""One training in this process, no Ray: a job is a function of files."""

from dataclasses import replace

import pytest
import torch

from unispector.config import load_config
from unispector.errors import CheckpointError
from unispector.modeling.saved_model import load_model
from unispector.pipeline.train import plan
from unispector.training.job import TrainingJob, initial_model, train
from unispector.training.ray_trainer import WorkerGroup


@pytest.fixture
def job(tiny_project) -> TrainingJob:
    return plan(load_config(tiny_project / "params.yaml"), tiny_project)[0]


def weights(job):
    return load_model(job.model_directory).model.state_dict()


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class Interrupted(Exception):
    pass


def interrupt_at(step):
    def report(done, metrics):
        if done == step:
            raise Interrupted

    return report


def test_a_resumed_training_equals_an_undisturbed_one_bit_for_bit(job, tmp_path):
    straight = replace(
        job, model_directory=tmp_path / "straight", work_directory=tmp_path / "straight-checkpoints"
    )
    reports = []
    train(straight, "", WorkerGroup(), lambda step, metrics: reports.append((step, metrics["loss/total"])))
    assert [step for step, _ in reports] == [1, 2, 3, 4]

    with pytest.raises(Interrupted):
        train(job, "", WorkerGroup(), interrupt_at(3))
    assert not job.model_directory.exists()
    resumed = []
    train(job, "", WorkerGroup(), lambda step, metrics: resumed.append((step, metrics["loss/total"])))
    assert resumed == reports[2:]
    assert equal(weights(job), weights(straight))
    assert not equal(weights(job), initial_model(job).state_dict())


def test_checkpointed_activations_change_nothing_but_memory(job, tmp_path):
    config = job.config
    saving = config.model_copy(
        update={"train": config.train.model_copy(update={"activation_checkpointing": True})}
    )
    apart = replace(job, config=saving, model_directory=tmp_path / "other", work_directory=tmp_path / "work")
    for each in (job, apart):
        train(each, "", WorkerGroup(), lambda step, metrics: None)
    one, other = weights(job), weights(apart)
    assert one.keys() == other.keys()
    for name in one:
        if "running_" not in name and "num_batches" not in name:  # batch norms saw each batch twice
            torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_saved_model_tells_where_it_comes_from(job):
    fingerprint = train(job, "0123", WorkerGroup(), lambda step, metrics: None)
    saved = load_model(job.model_directory)
    assert saved.fingerprint == fingerprint
    assert saved.config == job.config
    assert saved.provenance["variant"] == "unispector"
    assert saved.provenance["split_seed"] == "42"
    assert saved.provenance["mlflow_run_id"] == "0123"
    assert saved.provenance["job"] == job.key
    assert saved.provenance["data_sha256"] == job.provenance["data_sha256"]


def test_a_checkpoint_of_another_job_is_refused(job):
    with pytest.raises(Interrupted):
        train(job, "", WorkerGroup(), interrupt_at(3))
    with pytest.raises(CheckpointError, match="another configuration"):
        train(replace(job, key="other"), "", WorkerGroup(), lambda step, metrics: None)


def test_the_start_depends_on_the_seed_alone(job):
    torch.manual_seed(0)
    one = initial_model(job).state_dict()
    torch.rand(3)
    assert equal(one, initial_model(job).state_dict())
    assert not equal(one, initial_model(replace(job, seed=82)).state_dict())


def test_training_starts_from_another_models_weights(job):
    train(job, "", WorkerGroup(), lambda step, metrics: None)
    further = replace(job, start=job.model_directory, seed=82)
    assert equal(initial_model(further).state_dict(), weights(job))
    wider = job.config.model_copy(update={"model": job.config.model.model_copy(update={"queries": 11})})
    with pytest.raises(CheckpointError, match="another `model` section"):
        initial_model(replace(further, config=wider))
