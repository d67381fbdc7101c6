"""Parameter groups and the schedule."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from unispector.config import BackboneConfig
from unispector.modeling.unispector import UniSpectorModel
from unispector.training.optim import build_optimiser, linear_schedule

MakeModel = Callable[..., UniSpectorModel]


def options(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Name of each optimised parameter -> its rate and decay."""
    optimiser = build_optimiser(model, learning_rate=1e-2, backbone_rate=0.1, weight_decay=0.05)
    names = {id(p): name for name, p in model.named_parameters()}
    found = [
        (names[id(p)], (group["lr"], group["weight_decay"]))
        for group in optimiser.param_groups
        for p in group["params"]
    ]
    assert len(found) == len(dict(found))
    return dict(found)


HEADS = {"sharpness", "marked", "plain"}
"""Numbers that attention heads of the prior have one of."""

EMBEDDINGS = {
    "prompt_encoder.content",
    "prompt_encoder.position",
    "token_types",
    "query_selection.content",
    "query_selection.reference",
}


@pytest.mark.parametrize("variant", ["unispector", "base"])
def test_every_parameter_is_in_its_group(variant: str, make_model: MakeModel):
    model = make_model(variant)
    found = options(model)
    assert set(found) == {name for name, p in model.named_parameters() if p.requires_grad}
    norms = {
        f"{name}.{leaf}"
        for name, module in model.named_modules()
        if "Norm" in type(module).__name__
        for leaf, _ in module.named_parameters(recurse=False)
    }
    assert any(name.startswith("backbone.") for name in norms)
    assert any(name.startswith("decoder.") for name in norms)
    for name, (rate, decay) in found.items():
        assert rate == pytest.approx(1e-3 if name.startswith("backbone.") else 1e-2)
        kept = name in norms or name in EMBEDDINGS or model.get_parameter(name).dim() == 0
        kept = kept or name.rpartition(".")[2] in HEADS
        assert decay == (0.0 if kept else 0.05), name


LAYERS = ("Linear", "Conv2d", "ConvTranspose2d")


def module_rule(model: nn.Module, name: str) -> str:
    """By which of the base's rules a parameter is decayed or not, from its name and its module's type."""
    module, _, leaf = name.rpartition(".")
    kind = type(model.get_submodule(module)).__name__
    if leaf == "relative_position_bias_table":
        return "position bias"
    if "Norm" in kind:
        return "norm"
    if name in EMBEDDINGS:
        return "embedding"
    if model.get_parameter(name).dim() == 0 or leaf in HEADS:
        return "single number"
    if leaf.endswith("bias") and kind in (*LAYERS, "NonDynamicallyQuantizableLinear"):
        return "bias of a layer"
    return f"{leaf} of {kind}"


def test_the_rules_of_decay_for_swin(make_model):
    # As the released base has it: its rule looks for "bias" in a module's name, so layers' biases do decay.
    backbone = BackboneConfig(name="swin_tiny_patch4_window7_224", weights="none", frozen=False)
    model = make_model(backbone=backbone)
    found = options(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    rules: dict[str, set[float]] = {}
    for name, (_, decay) in found.items():
        rules.setdefault(module_rule(model, name), set()).add(decay)
    assert rules == {
        "position bias": {0.0},
        "norm": {0.0},
        "embedding": {0.0},
        "single number": {0.0},
        "bias of a layer": {0.05},
        "weight of Linear": {0.05},
        "weight of NonDynamicallyQuantizableLinear": {0.05},
        "weight of Conv2d": {0.05},
        "weight of ConvTranspose2d": {0.05},
        "in_proj_weight of MultiheadAttention": {0.05},
        "in_proj_bias of MultiheadAttention": {0.05},
        "level_embed of PixelDecoder": {0.05},
        "classes of PredictionHeads": {0.05},
    }
    tables = [name for name in found if name.endswith("relative_position_bias_table")]
    assert len(tables) == 12
    for i in range(4):
        assert found[f"backbone.out_norms.{i}.weight"] == pytest.approx((1e-3, 0.0))
    slow = {name for name, (rate, _) in found.items() if rate == pytest.approx(1e-3)}
    assert slow == {name for name in found if name.startswith("backbone.")}


def test_embeddings_and_position_biases_are_not_decayed():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(3, 2)
            self.relative_position_bias_table = nn.Parameter(torch.zeros(3))
            self.linear = nn.Linear(2, 2)

    decays = {name: decay for name, (_, decay) in options(Block()).items()}
    assert decays == {
        "table.weight": 0.0,
        "relative_position_bias_table": 0.0,
        "linear.weight": 0.05,
        "linear.bias": 0.05,
    }


def test_frozen_parameters_are_left_out(make_model: MakeModel):
    backbone = BackboneConfig(name="test_efficientnet", weights="none", frozen=True)
    found = options(make_model(backbone=backbone))
    assert found
    assert not any(name.startswith("backbone.network") for name in found)


def rates(steps: int, warmup: int, start: int = 0) -> list[tuple[float, ...]]:
    """Rates of two groups at the steps `start` ... `steps` - 1, and after the last."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimiser = torch.optim.AdamW(
        [{"params": [p], "lr": lr} for p, lr in zip(parameters, (1.0, 0.1), strict=True)]
    )
    schedule = linear_schedule(optimiser, steps=steps, warmup=warmup, start=start)
    seen = []
    for _ in range(start, steps + 1):
        seen.append(tuple(group["lr"] for group in optimiser.param_groups))
        optimiser.step()
        schedule.step()
    return seen


def test_warmup_then_linear_decay():
    seen = rates(20, 4)
    assert [r for r, _ in seen[:5]] == pytest.approx([0.001, 0.25075, 0.5005, 0.75025, 1.0])
    assert [r for r, _ in seen[4:]] == pytest.approx([1 - i / 16 for i in range(17)])
    assert [b for _, b in seen] == pytest.approx([0.1 * a for a, _ in seen])


@pytest.mark.parametrize(("steps", "warmup"), [(3, 0), (3, 3), (2, 5)])
def test_edge_schedules(steps: int, warmup: int):
    seen = [r for r, _ in rates(steps, warmup)]
    assert all(0 <= r <= 1 for r in seen)
    assert seen[0] == pytest.approx(1e-3 if warmup else 1.0)


@pytest.mark.parametrize("start", [1, 3, 4, 9])
def test_a_resumed_schedule_goes_on(start: int):
    assert rates(10, 4, start) == rates(10, 4)[start:]
