"""The training loop: batches in, a trained model out; progress leaves through callables."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from unispector.errors import TrainingError
from unispector.losses.criterion import Criterion, LossBreakdown
from unispector.modeling.pixel_decoder import token_centres
from unispector.modeling.unispector import TrainingOutput
from unispector.structures import Batch
from unispector.training.monitor import Monitor, SeenPrompts, box_coverage, levels_used
from unispector.training.prompts import commonest_classes, in_batch_prompts

SEED_STRIDE = 1_000_003  # keeps the random streams of (seed, step) pairs apart
MOMENTS = 4  # times in a training that it is looked at closely


class NonFiniteError(TrainingError):
    """A loss or its gradient is no finite number.

    Attributes:
        step: the step it came up in, the first is 1.
        term: what is not finite.
        image_ids: of the step's batch.
    """

    def __init__(self, step: int, term: str, image_ids: tuple[int, ...]) -> None:
        super().__init__(f"step {step}: {term} is not finite, images {list(image_ids)}")
        self.step, self.term, self.image_ids = step, term, image_ids


@dataclass(frozen=True)
class Recipe:
    """The settings of a training step besides the model and the loss."""

    steps: int
    seed: int  # of prompt draws, denoising and selection noise
    max_classes: int | None  # classes of a batch that are prompted, see `commonest_classes`; None = all
    # See `draw_prompts`.
    max_images: int
    cross_image: float
    clip_norm: float  # largest global L2 norm of the gradient
    bf16: bool  # autocast to bfloat16
    # Steps between reports and between checkpoints.
    log_every: int
    save_every: int


@dataclass(frozen=True)
class Callbacks:
    """Callbacks for progress."""

    # Called with the steps done and the figures since the last report, by name: docs/mlflow.md.
    report: Callable[[int, dict[str, float]], None]
    save: Callable[[int], None]  # called with the steps done, whenever a checkpoint is due
    # Called with the steps done and the latest prompts, `MOMENTS` times in a whole training and before the
    # report of the same step. It may use the model, whose mode it leaves as it was.
    look: Callable[[int, SeenPrompts], None]


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
        batches: yields the batch of step `start`, `start + 1`, ...
        optimiser, schedule: of the model's trainable parameters; the schedule already at `start`.

    Raises:
        NonFiniteError: a loss or its gradient is not finite; the weights are those of the step before.
    """
    device = next(model.parameters()).device
    monitor, moments = Monitor(device), _moments(recipe.steps)
    for step in range(start, recipe.steps):
        seed = recipe.seed * SEED_STRIDE + step
        torch.manual_seed(seed)
        with monitor.waiting():
            batch = next(batches)
        batch = batch.to(device)
        losses, seen = _losses(model, criterion, batch, recipe, torch.Generator().manual_seed(seed))
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        _refuse_nan(losses, norm, step, batch)
        optimiser.step()
        schedule.step()
        figures = {"loss/total": losses.total, **losses.terms, "gradient/norm": norm, **seen.figures}
        monitor.step(figures, len(batch.images), seen.embeddings, seen.labels)
        done = step + 1
        if done in moments:
            with monitor.apart():
                callbacks.look(done, monitor.recent())
        if done % recipe.log_every == 0 or done == recipe.steps:
            rates = {f"rate/{group['rate']}": group["lr"] for group in optimiser.param_groups}
            callbacks.report(done, {**monitor.report(), **rates})
        if done % recipe.save_every == 0 and done < recipe.steps:
            with monitor.apart():
                callbacks.save(done)


@dataclass(frozen=True)
class _Seen:
    """The monitored values of a forward pass."""

    figures: dict[str, Tensor]
    embeddings: Tensor  # [N, D] of the batch's prompts
    labels: Tensor  # [N] their data-set classes


def _moments(steps: int) -> frozenset[int]:
    """Steps after which a training of so many is looked at; the last one is among them."""
    return frozenset(-(-steps * part // MOMENTS) for part in range(1, MOMENTS + 1))


def _losses(
    model: nn.Module, criterion: Criterion, batch: Batch, recipe: Recipe, generator: torch.Generator
) -> tuple[LossBreakdown, _Seen]:
    """Forward pass with in-batch prompts, the loss, and what is watched of them."""
    batch = commonest_classes(batch, recipe.max_classes) if recipe.max_classes else batch
    prompts = in_batch_prompts(batch, max_images=recipe.max_images, cross_image=recipe.cross_image)
    columns = prompts.columns
    maps = None if batch.maps is None else tuple(level.float() for level in batch.maps)
    with torch.autocast(batch.images.device.type, dtype=torch.bfloat16, enabled=recipe.bf16):
        result = model(batch.images, batch.prompts, prompts.mixing, columns.targets, maps=maps)
    losses: LossBreakdown = criterion(
        result.output, columns.targets, result.embeddings, columns.prompt_labels, result.level_hw, generator
    )
    labels = columns.classes[columns.prompt_labels]
    return losses, _Seen(_query_figures(result, batch), result.embeddings, labels)


def _query_figures(result: TrainingOutput, batch: Batch) -> dict[str, Tensor]:
    """Return figures on the places of selected queries; none for learned ones."""
    indices = result.output.selection.indices
    if indices is None:
        return {}
    chosen = token_centres(result.level_hw, indices.device)[indices]
    boxes = torch.cat([target.boxes for target in batch.targets])
    return {
        "query/coverage": box_coverage(chosen, batch.prompts.image_index, boxes),
        "query/levels": levels_used(indices, result.level_hw),
    }


def _refuse_nan(losses: LossBreakdown, norm: Tensor, step: int, batch: Batch) -> None:
    """Before the weights change: of a gradient that is not finite they would become useless."""
    # One look at the device for both.
    if bool(torch.stack([losses.total.detach(), norm]).isfinite().all()):
        return
    terms = (f"loss term `{n}`" for n, v in losses.terms.items() if not math.isfinite(float(v)))
    raise NonFiniteError(step + 1, next(terms, "the gradient"), batch.image_ids)
