"""Thresholds for a false-alarm budget: what a number of defect-free images can prove.

Of n independent images the share of all images whose highest score lies above the k-th highest of the n
follows Beta(k, n + 1 - k), whatever the scores' distribution (Wilks, "Determination of sample sizes for
setting tolerance limits", 1941). A threshold that is chosen on the very images is thus bounded exactly,
which a binomial interval of a threshold given beforehand would not allow.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST = 20  # defect-free images under which no threshold is chosen


@dataclass(frozen=True)
class Bound:
    """The lowest threshold that keeps a budget, and how sure it is."""

    threshold: float  # single precision; a finding with at least this score counts
    alarms: int  # images with such a finding
    low: float  # bounds of the true share of images with one, each with the confidence asked for
    high: float


def images_needed(rate: float, confidence: float) -> int:
    """Return the fewest images, all without an alarm, that prove a share of at most `rate`.

    Args:
        rate: in (0, 1).
        confidence: in (0, 1).
    """
    return max(math.ceil(math.log(1 - confidence) / math.log1p(-rate)), FEWEST)


def provable_rate(images: int, confidence: float) -> float:
    """Return the smallest share of images with an alarm that so many images can prove."""
    return -math.expm1(math.log(1 - confidence) / images)


def lowest_threshold(highest: npt.NDArray[np.floating], rate: float, confidence: float) -> Bound | None:
    """Choose the lowest threshold above which at most the share `rate` of images has a finding.

    Args:
        highest: [n] highest score on each of n independent defect-free images, 0 for one without a finding.
        rate: share of images, in (0, 1).
        confidence: that the bounds hold, in (0, 1).

    Returns:
        The threshold with its bounds; None where n images cannot prove the rate.
    """
    from scipy.special import betaincinv

    images = len(highest)
    if images < images_needed(rate, confidence):
        return None
    falling = np.sort(highest.astype(np.float32))[::-1]
    order = np.arange(1, images + 1)
    bounds = betaincinv(order, images + 1 - order, confidence)
    cut = int(np.flatnonzero(bounds <= rate)[-1])  # rising, and the first one holds
    threshold = float(np.nextafter(falling[cut], np.float32(np.inf)))
    alarms = int(np.count_nonzero(falling >= np.float32(threshold)))
    # Of equal scores the first has the place that counts: no more images lie above it.
    low = betaincinv(alarms + 1, images - alarms, 1 - confidence)
    high = betaincinv(alarms + 1, images - alarms, confidence)
    return Bound(threshold, alarms, float(low), float(high))
