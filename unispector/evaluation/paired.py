"""Two models on the same images: how sure their difference in AP50 is, by a paired bootstrap.

Images are resampled per set, and a resample weighs the images alike for both models and for all draws of
prompts: what makes a set easy or hard for both cancels out, and only their difference is left. What another
training of the same recipes would have given is drawn with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unispector.evaluation.intervals import Interval, resampled
from unispector.evaluation.matching import Floats, Matches, average_precision_50, known_mean


@dataclass(frozen=True)
class JudgedDraw:
    """A model's detections on a set with one draw of prompts."""

    # File name of each image of `matches.images`; draws share those that are targets of both.
    files: tuple[str, ...]
    matches: Matches


def plain_figure(draws: Sequence[JudgedDraw]) -> float:
    """AP50 of a set in percent, the mean over its draws of prompts, at least one."""
    return float(np.mean([average_precision_50(d.matches, np.ones((1, len(d.files)))) for d in draws]))


def resampled_figures(draws: Sequence[JudgedDraw], files: Sequence[str], resamples: int, seed: int) -> Floats:
    """AP50 of a set, the mean over its draws of prompts, as it would be on other images.

    As many images as there are `files` are drawn with replacement. The same files, number of resamples and
    seed give the same images, whatever was found on them.

    Args:
        draws: at least one.
        files: names of the set's images, those of all draws among them, in any order.
        resamples: R.

    Returns:
        [R] percent. A draw of prompts none of whose instances were drawn is left out of the mean; nan where
        that is all of them.
    """
    place = {name: number for number, name in enumerate(sorted(set(files)))}
    weights = resampled(len(place), resamples, seed)
    columns = [[place[name] for name in draw.files] for draw in draws]
    return known_mean(
        [average_precision_50(d.matches, weights[:, own]) for d, own in zip(draws, columns, strict=True)]
    )


def paired_interval(
    challenger: Sequence[Floats], champion: Sequence[Floats], level: float, luck: float = 0.0
) -> Interval:
    """Percentile interval of the difference of two models' means over sets, in points.

    Args:
        challenger, champion: `resampled_figures` of each set, [R] each, in the same order, with equal seeds.
        level: share of the resamples that lie inside, between 0 and 1.
        luck: standard deviation of what training anew adds to the difference, in points: with each resample
            of the images a normal draw of it is added.

    Raises:
        ValueError: there is no set, or no resample in which every set has an instance.
    """
    if not challenger:
        raise ValueError("an interval needs at least one set")
    differences = np.mean(np.stack(challenger) - np.stack(champion), axis=0)
    differences = differences + np.random.default_rng(0).normal(0, luck, len(differences))
    differences = differences[~np.isnan(differences)]
    if not len(differences):
        raise ValueError("in no resample has every set an instance; draw more")
    return Interval.of(differences, level)
