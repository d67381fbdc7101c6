"""In-batch prompting: the images of a training batch prompt one another."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unispector.structures import Targets


@dataclass(frozen=True)
class Columns:
    """A batch whose labels are prompt columns.

    Attributes:
        targets: labels in 0 .. C-1.
        prompt_labels: [N] int64 column of every prompt instance.
        count: C, the classes present in the batch.
    """

    targets: tuple[Targets, ...]
    prompt_labels: Tensor
    count: int


def to_columns(targets: Sequence[Targets], prompt_labels: Tensor) -> Columns:
    """Number the classes of a batch, in the order of their labels, as columns of class logits.

    Args:
        targets: with data-set class indices as labels; each label also occurs in `prompt_labels`.
        prompt_labels: [N] int64 class index of every prompt instance.
    """
    classes, columns = prompt_labels.unique(sorted=True, return_inverse=True)
    mapped = tuple(replace(t, labels=torch.searchsorted(classes, t.labels)) for t in targets)
    return Columns(targets=mapped, prompt_labels=columns, count=len(classes))


def draw_prompts(
    columns: Tensor, image_index: Tensor, *, images: int, classes: int, max_examples: int, cross_image: float
) -> Tensor:
    """Draw which instances form each class's prompt, separately for every target image.

    1 to `max_examples` instances of the class are averaged. With probability `cross_image` they come
    from other images than the target's, where there are any: that is what a prompt is for.

    Args:
        columns: [N] int64 column of each instance.
        image_index: [N] int64 image of each instance.
        images: B.
        classes: C; every column has at least one instance.
        max_examples: instances averaged at most.
        cross_image: probability in [0, 1], drawn per image and class.

    Returns:
        [B, C, N] float32 weights; rows sum to 1.
    """
    device = columns.device
    of_class = (columns[None] == torch.arange(classes, device=device)[:, None]).expand(images, classes, -1)
    elsewhere = of_class & (image_index[None] != torch.arange(images, device=device)[:, None])[:, None]
    only_elsewhere = torch.rand(images, classes, 1, device=device) < cross_image
    allowed = torch.where(only_elsewhere & elsewhere.any(-1, keepdim=True), elsewhere, of_class)
    most = allowed.sum(-1, keepdim=True).clamp(max=max_examples)
    wanted = (torch.rand(images, classes, 1, device=device) * most).floor() + 1
    rank = torch.rand(allowed.shape, device=device).masked_fill(~allowed, 2.0).argsort(-1).argsort(-1)
    chosen = (allowed & (rank < wanted)).float()
    return chosen / chosen.sum(-1, keepdim=True)
