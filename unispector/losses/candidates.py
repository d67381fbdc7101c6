"""The loss of the candidate head: are its scores true, do its boxes and masks end where the instances do?"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unispector.losses.instances import Instances
from unispector.ops.boxes import cxcywh_to_xyxy, paired_giou, paired_iou, pairwise_iou
from unispector.ops.collectives import mean_over_ranks
from unispector.ops.windows import GRID, crop, windows
from unispector.prior_structures import JudgedCandidates

TRUE = 0.5  # IoU from which on a finding is true, as AP50 counts
NEAR = 0.1  # box IoU from which on a candidate is drawn towards an instance
PIECE = 0.7  # share of a candidate within an instance from which on it is a piece of it, however small ...
LEAST_PIECE = 0.02  # ... but for this IoU
BOX_BETA = 0.2  # change of a box up to which its loss is squared


@dataclass(frozen=True)
class CandidateTerms:
    """Terms of the candidate head's loss, scalars."""

    # Cross-entropy of the two scores with whether box and mask, as drawn now, are true; the mean over all
    # candidates, so that a score is a probability.
    score: Tensor
    box: Tensor  # generalised IoU and relative distance of boxes that are drawn towards an instance
    mask: Tensor  # dice and cross-entropy of their masks


def candidate_loss(judged: JudgedCandidates, classes: int, instances: Instances) -> CandidateTerms:
    """Judge the judge.

    Args:
        judged: candidates of B images and `classes` classes.
        classes: number C of prompt columns.
        instances: ground truth of the images.
    """
    device = judged.scores.device
    instance = assigned(judged, classes, instances)
    near = (instance >= 0).nonzero().flatten()
    boxes, masks, box_loss, mask_loss = _drawn(judged, near, instances, instance[near])
    truth = torch.zeros_like(judged.scores)
    truth[near, 0], truth[near, 1] = (boxes >= TRUE).float(), (masks >= TRUE).float()
    entropy = F.binary_cross_entropy_with_logits(judged.scores, truth, reduction="sum")
    everything, drawn = (mean_over_ranks(n, device) for n in (len(judged), len(near)))
    return CandidateTerms(
        score=entropy / everything, box=box_loss.sum() / drawn, mask=mask_loss.sum() / drawn
    )


@torch.no_grad()
def assigned(judged: JudgedCandidates, classes: int, instances: Instances) -> Tensor:
    """The instance that each candidate is drawn towards: [n] int64, -1 for none.

    It is the one of the same image and class with the largest box IoU, if that is `NEAR`, or if the
    candidate is a `PIECE` of it.
    """
    candidates = judged.candidates
    if not len(instances) or not len(candidates):
        return torch.full_like(candidates.map, -1)
    own, truth = cxcywh_to_xyxy(candidates.boxes), cxcywh_to_xyxy(instances.boxes)
    inner = torch.minimum(own[:, None, 2:], truth[:, 2:]) - torch.maximum(own[:, None, :2], truth[:, :2])
    within = inner.clamp(min=0).prod(-1) / candidates.boxes[:, None, 2:].prod(-1).clamp(min=1e-8)
    same = candidates.map[:, None] == instances.image * classes + instances.labels
    iou, best = pairwise_iou(own, truth).masked_fill(~same, -1.0).max(1)
    share = within.gather(1, best[:, None])[:, 0]
    drawn = (iou >= NEAR) | ((iou >= LEAST_PIECE) & (share >= PIECE))
    return torch.where(drawn, best, -1)


def _drawn(
    judged: JudgedCandidates, near: Tensor, instances: Instances, instance: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """IoU of boxes and masks as drawn, and both losses, of the candidates `near`: four times [m]."""
    candidates = judged.candidates
    before, after = candidates.boxes[near], judged.boxes[near]
    truth = instances.boxes[instance]
    corners, true_corners = cxcywh_to_xyxy(after), cxcywh_to_xyxy(truth)
    distance = F.smooth_l1_loss(
        _change(before, after), _change(before, truth), reduction="none", beta=BOX_BETA
    )
    box_loss = 1 - paired_giou(corners, true_corners) + distance.mean(1)
    pooled = F.avg_pool2d(instances.masks[:, None], 2)
    window = windows(before, pooled.shape[-1])
    wanted = crop(pooled, instance, window, GRID)[:, 0]
    logits = judged.masks[near]
    probabilities = logits.sigmoid()
    both = (probabilities * wanted).sum((1, 2))
    dice = 1 - (2 * both + 1) / (probabilities.sum((1, 2)) + wanted.sum((1, 2)) + 1)
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean((1, 2))
    with torch.no_grad():
        # What of an instance lies outside of the window counts as missed.
        cell = ((window[:, 2:] - window[:, :2]) * pooled.shape[-1] / GRID).prod(1)
        drawn = (logits > 0).float()
        common = (drawn * wanted).sum((1, 2)) * cell
        union = drawn.sum((1, 2)) * cell + pooled.sum((1, 2, 3))[instance] - common
        mask_iou = common / union.clamp(min=1)
        box_iou = paired_iou(corners, true_corners)
    return box_iou, mask_iou, box_loss, dice + entropy


def _change(before: Tensor, after: Tensor) -> Tensor:
    """From boxes to boxes, both cxcywh [m, 4]: shift in sides, log of the sides' ratio."""
    shift = (after[:, :2] - before[:, :2]) / before[:, 2:]
    return torch.cat((shift, (after[:, 2:] / before[:, 2:]).log()), dim=1).clamp(-2, 2)
