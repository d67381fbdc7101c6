"""A loss that is no number stops the training, says where it came from, and spares the checkpoint."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from unispector.data.coco import Annotations
from unispector.data.dataset import InstanceDataset
from unispector.data.episodes import EpisodeSampler, episode_images
from unispector.errors import TrainingError
from unispector.modeling.saved_model import load_model
from unispector.training import job as stage
from unispector.training.job import CHECKPOINT, train
from unispector.training.ray_trainer import WorkerGroup


def silent(step, metrics):
    pass


class Poisoned(InstanceDataset):
    """One image whose spectra are no numbers, as from a broken decoder."""

    poisoned: int = -1

    def sample(self, index, epoch_seed=0):
        sample = super().sample(index, epoch_seed)
        if epoch_seed // 2 >= 7 and index == self.poisoned:
            return replace(sample, spectra=sample.spectra * torch.nan)
        return sample


def first_draw(job, step):
    """The first step from `step` on, counted from 0, and its images."""
    annotations = Annotations.read(job.train_file)
    images = episode_images(annotations)
    sampler = EpisodeSampler(images, batch_size=2, images_per_class=2, defect_free=1, views=0, seed=job.seed)
    drawn = [index for index, _ in sampler.batch_at(step)]
    return drawn, [annotations.images[index].file_name for index in drawn]


def test_a_poisoned_image_is_named_and_the_checkpoint_before_is_good(job, monkeypatch, tmp_path):
    short = job.config.train.model_copy(update={"steps": 9})
    job = replace(job, config=job.config.model_copy(update={"train": short}))
    drawn, names = first_draw(job, 7)
    monkeypatch.setattr(Poisoned, "poisoned", drawn[0])
    monkeypatch.setattr(stage, "InstanceDataset", Poisoned)
    with pytest.raises(TrainingError) as caught:
        train(job, "", WorkerGroup(), silent)
    said = str(caught.value)
    file = job.work_directory / CHECKPOINT
    assert said.startswith("step 8: loss term `")
    assert f"is not finite, images {names[0]}, {names[1]}; step 6 is kept in {file}; lower " in said
    assert "\n" not in said
    assert all(value.isfinite().all() for value in load_file(file).values())

    # With the image mended, the training goes on from there as if nothing had happened.
    monkeypatch.undo()
    resumed = []
    train(job, "", WorkerGroup(), lambda step, metrics: resumed.append((step, metrics["loss/total"])))
    assert resumed[0][0] == 7
    straight = replace(job, model_directory=tmp_path / "m", work_directory=tmp_path / "w")
    undisturbed = []
    train(
        straight, "", WorkerGroup(), lambda step, metrics: undisturbed.append((step, metrics["loss/total"]))
    )
    assert resumed == undisturbed[6:]
    models = [load_model(each.model_directory).model.state_dict() for each in (job, straight)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_a_gradient_that_is_no_number_reaches_no_weight(job, monkeypatch):
    """The loss is finite, its gradient is not: as of a root at 0. The weights would be lost with the step."""
    build = stage.initial_model

    def broken(job):
        model = build(job)
        parameter = next(p for p in model.parameters() if p.requires_grad)
        parameter.register_hook(lambda gradient: gradient * torch.nan)
        return model

    monkeypatch.setattr(stage, "initial_model", broken)
    with pytest.raises(TrainingError, match=r"^step 1: the gradient is not finite, images .*no checkpoint"):
        train(job, "", WorkerGroup(), silent)
    assert not (job.work_directory / CHECKPOINT).exists()
