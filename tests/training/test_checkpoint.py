"""Checkpoints: an interrupted training goes on as if nothing had happened."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from unispector.errors import CheckpointError
from unispector.training.checkpoint import Checkpointer
from unispector.training.optim import build_optimiser


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1))
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    # Some parameters may never get a gradient, hence have no optimiser state.
    model.register_parameter("idle", nn.Parameter(torch.zeros(2)))
    return model


def optimiser_of(model: nn.Module) -> AdamW:
    return build_optimiser(model, learning_rate=1e-2, backbone_rate=0.1, weight_decay=0.05)


def train(model: nn.Module, optimiser: AdamW, steps: range) -> list[float]:
    losses = []
    for step in steps:
        x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def tensors(model: nn.Module, optimiser: AdamW) -> list[Tensor]:
    states = [optimiser.state.get(p, {}) for g in optimiser.param_groups for p in g["params"]]
    return [*model.state_dict().values(), *(v for s in states for _, v in sorted(s.items()))]


def test_a_restored_training_goes_on_bit_for_bit(tmp_path: Path):
    model = network(0)
    optimiser = optimiser_of(model)
    train(model, optimiser, range(3))
    checkpointer = Checkpointer(tmp_path / "deep" / "checkpoint.safetensors", "job")
    checkpointer.save(3, model, optimiser)

    other = network(1)
    fresh = optimiser_of(other)
    assert Checkpointer(checkpointer.path, "job").restore(other, fresh) == 3
    before = tensors(model, optimiser)
    assert len(before) == len(tensors(other, fresh))
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(other, fresh), strict=True))
    assert train(model, optimiser, range(3, 7)) == train(other, fresh, range(3, 7))
    pairs = zip(tensors(model, optimiser), tensors(other, fresh), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_before_the_first_step(tmp_path: Path):
    model = network(0)
    checkpointer = Checkpointer(tmp_path / "c.safetensors", "job")
    assert checkpointer.restore(model, optimiser_of(model)) == 0
    checkpointer.save(0, model, optimiser_of(model))
    fresh = optimiser_of(model)
    assert checkpointer.restore(model, fresh) == 0
    assert not fresh.state


def test_the_latest_state_counts(tmp_path: Path):
    model = network(0)
    optimiser = optimiser_of(model)
    checkpointer = Checkpointer(tmp_path / "c.safetensors", "job")
    for step in (1, 2):
        train(model, optimiser, range(step))
        checkpointer.save(step, model, optimiser)
    assert checkpointer.restore(network(0), optimiser_of(network(0))) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def refused(checkpointer: Checkpointer, pattern: str) -> None:
    model = network(2)
    optimiser = optimiser_of(model)
    before = [v.clone() for v in model.state_dict().values()]
    with pytest.raises(CheckpointError, match=pattern) as caught:
        checkpointer.restore(model, optimiser)
    assert "\n" not in str(caught.value)
    assert str(checkpointer.path) in str(caught.value)
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))
    assert not optimiser.state


def test_another_job_is_refused(tmp_path: Path):
    model = network(0)
    Checkpointer(tmp_path / "c.safetensors", "job").save(5, model, optimiser_of(model))
    refused(Checkpointer(tmp_path / "c.safetensors", "other"), "another configuration or data")


@pytest.mark.parametrize("kept", [0, 4, 200, -1])
def test_a_truncated_file_is_refused(kept: int, tmp_path: Path):
    model = network(0)
    checkpointer = Checkpointer(tmp_path / "c.safetensors", "job")
    checkpointer.save(5, model, optimiser_of(model))
    checkpointer.path.write_bytes(checkpointer.path.read_bytes()[:kept])
    refused(checkpointer, "damaged checkpoint")


def test_foreign_bytes_are_refused(tmp_path: Path):
    checkpointer = Checkpointer(tmp_path / "c.safetensors", "job")
    checkpointer.path.write_bytes(b"\x80\x04\x95" + b"not a checkpoint" * 40)
    refused(checkpointer, "damaged checkpoint")
