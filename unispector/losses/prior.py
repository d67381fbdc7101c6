"""The loss of the similarity prior's class masks."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unispector.losses.instances import Instances
from unispector.ops.collectives import mean_over_ranks
from unispector.prior_structures import PriorMaps

FOCAL, PRESENCE, ABSENT = 20.0, 0.3, 0.3  # weights beside the dice of classes that an image shows
FOREGROUND = 0.75  # weight of a marked cell in the focal part, to 1 - FOREGROUND of another
SMOOTHING, ABSENT_SMOOTHING = 1.0, 500.0  # cells added in the dice; the prior may err by few where nothing is


def class_masks(instances: Instances, classes: int, side: int) -> Tensor:
    """Share of each cell that an instance of a class covers at most: [B, C, side, side] float32 in [0, 1].

    Args:
        instances: ground truth of B images.
        classes: number C of prompt columns.
        side: cells along each side of the padded frame.
    """
    images = len(instances.counts)
    own = F.adaptive_avg_pool2d(instances.masks[:, None], side)[:, 0]
    index = (instances.image * classes + instances.labels)[:, None, None].expand_as(own)
    unions = own.new_zeros(images * classes, side, side).scatter_reduce(0, index, own, "amax")
    return unions.view(images, classes, side, side)


def prior_loss(maps: PriorMaps, instances: Instances) -> Tensor:
    """Focal and dice loss of class masks, and cross-entropy of presence, summed with fixed weights.

    Most (image, class) pairs show nothing; their dice, more smoothed, keeps the prior quiet there.

    Args:
        maps: of B images and C classes.
        instances: ground truth of the images.

    Returns:
        Scalar. Its mean over ranks is the loss of their images in one batch.
    """
    logits = maps.logits.float()
    truth = class_masks(instances, logits.shape[1], logits.shape[-1])
    shown = (truth.flatten(2).amax(2) > 0).float()
    probabilities = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    weight = torch.where(truth > 0.5, FOREGROUND, 1 - FOREGROUND) * (truth - probabilities).abs()
    focal = (weight * entropy).mean()
    dice = _dice(probabilities, truth, SMOOTHING)
    quiet = _dice(probabilities, truth, ABSENT_SMOOTHING)
    count, absent = (mean_over_ranks(int(n.sum()), logits.device) for n in (shown, 1 - shown))
    presence = F.binary_cross_entropy_with_logits(maps.presence.float(), shown)
    return (
        FOCAL * focal
        + (dice * shown).sum() / count
        + ABSENT * (quiet * (1 - shown)).sum() / absent
        + PRESENCE * presence
    )


def _dice(probabilities: Tensor, truth: Tensor, smoothing: float) -> Tensor:
    """[B, C] dice losses."""
    both = (probabilities * truth).flatten(2).sum(2)
    either = probabilities.flatten(2).sum(2) + truth.flatten(2).sum(2)
    return 1 - (2 * both + smoothing) / (either + smoothing)
