"""Confidence intervals of a figure: percentile bootstrap over images."""

from dataclasses import dataclass

import numpy as np

from unispector.evaluation.matching import Matches, average_precision_50


@dataclass(frozen=True)
class Interval:
    """Confidence interval of a figure, in percent."""

    low: float
    high: float


def bootstrap_interval(matches: Matches, resamples: int, seed: int, level: float = 0.95) -> Interval:
    """Percentile bootstrap of AP50: as many images as there are, drawn with replacement, again and again.

    A resample in which a class has no instance leaves that class out of its mean, as AP50 itself does; one
    without any instance has no AP50 and is left out.

    Args:
        resamples: how often the images are drawn.
        seed: of the draws; the global random state is neither used nor changed.
        level: share of the resamples that lie inside, between 0 and 1.

    Raises:
        ValueError: there is no resample, or none of them has an instance.
    """
    if resamples < 1:
        raise ValueError(f"an interval needs at least 1 resample, not {resamples}")
    images = len(matches.images)
    draws = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    figures = average_precision_50(matches, draws)
    figures = figures[~np.isnan(figures)]
    if not len(figures):
        raise ValueError(f"none of {resamples} resamples has an instance; draw more")
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high))
