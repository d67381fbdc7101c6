"""Trainings whose frozen backbone runs once for every view: `train.views` above 0."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unispector.config import AugmentConfig, ModelConfig, load_config
from unispector.errors import TrainingError
from unispector.modeling.backbones.backbone import NetworkBackbone
from unispector.modeling.saved_model import load_model
from unispector.ops.files import sha256_of_tree
from unispector.pipeline.train import plan
from unispector.training import job as stage
from unispector.training.job import CACHED, TrainingJob, train
from unispector.training.ray_trainer import WorkerGroup

Figures = dict[str, float]


@pytest.fixture
def job(tiny_project: Path) -> TrainingJob:
    job = plan(load_config(tiny_project / "params.yaml"), tiny_project)[0]
    (backbone,) = job.config.model.backbones
    model = job.config.model.model_copy(update={"backbone": backbone.model_copy(update={"frozen": True})})
    recipe = job.config.train.model_copy(update={"views": 2, "steps": 12})
    return replace(job, config=job.config.model_copy(update={"model": model, "train": recipe}))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of each run of the backbone while it trains."""
    seen: list[int] = []
    forward = stage.with_maps.__globals__["_computed"]

    def counted(backbone: NetworkBackbone, images: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        seen.append(len(images))
        return forward(backbone, images)

    monkeypatch.setitem(stage.with_maps.__globals__, "_computed", counted)
    return seen


def silent(step: int, figures: Figures) -> None:
    pass


def folders(job: TrainingJob) -> set[str]:
    return {folder.name for folder in job.map_directory.iterdir()}


def elsewhere(job: TrainingJob, tmp_path: Path, name: str) -> TrainingJob:
    """The same training, its model and checkpoints apart; the maps are shared."""
    return replace(job, model_directory=tmp_path / name / "m", work_directory=tmp_path / name / "w")


def test_another_training_on_the_same_views_runs_no_backbone(job, runs, tmp_path, caplog):
    shares: list[float] = []
    with caplog.at_level(logging.INFO):
        train(job, "", WorkerGroup(), lambda step, figures: shares.append(figures[CACHED]))
    assert shares == sorted(shares)
    # Six images twice; what was drawn was computed, once.
    assert shares[-1] * 12 == pytest.approx(sum(runs))
    assert 1 / 12 < shares[0] < shares[-1] <= 1
    assert "2 views of 6 images" in caplog.text
    assert "0 % are there" in caplog.text

    first = load_model(job.model_directory).model.state_dict()
    runs.clear()
    again = elsewhere(job, tmp_path, "again")
    train(again, "", WorkerGroup(), silent)
    assert runs == []
    second = load_model(again.model_directory).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_maps_of_another_reading_of_the_same_network_are_not_taken(job: TrainingJob, tmp_path: Path) -> None:
    train(job, "", WorkerGroup(), silent)
    backbone = job.config.model.backbone.model_copy(update={"blocks": (2, 8)})
    model = job.config.model.model_copy(update={"backbone": backbone})
    other = replace(elsewhere(job, tmp_path, "x"), config=job.config.model_copy(update={"model": model}))
    train(other, "", WorkerGroup(), silent)
    assert len(folders(job)) == 2


class Killed(Exception):
    pass


def test_a_resumed_training_goes_on_with_what_is_kept(job, runs, tmp_path):
    straight = replace(elsewhere(job, tmp_path, "straight"), map_directory=tmp_path / "maps")
    expected: list[float] = []
    train(straight, "", WorkerGroup(), lambda step, figures: expected.append(figures["loss/total"]))
    whole = sum(runs)
    runs.clear()

    def kill(step: int, figures: Figures) -> None:
        if step == 7:
            raise Killed

    with pytest.raises(Killed):
        train(job, "", WorkerGroup(), kill)
    resumed: list[float] = []
    train(job, "", WorkerGroup(), lambda step, figures: resumed.append(figures["loss/total"]))
    assert resumed == expected[6:]
    assert sum(runs) == whole


def changed_model(job: TrainingJob, **values: object) -> TrainingJob:
    model = ModelConfig.model_validate({**job.config.model.model_dump(), **values})
    return replace(job, config=job.config.model_copy(update={"model": model}))


CHANGES: dict[str, Callable[[TrainingJob], TrainingJob]] = {
    "data": lambda job: replace(job, provenance={**job.provenance, "data_sha256": "other"}),
    "size": lambda job: changed_model(job, image_size=96),
    "augmentation": lambda job: replace(
        job, config=job.config.model_copy(update={"augment": AugmentConfig(zoom=2.0)})
    ),
    "seed": lambda job: replace(job, seed=82),
}


@pytest.mark.parametrize("change", CHANGES)
def test_maps_of_other_views_are_never_used(change: str, job: TrainingJob, runs: list[int]) -> None:
    short = job.config.train.model_copy(update={"steps": 2})
    job = replace(job, config=job.config.model_copy(update={"train": short}))
    train(job, "", WorkerGroup(), silent)
    before, first = folders(job), sha256_of_tree(job.map_directory.rglob("*.maps"))
    runs.clear()
    other = replace(CHANGES[change](job), key="other", work_directory=job.work_directory / "other")
    train(other, "", WorkerGroup(), silent)
    assert sum(runs) > 0
    assert len(folders(job)) == 2
    (name,) = before
    assert sha256_of_tree((job.map_directory / name).rglob("*.maps")) == first


def test_the_maps_of_another_backbone_are_never_used(job, runs, monkeypatch):
    train(job, "", WorkerGroup(), silent)
    runs.clear()
    build = stage.initial_model

    def retrained(job: TrainingJob) -> torch.nn.Module:
        model = build(job)
        next(model.backbone.parameters()).data.mul_(1.01)
        return model

    monkeypatch.setattr(stage, "initial_model", retrained)
    train(replace(job, key="other", work_directory=job.work_directory / "other"), "", WorkerGroup(), silent)
    assert sum(runs) > 0
    assert len(folders(job)) == 2


def test_other_weights_of_the_loss_use_the_same_maps(job: TrainingJob, runs: list[int]) -> None:
    train(job, "", WorkerGroup(), silent)
    runs.clear()
    loss = job.config.loss.model_copy(update={"dice": 1.0})
    other = replace(job, config=job.config.model_copy(update={"loss": loss}), key="other")
    train(replace(other, work_directory=job.work_directory / "other"), "", WorkerGroup(), silent)
    assert (runs, len(folders(job))) == ([], 1)


def test_an_image_that_the_backbone_makes_nothing_of_is_named(job, monkeypatch):
    forward = NetworkBackbone.frame
    monkeypatch.setattr(NetworkBackbone, "frame", lambda self, images: forward(self, images) * torch.nan)
    with pytest.raises(
        TrainingError, match=r"^step 1: what the backbone makes of an image is not finite"
    ) as e:
        train(job, "", WorkerGroup(), silent)
    assert "images set/42-" in str(e.value)
    assert "\n" not in str(e.value)
