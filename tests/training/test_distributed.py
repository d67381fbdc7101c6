"""Two processes with half a batch each do what one process does with the whole batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from unispector.losses.criterion import Criterion
from unispector.modeling.unispector import UniSpectorModel
from unispector.ops.collectives import gather_rows, mean_over_ranks, own_rows, uniform_rows
from unispector.structures import Batch
from unispector.training.job import _parallel
from unispector.training.loop import Callbacks, Recipe, fit
from unispector.training.optim import build_optimiser, linear_schedule
from unispector.training.prompts import InBatchPrompts, in_batch_prompts
from unispector.training.ray_trainer import WorkerGroup

pytestmark = pytest.mark.slow

Labels = tuple[tuple[int, ...], ...]
RECIPE = Recipe(
    steps=2,
    seed=7,
    max_classes=None,
    max_images=4,
    cross_image=0.5,
    clip_norm=math.inf,
    bf16=False,
    log_every=2,
    save_every=9,
)
FULL: Labels = ((0, 5), (5,), (9, 0, 5), (9,))
# Variant, terms of the loss that are off, and the labels of four images, of which the first process gets two.
CASES: dict[str, tuple[str, tuple[str, ...], Labels]] = {
    "full": ("unispector", (), FULL),
    "nothing on the second": ("unispector", (), ((5, 0), (5,), (), ())),
    "nothing on the first": ("unispector", (), ((), (), (0,), (5, 0))),
    "terms switched off": ("unispector", ("contrastive", "relevance", "prior", "candidates"), FULL),
    "base": ("base", ("contrastive",), FULL),
}
ROWS = {"both": (3, 2), "none on the second": (2, 0), "none on the first": (0, 4), "none": (0, 0)}
SHAPES: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
    "labels": ((), torch.int64),
    "vectors": ((4,), torch.float64),
    "maps": ((2, 3), torch.float32),
    "half": ((4,), torch.bfloat16),
}


@dataclass(frozen=True)
class Step:
    """What a process comes to in two steps at rate 0: mean loss, the last gradient, the prompts."""

    total: float
    gradients: dict[str, Tensor]
    prompts: InBatchPrompts


@dataclass(frozen=True)
class Task:
    model: UniSpectorModel
    criterion: Criterion
    halves: tuple[Batch, Batch]


def take_steps(model: UniSpectorModel, parallel: nn.Module, criterion: Criterion, batch: Batch) -> Step:
    totals: list[float] = []
    optimiser = build_optimiser(model, learning_rate=0.0, backbone_rate=0.5, weight_decay=0.05)
    fit(
        parallel,
        criterion,
        iter([batch, batch]),
        optimiser,
        linear_schedule(optimiser, steps=2, warmup=0, start=0),
        RECIPE,
        Callbacks(
            report=lambda step, figures: totals.append(figures["loss/total"]),
            save=lambda step: None,
            look=lambda step, prompts: None,
        ),
    )
    torch.manual_seed(5)
    return Step(
        total=totals[0],
        gradients={n: p.grad for n, p in model.named_parameters() if p.grad is not None},
        prompts=in_batch_prompts(batch, max_images=4, cross_image=1.0),
    )


def rows_of(counts: tuple[int, int], shape: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """The rows of both ranks; numbers that every dtype holds exactly."""
    generator = torch.Generator().manual_seed(sum(counts))
    return [torch.randint(100, (n, *shape), generator=generator).to(dtype) for n in counts]


def gathered(
    rank: int, counts: tuple[int, int], shape: tuple[int, ...], dtype: torch.dtype
) -> tuple[Any, ...]:
    """Gathered rows and the gradient of `sum((rank + 1) * position * row^2)` over the gathered ones."""
    rows = rows_of(counts, shape, dtype)[rank]
    if not dtype.is_floating_point:
        return gather_rows(rows), None
    rows.requires_grad_()
    everything = gather_rows(rows)
    weights = torch.arange(len(everything)).view(-1, *[1] * len(shape)) * (rank + 1)
    (weights * everything**2).sum().backward()
    return everything.detach(), rows.grad


def one_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(minutes=3),  # a collective that one rank leaves out fails, and does not hang
    )
    tasks = torch.load(folder / "tasks.pt", weights_only=False)
    steps = {}
    for name, task in tasks.items():
        parallel = _parallel(task.model, WorkerGroup(rank, 2, rank))
        steps[name] = take_steps(task.model, parallel, task.criterion, task.halves[rank])
    torch.manual_seed(3)
    told = {
        "steps": steps,
        "gathered": {
            (rows, kind): gathered(rank, ROWS[rows], *SHAPES[kind]) for rows in ROWS for kind in SHAPES
        },
        "mean": mean_over_ranks(rank + 4, torch.device("cpu")),
        "mean of nothing": mean_over_ranks(0, torch.device("cpu")),
        "uniform": uniform_rows(torch.zeros(3, 2)),
        "own": own_rows(torch.arange(6)),
    }
    torch.save(told, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@dataclass(frozen=True)
class Outcome:
    alone: dict[str, Step]
    ranks: tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture(scope="module")
def outcome(
    tmp_path_factory: pytest.TempPathFactory,
    make_model: Callable[..., UniSpectorModel],
    draw_batch: Callable[..., Batch],
    criterion: Criterion,
) -> Outcome:
    """Every case as one process and as two."""
    folder = tmp_path_factory.mktemp("ranks")
    tasks, alone = {}, {}
    with torch.random.fork_rng():
        for name, (variant, off, labels) in CASES.items():
            torch.manual_seed(0)
            weights = replace(criterion.weights, **dict.fromkeys(off, 0.0))
            model = trainable(make_model(variant, image_size=96))
            halves = draw_batch(*labels[:2], side=96), draw_batch(*labels[2:], first_id=3, side=96)
            tasks[name] = Task(model, Criterion(weights, scale=30, margin=0.5, points=64), halves)
        torch.save(tasks, folder / "tasks.pt")
        for name, (_, _, labels) in CASES.items():
            model = tasks[name].model
            alone[name] = take_steps(model, model, tasks[name].criterion, draw_batch(*labels, side=96))
    multiprocessing.spawn(one_rank, args=(folder,), nprocs=2)
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]
    return Outcome(alone, (ranks[0], ranks[1]))


def trainable(model: UniSpectorModel) -> UniSpectorModel:
    """Nothing starts at zero, which would hold back gradients; batch norms keep their statistics."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process(outcome: Outcome, case: str):
    alone, ranks = outcome.alone[case], [told["steps"][case] for told in outcome.ranks]
    assert sum(step.total for step in ranks) / 2 == pytest.approx(alone.total, rel=1e-5)
    length = torch.stack([gradient.norm() for gradient in alone.gradients.values()]).norm()
    assert length > 1
    for step in ranks:
        assert step.gradients.keys() == alone.gradients.keys()
        for name, expected in alone.gradients.items():
            # Some parameters have no effect but by rounding: a bias before a norm.
            error = (step.gradients[name] - expected).norm()
            assert error < 2e-4 * expected.norm() + 1e-5 * length, name


