"""In-batch prompting: the images of a training batch, those of all ranks, prompt one another."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from unispector.ops.collectives import gather_rows, own_rows, world
from unispector.structures import Batch, Targets, VisualPrompts

ALL = 0.4
"""Chance that a class is prompted by as many images as may be."""


@dataclass(frozen=True)
class Columns:
    """A batch whose labels are prompt columns."""

    targets: tuple[Targets, ...]  # labels in 0 .. C-1.
    prompt_labels: Tensor  # [N] int64 column of every prompt instance
    classes: Tensor  # [C] data-set class index of every column

    @property
    def count(self) -> int:
        """C, the classes present in the batch."""
        return len(self.classes)


@dataclass(frozen=True)
class InBatchPrompts:
    """The assignment of a batch's images as prompts of one another."""

    columns: Columns  # this rank's targets, and the instances of all ranks, with columns as labels
    mixing: Tensor  # [B, C, N] float32 for this rank's B images, see `draw_prompts`


def commonest_classes(batch: Batch, most: int) -> Batch:
    """Keep the instances of the classes that the most images of all ranks show, and no others.

    What a class costs, the similarity prior pays for every image; an image of many classes must not
    multiply that.

    Args:
        batch: this rank's images; every rank has as many.
        most: classes kept at most; of equally common ones the first.
    """
    image = gather_rows(batch.prompts.image_index + world()[0] * len(batch.images))
    pairs = torch.stack((gather_rows(batch.prompts.labels), image)).unique(dim=1)
    classes, shown = pairs[0].unique(return_counts=True)
    if len(classes) <= most:
        return batch
    kept = classes[shown.argsort(descending=True, stable=True)[:most]]
    own = torch.isin(batch.prompts.labels, kept)
    prompts = VisualPrompts(**{f.name: getattr(batch.prompts, f.name)[own] for f in fields(batch.prompts)})
    targets = tuple(_only(target, torch.isin(target.labels, kept)) for target in batch.targets)
    return replace(batch, prompts=prompts, targets=targets)


def _only(target: Targets, kept: Tensor) -> Targets:
    return Targets(target.labels[kept], target.boxes[kept], target.masks[kept])


def in_batch_prompts(batch: Batch, *, max_images: int, cross_image: float) -> InBatchPrompts:
    """Make every instance of all ranks' batches a prompt, and draw which images prompt a class.

    Columns are the same on every rank. There is one draw for the images of all ranks, from the global
    generator, which all ranks seed alike; each rank keeps the rows of its own images.

    Args:
        batch: this rank's images; every rank has as many.
        max_images, cross_image: see `draw_prompts`.
    """
    rank, size = world()
    images = len(batch.images)
    columns = to_columns(batch.targets, gather_rows(batch.prompts.labels))
    mixing = draw_prompts(
        columns.prompt_labels,
        gather_rows(batch.prompts.image_index + rank * images),
        images=size * images,
        classes=columns.count,
        max_images=max_images,
        cross_image=cross_image,
    )
    return InBatchPrompts(columns=columns, mixing=own_rows(mixing))


def to_columns(targets: Sequence[Targets], prompt_labels: Tensor) -> Columns:
    """Number the classes of a batch, in the order of their labels, as columns of class logits.

    Args:
        targets: with data-set class indices as labels; each label also occurs in `prompt_labels`.
        prompt_labels: [N] int64 class index of every prompt instance.
    """
    classes, columns = prompt_labels.unique(sorted=True, return_inverse=True)
    mapped = tuple(replace(t, labels=torch.searchsorted(classes, t.labels)) for t in targets)
    return Columns(targets=mapped, prompt_labels=columns, classes=classes)


def draw_prompts(
    columns: Tensor, image_index: Tensor, *, images: int, classes: int, max_images: int, cross_image: float
) -> Tensor:
    """Draw which images prompt each class, separately for every target image.

    As in use, all instances of the class on a prompt image are marked. They come from 1 to `max_images`
    images, and with chance `ALL` from as many as that allows, since in use all that there are are given.
    With probability `cross_image` the target's image is not among them, where there are others.

    Args:
        columns: [N] int64 column of each instance.
        image_index: [N] int64 image of each instance.
        classes: C; every column has at least one instance.
        max_images: prompt images of a class at most.
        cross_image: probability in [0, 1], drawn per image and class.

    Returns:
        [B, C, N] float32 weights, equal for all instances that prompt a class; rows sum to 1.
    """
    device = columns.device
    of_class = columns[None] == torch.arange(classes, device=device)[:, None]
    shows = torch.zeros(classes, images, dtype=torch.bool, device=device)
    shows[columns, image_index] = True
    elsewhere = shows & ~torch.eye(images, dtype=torch.bool, device=device)[:, None]
    only_elsewhere = torch.rand(images, classes, 1, device=device) < cross_image
    allowed = torch.where(only_elsewhere & elsewhere.any(-1, keepdim=True), elsewhere, shows)
    most = allowed.sum(-1, keepdim=True).clamp(max=max_images)
    some = (torch.rand(images, classes, 1, device=device) * most).floor() + 1
    wanted = torch.where(torch.rand(images, classes, 1, device=device) < ALL, most, some)
    rank = torch.rand(allowed.shape, device=device).masked_fill(~allowed, 2.0).argsort(-1).argsort(-1)
    drawn = allowed & (rank < wanted)
    chosen = (drawn[..., image_index] & of_class).float()
    return chosen / chosen.sum(-1, keepdim=True)
