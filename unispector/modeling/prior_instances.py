"""Instances that the similarity prior sees by itself: the connected parts of its class masks.

A mask is cut at several probabilities. Of parts that overlap, the one whose outline depends least on where
the mask is cut is kept, as maximally stable extremal regions are (Matas et al., BMVC 2002).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unispector.ops.components import components
from unispector.ops.mask_runs import OUTSIDE, FloatArray, IntArray
from unispector.ops.rle import BoolArray

CUTS = (0.3, 0.5, 0.7)  # probabilities at which a mask is cut
RISE = 0.12  # a part is as stable as the share of it that is still there when cut so much higher
MOST = 30  # parts of a class in one image, the best first
LEAST_CELLS = 4  # a smaller part is noise
OVERLAP = 0.5  # box IoU from which on two parts are the same thing


@dataclass(frozen=True)
class PriorInstances:
    """The n parts of one image.

    Attributes:
        labels: [n] int64 class of each.
        scores: [n] float32 in [0, 1]: mean probability times the root of the stability times the
            probability that the image shows the class at all.
        logits: [n, h, w] float32, above 0 where the part is; the other parts of the class are taken out.
        windows: [n, 4] first row, first column, last row and last column, both excluded, of the cells
            around a part.
    """

    labels: IntArray
    scores: FloatArray
    logits: FloatArray
    windows: IntArray


@dataclass(frozen=True)
class _Part:
    """One part of a class's mask: where its crop lies, at which cut, and how good it is."""

    cut: float
    crop: BoolArray
    left: int
    top: int
    score: float


def prior_instances(logits: Tensor, presence: Tensor, covered: int) -> PriorInstances:
    """Cut the class masks of one image into parts.

    Args:
        logits: [C, h, w] that a cell shows a class.
        presence: [C] logits that the image does.
        covered: cells along each side that hold image, not padding.
    """
    maps = logits.float().cpu().numpy()
    probabilities = logits.float().sigmoid().cpu().numpy()
    shown = presence.float().sigmoid().cpu().numpy()
    found = [
        (label, part)
        for label in range(len(maps))
        for part in _best(list(_parts(probabilities[label, :covered, :covered])))
    ]
    labels = np.array([label for label, _ in found], dtype=np.int64)
    alone = [_alone(maps[label], part) for label, part in found]
    return PriorInstances(
        labels=labels,
        scores=np.array([part.score for _, part in found], dtype=np.float32) * shown[labels],
        logits=np.stack(alone) if alone else np.zeros((0, *maps.shape[1:]), np.float32),
        windows=np.array([_window(part, maps.shape[1:]) for _, part in found], dtype=np.int64).reshape(-1, 4),
    )


def _parts(probabilities: FloatArray) -> Iterator[_Part]:
    """All parts of one class at all cuts."""
    for cut in CUTS:
        for crop, left, top in components(probabilities > cut):
            if crop.sum() < LEAST_CELLS:
                continue
            own = probabilities[top : top + crop.shape[0], left : left + crop.shape[1]][crop]
            stability = (own >= cut + RISE).mean()
            yield _Part(cut, crop, left, top, float(own.mean() * math.sqrt(stability)))


def _best(parts: list[_Part]) -> list[_Part]:
    """The best of overlapping parts, best first."""
    from torchvision.ops import nms

    if not parts:
        return []
    corners = [(p.left, p.top, p.left + p.crop.shape[1], p.top + p.crop.shape[0]) for p in parts]
    scores = torch.tensor([part.score for part in parts])
    kept = nms(torch.tensor(corners, dtype=torch.float32), scores, OVERLAP)
    return [parts[i] for i in kept[:MOST].tolist() if parts[i].score > 0]


def _alone(own: FloatArray, part: _Part) -> FloatArray:
    """A class's logits relative to the part's cut, with all positive ones but the part's taken out."""
    level = own - np.float32(math.log(part.cut / (1 - part.cut)))
    place = np.zeros(own.shape, dtype=np.bool_)
    place[part.top : part.top + part.crop.shape[0], part.left : part.left + part.crop.shape[1]] = part.crop
    return np.where(place | (level <= 0), level, OUTSIDE)


def _window(part: _Part, hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The part's cells and those around it, which bound it."""
    high, wide = part.crop.shape
    return (
        max(part.top - 1, 0),
        max(part.left - 1, 0),
        min(part.top + high + 1, hw[0]),
        min(part.left + wide + 1, hw[1]),
    )
