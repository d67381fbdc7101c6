"""The training loop: batches in, a trained model out; progress leaves through callables."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from unispector.errors import TrainingError
from unispector.losses.criterion import Criterion, LossBreakdown
from unispector.structures import Batch
from unispector.training.prompts import draw_prompts, to_columns

SEED_STRIDE = 1_000_003  # keeps the random streams of (seed, step) pairs apart


@dataclass(frozen=True)
class Recipe:
    """What a step does besides the model and the loss.

    Attributes:
        steps: optimiser steps in all.
        seed: of prompt draws, denoising and selection noise.
        max_examples, cross_image: see `draw_prompts`.
        clip_norm: largest global L2 norm of the gradient.
        bf16: autocast to bfloat16.
        log_every, save_every: steps between reports and between checkpoints.
    """

    steps: int
    seed: int
    max_examples: int
    cross_image: float
    clip_norm: float
    bf16: bool
    log_every: int
    save_every: int


@dataclass(frozen=True)
class Callbacks:
    """Where progress goes.

    Attributes:
        report: called with (steps done, mean losses, rate, gradient norm, images a second).
        save: called with the steps done, whenever a checkpoint is due.
    """

    report: Callable[[int, dict[str, float]], None]
    save: Callable[[int], None]


def fit(
    model: nn.Module,
    criterion: Criterion,
    batches: Iterator[Batch],
    optimiser: AdamW,
    schedule: LambdaLR,
    recipe: Recipe,
    callbacks: Callbacks,
    start: int = 0,
) -> None:
    """Train from step `start` to `recipe.steps`.

    Every step's randomness depends on (seed, step) alone, so that a resumed run repeats an
    undisturbed one bit for bit on the same CPU.

    Args:
        model: the detector (or its data-parallel wrapper), on its device, in training mode.
        criterion: the loss.
        batches: yields the batch of step `start`, `start + 1`, ...
        optimiser, schedule: of the model's trainable parameters; the schedule already at `start`.
        recipe: the rest.
        callbacks: where progress goes.
        start: steps already done.

    Raises:
        TrainingError: a loss is not finite; names the step, the term and the images.
    """
    device = next(model.parameters()).device
    sums: dict[str, float] = {}
    taken, images, since = 0, 0, time.monotonic()
    for step in range(start, recipe.steps):
        seed = recipe.seed * SEED_STRIDE + step
        torch.manual_seed(seed)
        batch = next(batches).to(device)
        losses = _losses(model, criterion, batch, recipe, torch.Generator().manual_seed(seed))
        _refuse_nan(losses, step, batch)
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        schedule.step()
        for name, value in {**losses.terms, "total": losses.total.detach(), "gradient_norm": norm}.items():
            sums[name] = sums.get(name, 0.0) + float(value)
        taken, images = taken + 1, images + len(batch.images)
        done = step + 1
        if done % recipe.log_every == 0 or done == recipe.steps:
            means = {name: value / taken for name, value in sums.items()}
            now = time.monotonic()
            rate = images / max(now - since, 1e-9)
            callbacks.report(
                done, {**means, "learning_rate": optimiser.param_groups[0]["lr"], "images_per_second": rate}
            )
            sums, taken, images, since = {}, 0, 0, now
        if done % recipe.save_every == 0 and done < recipe.steps:
            callbacks.save(done)


def _losses(
    model: nn.Module, criterion: Criterion, batch: Batch, recipe: Recipe, generator: torch.Generator
) -> LossBreakdown:
    """Forward pass with in-batch prompts, and the loss."""
    columns = to_columns(batch.targets, batch.prompts.labels)
    mixing = draw_prompts(
        columns.prompt_labels,
        batch.prompts.image_index,
        images=len(batch.images),
        classes=columns.count,
        max_examples=recipe.max_examples,
        cross_image=recipe.cross_image,
    )
    with torch.autocast(batch.images.device.type, dtype=torch.bfloat16, enabled=recipe.bf16):
        result = model(batch.images, batch.prompts, mixing, columns.targets)
    losses: LossBreakdown = criterion(
        result.output, columns.targets, result.embeddings, columns.prompt_labels, result.level_hw, generator
    )
    return losses


def _refuse_nan(losses: LossBreakdown, step: int, batch: Batch) -> None:
    if math.isfinite(float(losses.total.detach())):
        return
    term = next((n for n, v in losses.terms.items() if not math.isfinite(float(v))), "total")
    raise TrainingError(
        f"step {step}: loss term `{term}` is not finite, images {list(batch.image_ids)}; "
        "lower train.learning_rate or check these images' annotations"
    )
