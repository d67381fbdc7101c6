"""Marks of what is not the defect: they lower the score of findings that look more like them than the class.

A finding's cells are compared with the class's marks and with the negatives by the finest features of the
similarity prior. What is found, its box and its mask stay as they are. As part of the prior's attention,
where a negative can also reshape masks, it helped some training classes more and cost others their true
finds (reports/negatives.md).
"""

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

HEAD_START = 0.08  # cosine by which a class's own marks may be less alike than its negatives, unpunished
STEEPNESS = 20.0  # logits that a finding loses for each unit of cosine beyond
"""Both chosen on eleven training classes (reports/negatives.md)."""


@dataclass(frozen=True)
class Negatives:
    """What the classes of a pass are, and what they are not; on the network's device."""

    # Of each class that has negatives, by its number: unit vectors [1, n, D] in its marks and its negatives.
    classes: dict[int, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, bank: PromptBank, device: torch.device) -> Self:
        """Those of a bank; without any, nothing is lowered."""
        classes: dict[int, tuple[Tensor, Tensor]] = {}
        if bank.memory is not None and bank.negatives is not None:
            for label in sorted(set(bank.negative_owners)):
                sides = (
                    cells[[place for place, owner in enumerate(owners) if owner == label]]
                    for cells, owners in (
                        (bank.memory.inside[0], bank.owners),
                        (bank.negatives, bank.negative_owners),
                    )
                )
                own, other = (cells.flatten(0, 1)[None].float().to(device) for cells in sides)
                classes[label] = own, other
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
        level = features.prior.levels[0][row].float()
        cells, scores = level.flatten(1).T[None], found.scores.clone()
        for label, (own, other) in self.classes.items():
            rows = (found.labels == label).nonzero().flatten().tolist()
            if rows:
                likeness = (nearest(cells, other) - nearest(cells, own))[0, 0].view(level.shape[1:])
                shares = torch.stack([_share(found, i, likeness, features.valid) for i in rows])
                alike = (shares.to(likeness.device) * likeness).sum((1, 2)).cpu()
                logits = scores[rows].double().clamp(SURE, 1 - SURE).logit()
                lowered = (logits - STEEPNESS * (alike + HEAD_START).clamp(min=0)).sigmoid().float()
                scores[rows] = torch.where(alike > -HEAD_START, lowered, scores[rows])
        return found.ranked(scores)


def _share(found: Detections, number: int, likeness: Tensor, valid: float) -> Tensor:
    """[h, w] share of a detection's mask that lies in each cell; sums to 1."""
    high, wide = likeness.shape
    inner = max(round(high * valid), 1), max(round(wide * valid), 1)
    mask = decode_rle(found.masks_rle[number]).astype(np.float32)
    small = cv2.resize(mask, (inner[1], inner[0]), interpolation=cv2.INTER_AREA)
    if not small.any():  # thinner than a float can tell; its box's middle stands for it
        left, top, right, bottom = (found.boxes_xyxy[number] / 2).tolist()
        row, column = (top + bottom) / mask.shape[0] * inner[0], (left + right) / mask.shape[1] * inner[1]
        small[min(int(row), inner[0] - 1), min(int(column), inner[1] - 1)] = 1
    share = torch.zeros(high, wide)
    share[: inner[0], : inner[1]] = torch.from_numpy(small / small.sum())
    return share
