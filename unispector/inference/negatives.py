"""Marks of what is not the defect: they lower the score of findings that look more like them than the class.

A finding's cells are compared with the class's marks and with the negatives, by the features that the
similarity prior compares. What is found, its box and its mask stay as they are. How much more a finding may
look like a negative is learned from the class's own marks, each compared with those on the other images:
what is no worse than the worst of them keeps its score. Other ways were tried (reports/negatives.md): in the
prior's attention, negatives reshape masks and cost true finds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import torch
from torch import Tensor

from unispector.detections import Detections
from unispector.inference.calibration import SURE
from unispector.inference.prompt_bank import PromptBank
from unispector.modeling.prior.comparison import nearest
from unispector.ops.rle import decode_rle
from unispector.structures import ImageFeatures

STEEPNESS = 20.0
"""Logits that a finding loses for each unit of cosine; chosen on training classes (reports/negatives.md)."""


@dataclass(frozen=True)
class _Opposed:
    """What one class is, and what it is not."""

    own: tuple[Tensor, ...]  # of each level, unit vectors [n, m_l, D_l] in its marks on n images
    other: tuple[Tensor, ...]  # the same in its negatives
    least: float  # mean cosine by which cells may be nearer to the negatives without a loss


@dataclass(frozen=True)
class Negatives:
    """What the classes of a pass are, and what they are not; on the network's device."""

    classes: dict[int, _Opposed]  # by number; those without negatives are left out

    @classmethod
    def of(cls, bank: PromptBank, device: torch.device) -> Self:
        """Those of a bank; without any, nothing is lowered."""
        classes: dict[int, _Opposed] = {}
        inside = bank.memory.inside if bank.memory is not None else ()
        for label in sorted(set(bank.negative_owners)):
            own, other = (
                tuple(level[[owner == label for owner in owners]].float().to(device) for level in levels)
                for levels, owners in ((inside, bank.owners), (bank.negatives, bank.negative_owners))
            )
            classes[label] = _Opposed(own, other, _least(own, other))
        return cls(classes)

    def lower(self, found: Detections, features: ImageFeatures, row: int) -> Detections:
        """The detections with lowered scores, best first.

        Args:
            found: of one image.
            features: of the images of a pass.
            row: number of the image among them.
        """
        if not self.classes or features.prior is None or not len(found):
            return found
        scores = found.scores.clone()
        for label, opposed in self.classes.items():
            rows = (found.labels == label).nonzero().flatten().tolist()
            if rows:
                levels = [level[row : row + 1].float() for level in features.prior.levels]
                nearer = _nearer(found, rows, levels, opposed, features.valid) - opposed.least
                logits = scores[rows].double().clamp(SURE, 1 - SURE).logit()
                lowered = (logits - STEEPNESS * nearer).sigmoid().float()
                scores[rows] = torch.where(nearer > 0, lowered, scores[rows])
        return found.ranked(scores)


def _least(own: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The most that cells in a class's marks are nearer to its negatives than to its other images' marks.

    The largest mean of an image; 0 where the class has one image only, which nothing can be compared with.
    """
    if len(own[0]) == 1:
        return 0.0
    means = []
    for image in range(len(own[0])):
        rest = [place for place in range(len(own[0])) if place != image]
        differences = [
            _best(level[image : image + 1], against) - _best(level[image : image + 1], level[rest])
            for level, against in zip(own, other, strict=True)
        ]
        means.append(sum(float(difference.mean()) for difference in differences) / len(differences))
    return max(means)


def _nearer(
    found: Detections, rows: Sequence[int], levels: Sequence[Tensor], opposed: _Opposed, valid: float
) -> Tensor:
    """[n] mean cosine by which the cells in masks are nearer to the negatives than to the class's marks.

    Args:
        rows: n detections.
        levels: features of the image [1, D_l, h_l, w_l].
        valid: share of the frame's side that holds image.
    """
    total = torch.zeros(len(rows))
    masks = [decode_rle(found.masks_rle[row]).astype(np.float32) for row in rows]
    for level, own, other in zip(levels, opposed.own, opposed.other, strict=True):
        cells = level.flatten(2).transpose(1, 2)
        likeness = (_best(cells, other) - _best(cells, own)).view(level.shape[-2:])
        shares = torch.stack([_share(mask, (level.shape[-2], level.shape[-1]), valid) for mask in masks])
        total += (shares.to(likeness.device) * likeness).sum((1, 2)).cpu()
    return total / len(levels)


def _best(cells: Tensor, known: Tensor) -> Tensor:
    """[T] best cosine of cells [1, T, D] to any of [n, m, D]."""
    return nearest(cells, known)[0].amax(0)


def _share(mask: np.ndarray, hw: tuple[int, int], valid: float) -> Tensor:
    """[h, w] share of a mask, float32 of the image's size, that lies in each cell; sums to 1."""
    high, wide = (max(round(side * valid), 1) for side in hw)
    small = cv2.resize(mask, (wide, high), interpolation=cv2.INTER_AREA)
    share = torch.zeros(hw)
    share[:high, :wide] = torch.from_numpy(small / max(small.sum(), np.finfo(np.float32).tiny))
    return share
