"""Instances that the similarity prior sees by itself: the connected parts of its class masks."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unispector.ops.components import components
from unispector.ops.mask_runs import OUTSIDE, FloatArray, IntArray

MOST = 30  # parts of a class in one image, the surest first
LEAST_CELLS = 4  # a smaller part is noise


@dataclass(frozen=True)
class PriorInstances:
    """The n parts of one image.

    Attributes:
        labels: [n] int64 class of each.
        presence: [n] float32 probability that the image shows the class at all.
        logits: [n, h, w] float32 mask logits, those of the other parts of the class taken out.
        windows: [n, 4] first row, first column, last row and last column, both excluded, of the cells
            around a part.
    """

    labels: IntArray
    presence: FloatArray
    logits: FloatArray
    windows: IntArray


def prior_instances(logits: Tensor, presence: Tensor, covered: int) -> PriorInstances:
    """Cut the class masks of one image into parts.

    Args:
        logits: [C, h, w] that a cell shows a class.
        presence: [C] logits that the image does.
        covered: cells along each side that hold image, not padding.
    """
    maps = logits.float().cpu().numpy()
    found: list[tuple[int, FloatArray, tuple[int, int, int, int]]] = []
    for label, own in enumerate(maps):
        positive = np.zeros(own.shape, dtype=np.bool_)
        positive[:covered, :covered] = own[:covered, :covered] > 0
        parts = []
        for crop, left, top in components(positive):
            if crop.sum() >= LEAST_CELLS:
                high, wide = crop.shape
                sureness = float(own[top : top + high, left : left + wide][crop].sum())
                parts.append((sureness, crop, left, top))
        for _, crop, left, top in sorted(parts, key=lambda part: -part[0])[:MOST]:
            found.append((label, *_alone(own, crop, left, top)))
    shown = presence.float().sigmoid().cpu().numpy()
    labels = np.array([label for label, *_ in found], dtype=np.int64)
    return PriorInstances(
        labels=labels,
        presence=shown[labels],
        logits=np.stack([own for _, own, _ in found])
        if found
        else np.zeros((0, *maps.shape[1:]), np.float32),
        windows=np.array([window for *_, window in found], dtype=np.int64).reshape(-1, 4),
    )


def _alone(
    own: FloatArray, crop: np.ndarray, left: int, top: int
) -> tuple[FloatArray, tuple[int, int, int, int]]:
    """A class's logits with all positive ones but the part's taken out, and the cells around the part."""
    high, wide = crop.shape
    part = np.zeros(own.shape, dtype=np.bool_)
    part[top : top + high, left : left + wide] = crop
    window = (
        max(top - 1, 0),
        max(left - 1, 0),
        min(top + high + 1, own.shape[0]),
        min(left + wide + 1, own.shape[1]),
    )
    return np.where(part | (own <= 0), own, OUTSIDE), window
