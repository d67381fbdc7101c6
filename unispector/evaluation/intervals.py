"""Confidence intervals of a figure: percentile bootstrap over images."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from unispector.evaluation.matching import Floats, Integers, Matches, average_precision_50


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a figure, in percent."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Floats, level: float) -> Self:
        """The percentiles between which the share `level` of the values lies."""
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return cls(float(low), float(high))


def resampled(images: int, resamples: int, seed: int) -> Integers:
    """[R, I] how often each image was drawn, of as many as there are, with replacement.

    The global random state is neither used nor changed.
    """
    shares = np.full(images, 1 / images)
    return np.random.default_rng(seed).multinomial(images, shares, size=resamples)


def bootstrap_interval(matches: Matches, resamples: int, seed: int, level: float = 0.95) -> Interval:
    """Percentile bootstrap of AP50: as many images as there are, drawn with replacement, again and again.

    A resample in which a class has no instance leaves that class out of its mean, as AP50 itself does; one
    without any instance has no AP50 and is left out.

    Args:
        resamples: how often the images are drawn.
        level: share of the resamples that lie inside, between 0 and 1.

    Raises:
        ValueError: there is no resample, or none of them has an instance.
    """
    if resamples < 1:
        raise ValueError(f"an interval needs at least 1 resample, not {resamples}")
    figures = average_precision_50(matches, resampled(len(matches.images), resamples, seed))
    figures = figures[~np.isnan(figures)]
    if not len(figures):
        raise ValueError(f"none of {resamples} resamples has an instance; draw more")
    return Interval.of(figures, level)
