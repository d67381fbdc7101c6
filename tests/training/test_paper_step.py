"""The paper's preset trains: one optimiser step of it at full size, by the code that `make repro` runs."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from unispector.config import Config, MiniConfig, load_config
from unispector.data.convert import ConversionFiles, convert_set
from unispector.data.mini import generate_mini
from unispector.data.protocol.split_tree import SplitTree
from unispector.data.sources.insa.mvtec_ad import MVTEC_AD
from unispector.pipeline.fingerprint import fingerprint
from unispector.pipeline.train import plan
from unispector.project.paths import SPLITS
from unispector.training import job as stage
from unispector.training.ray_trainer import WorkerGroup

ROOT = Path(__file__).parents[2]

# These lie below a layer that starts at zero, so nothing reaches them before it has moved; and the paper
# has no relevance loss.
STILL = (
    "pixel_decoder.level_embed", "prompt_encoder.visual_aligner.layers.0.",
    "prompt_encoder.frequency_encoder.", "prompt_encoder.frequency_aligner.layers.0.",
    "query_selection.box.layers.0.", "query_selection.box.layers.1.", "query_selection.relevance_",
    "decoder.box.layers.0.", "decoder.box.layers.1.",
)  # fmt: skip
# Stochastic depth leaves out a half of a block for both images now and then.
DROPPED = re.compile(r"(backbone\.network\.layers_\d\.blocks\.\d\.)(norm1|attn|norm2|mlp)\.")
BRANCH = {"norm1": "attention", "attn": "attention", "norm2": "mlp", "mlp": "mlp"}


@pytest.fixture
def job(tmp_path: Path) -> stage.TrainingJob:
    """A training on two images of insa-mini by the paper's preset, but for the hardware it asks for."""
    raw = tmp_path / "data/raw"
    generate_mini(MiniConfig(images_per_class=1, defect_free_images=1), raw, workers=1)
    config = small_in_number(load_config(ROOT / "params.yaml", "paper"), raw / MVTEC_AD.insa_name)
    training = SplitTree(tmp_path / SPLITS).training(42)
    training.parent.mkdir(parents=True)
    files = ConversionFiles.beside(training)
    convert_set("MVTec", MVTEC_AD, config.data.root, files, min_side=config.data.min_side)
    fingerprint(config, tmp_path)
    return plan(config, tmp_path)[0]


def small_in_number(config: Config, root: Path) -> Config:
    """One step of two images at the full rate, in one process, weights as drawn; sizes stay."""
    changes = {"steps": 1, "batch_size": 2, "warmup_steps": 0, "processes": 1, "workers": 0, "seeds": (42,)}
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"root": root}),
            "split": config.split.model_copy(update={"seeds": (42,)}),
            "train": config.train.model_copy(update={**changes, "precision": "fp32", "threads": 1}),
        }
    )


def branch(name: str) -> tuple[str, str] | None:
    """Which half of which block of the backbone a parameter belongs to."""
    match = DROPPED.match(name)
    return (match[1], BRANCH[match[2]]) if match else None


@pytest.mark.slow
def test_one_step_at_full_size(job: stage.TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[nn.Module] = []
    build_optimiser = stage.build_optimiser

    def spy(model: nn.Module, **rates: float) -> torch.optim.AdamW:
        trained.append(model)
        return build_optimiser(model, **rates)

    monkeypatch.setattr(stage, "build_optimiser", spy)
    reports: list[dict[str, float]] = []
    before = dict(stage.initial_model(job).named_parameters())
    stage.train(job, "", WorkerGroup(), lambda step, metrics: reports.append(metrics))

    (metrics,) = reports
    assert len(metrics) > 5
    assert all(math.isfinite(value) for value in metrics.values())
    (model,) = trained
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert [name for name, parameter in after.items() if not parameter.requires_grad] == []
    without = {name for name, each in after.items() if each.grad is None or not each.grad.any()}
    assert [prefix for prefix in STILL if not any(name.startswith(prefix) for name in without)] == []
    dropped = {branch(name) for name in without} - {None}
    assert len(dropped) <= 8
    expected = {name for name in after if name.startswith(STILL) or branch(name) in dropped}
    assert sorted(without - expected) == []
    moved = {name for name, parameter in after.items() if not torch.equal(parameter, before[name])}
    assert [name for name in after.keys() - moved if name not in without] == []