@pytest.mark.parametrize("case", CASES)
def test_columns_and_draws_are_those_of_one_process(outcome: Outcome, case: str):
    alone = outcome.alone[case].prompts
    ranks = [told["steps"][case].prompts for told in outcome.ranks]
    for prompts in ranks:
        assert prompts.columns.count == alone.columns.count
        assert torch.equal(prompts.columns.prompt_labels, alone.columns.prompt_labels)
    assert torch.equal(torch.cat([prompts.mixing for prompts in ranks]), alone.mixing)
    targets = [target.labels.tolist() for prompts in ranks for target in prompts.columns.targets]
    assert targets == [target.labels.tolist() for target in alone.columns.targets]


def test_another_image_is_found_on_another_rank(outcome):
    # Class 0 is the first instance of image 0 and the second of image 2, and nowhere else.
    first, second = (told["steps"]["full"].prompts.mixing for told in outcome.ranks)
    assert first[0, 0].tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert second[0, 0].tolist() == [1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("rows", ROWS)
def test_rows_are_gathered_in_rank_order_and_gradients_summed(outcome: Outcome, rows: str, kind: str):
    shape, dtype = SHAPES[kind]
    parts = rows_of(ROWS[rows], shape, dtype)
    found = [told["gathered"][rows, kind] for told in outcome.ranks]
    for everything, _ in found:
        assert everything.dtype == dtype
        assert torch.equal(everything, torch.cat(parts))
    if dtype.is_floating_point:
        whole = torch.cat(parts).requires_grad_()
        weights = torch.arange(len(whole)).view(-1, *[1] * len(shape)) * (1 + 2)
        (weights * whole**2).sum().backward()
        torch.testing.assert_close(torch.cat([gradient for _, gradient in found]), whole.grad)


def test_counts_and_random_rows(outcome: Outcome):
    ranks = outcome.ranks
    assert [told["mean"] for told in ranks] == [4.5, 4.5]
    assert [told["mean of nothing"] for told in ranks] == [0.5, 0.5]
    assert [told["own"].tolist() for told in ranks] == [[0, 1, 2], [3, 4, 5]]
    torch.manual_seed(3)
    assert torch.equal(torch.cat([told["uniform"] for told in ranks]), torch.rand(6, 2))


def test_alone_nothing_is_exchanged():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows
    assert torch.equal(own_rows(rows), rows)
    assert mean_over_ranks(0, rows.device) == 1
    torch.manual_seed(3)
    drawn = uniform_rows(rows)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand_like(rows))
