"""`train.start` as a file of weights: what fits is taken, in one line of the log."""

import logging
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from unispector.config import load_config
from unispector.errors import CheckpointError
from unispector.modeling.build import build_model
from unispector.pipeline.train import plan
from unispector.training.job import TrainingJob, initial_model


@pytest.fixture
def job(tiny_project) -> TrainingJob:
    return plan(load_config(tiny_project / "params.yaml"), tiny_project)[0]


def tensors(model):
    return {name: value.contiguous() for name, value in build_model(model).state_dict().items()}


def test_a_file_gives_what_fits_and_the_seed_the_rest(job, tmp_path, caplog):
    file = tmp_path / "base.safetensors"
    base = tensors(job.config.model.with_parts(sspe=False, pqs=False))
    save_file(base, file)
    drawn = initial_model(job).state_dict()
    with caplog.at_level(logging.INFO, logger="unispector"):
        started = initial_model(replace(job, start=file)).state_dict()
    shared = base.keys() & drawn.keys()
    assert all(torch.equal(started[name], base[name]) for name in shared)
    assert all(torch.equal(started[name], drawn[name]) for name in drawn.keys() - shared)
    (told,) = [record.message for record in caplog.records if "base.safetensors" in record.message]
    assert told.startswith(f"{job.name}: loaded {len(shared)} of ")
    assert "new: prompt_encoder." in told


def test_a_file_of_other_sizes_is_refused(job, tmp_path):
    file = tmp_path / "wide.safetensors"
    wide = job.config.model.model_copy(update={"width": 64})
    save_file(tensors(wide), file)
    with pytest.raises(CheckpointError, match=r"wide\.safetensors: .*has another shape"):
        initial_model(replace(job, start=file))


def test_another_file_is_another_job(tiny_project):
    """A changed file must not go on from the old one's checkpoint."""
    config = load_config(tiny_project / "params.yaml")
    file = tiny_project / "start.safetensors"
    keys = []
    for value in (0.0, 1.0):
        save_file({"a": torch.tensor([value])}, file)
        train = config.train.model_copy(update={"start": "start.safetensors"})
        keys.append(plan(config.model_copy(update={"train": train}), tiny_project)[0].key)
    assert len(set(keys)) == 2
