"""Targets for the token scores that PQS selects by: the classes that each vision token shows."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from unispector.losses.instances import Instances


def relevance_targets(instances: Instances, classes: int, level_hw: Sequence[tuple[int, int]]) -> Tensor:
    """Soft target of every token for every class.

    A cell's target is twice the share that the union of the class's masks covers, at most 1: a half-covered
    cell is a full positive. The cell an instance covers most is set to 1 on every level, so that no
    instance is lost on a coarse one.

    Args:
        instances: ground truth of B images.
        classes: number C of prompt columns.
        level_hw: (height, width) of the levels in the order of the tokens.

    Returns:
        [B, T, C] float32 in [0, 1].
    """
    images, masks = len(instances.counts), instances.masks
    groups, group = (instances.image * classes + instances.labels).unique(return_inverse=True)
    index = group[:, None, None].expand_as(masks)
    unions = masks.new_zeros(len(groups), *masks.shape[1:]).scatter_reduce(0, index, masks, "amax")
    targets = masks.new_zeros(images * classes, sum(h * w for h, w in level_hw))
    targets[groups] = torch.cat([_level(unions, masks, group, hw) for hw in level_hw], dim=1)
    return targets.reshape(images, classes, -1).transpose(1, 2)


def _level(unions: Tensor, masks: Tensor, group: Tensor, hw: tuple[int, int]) -> Tensor:
    """[groups, h * w] targets of one level."""
    target = (2 * functional.adaptive_avg_pool2d(unions, hw)).clamp(max=1).flatten(1)
    best = functional.adaptive_avg_pool2d(masks, hw).flatten(1).argmax(dim=1)
    target[group, best] = 1
    return target
