"""The terms of eq. (1) as pure functions; each is a sum that the caller's `count` normalises."""

import torch
from torch import Tensor
from torch.nn import functional

from unispector.ops.boxes import cxcywh_to_xyxy, paired_giou

FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


def focal_loss(logits: Tensor, targets: Tensor, count: float) -> Tensor:
    """Sigmoid focal loss, alpha 0.25 and gamma 2.

    There is no background column: a query without an instance has a target row of zeros.

    Args:
        logits: [..., C] any range.
        targets: [..., C] 0 or 1.
        count: what the sum is divided by.

    Returns:
        Scalar.
    """
    probability = logits.sigmoid()
    missing = probability + targets - 2 * probability * targets
    alpha = 1 - FOCAL_ALPHA + (2 * FOCAL_ALPHA - 1) * targets
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (alpha * missing**FOCAL_GAMMA * entropy).sum() / count


def quality_focal_loss(logits: Tensor, targets: Tensor, count: float) -> Tensor:
    """Focal loss with soft targets: cross-entropy weighted by the squared distance |t - p|^2.

    Args:
        logits: [...] any range.
        targets: [...] in [0, 1].
        count: what the sum is divided by.

    Returns:
        Scalar.
    """
    distance = targets - logits.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (distance.abs() ** FOCAL_GAMMA * entropy).sum() / count


def box_loss(boxes: Tensor, targets: Tensor, count: float) -> Tensor:
    """Sum of absolute differences of [n, 4] cxcywh boxes, divided by `count`."""
    return (boxes - targets).abs().sum() / count


def giou_loss(boxes: Tensor, targets: Tensor, count: float) -> Tensor:
    """Sum of 1 - generalised IoU of [n, 4] cxcywh boxes, pair by pair, divided by `count`."""
    return (1 - paired_giou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(targets))).sum() / count


def mask_loss(logits: Tensor, targets: Tensor, count: float) -> Tensor:
    """Binary cross-entropy of masks at their points.

    Args:
        logits: [n, R] sampled mask logits.
        targets: [n, R] sampled masks in [0, 1].
        count: what the sum over masks (of the mean over points) is divided by.

    Returns:
        Scalar.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return entropy.sum() / (logits.shape[1] * count)


def dice_loss(logits: Tensor, targets: Tensor, count: float) -> Tensor:
    """Dice loss 1 - (2 sum(pt) + 1) / (sum(p) + sum(t) + 1) of masks at their points.

    Args:
        logits: [n, R] sampled mask logits.
        targets: [n, R] sampled masks in [0, 1].
        count: what the sum over masks is divided by.

    Returns:
        Scalar.
    """
    probability = logits.sigmoid()
    overlap = torch.einsum("nr,nr->n", probability, targets)
    return (1 - (2 * overlap + 1) / (probability.sum(1) + targets.sum(1) + 1)).sum() / count
