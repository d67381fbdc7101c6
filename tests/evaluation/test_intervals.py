"""Bootstrap intervals against a plain loop over the same draws, and against the normal approximation."""

import numpy as np
import pytest

from made_up_evaluation import make_matches
from unispector.evaluation.intervals import Interval, bootstrap_interval
from unispector.evaluation.matching import Matches


def matches_of(images, classes=2):
    """Matches of images given as lists of (class, score of the detection that finds it, -inf = missed).

    A wrong detection with a slightly lower score goes with each that finds something.
    """
    truth = [(score, label, place) for place, rows in enumerate(images) for label, score in rows]
    found = [(*one, row, False) for row, one in enumerate(truth) if np.isfinite(one[0])]
    found += [(score - 0.03125, label, place, -1, False) for score, label, place, *_ in found]
    rows = sorted(found, key=lambda row: row[2])
    return make_matches(rows, truth, np.arange(len(images)) + 10, [f"class {n}" for n in range(classes)])


def slow_ap50(images, weights, classes=2):
    """AP50 of `matches_of` the images, each as often as its weight; None without an instance."""
    figures = []
    for label in range(classes):
        drawn = [
            score
            for rows, times in zip(images, weights, strict=True)
            for score in [score for one, score in rows if one == label] * times
        ]
        if drawn:
            ranked = [(score, True) for score in drawn if np.isfinite(score)]
            ranked = sorted(ranked + [(score - 0.03125, False) for score, _ in ranked], reverse=True)
            right = np.cumsum([hit for _, hit in ranked])
            curve = [(r / len(drawn), r / n) for n, r in enumerate(right, start=1)]
            points = [max((p for r, p in curve if r >= k * 0.01), default=0) for k in range(101)]
            figures.append(100 * sum(points) / 101)
    return sum(figures) / len(figures) if figures else None


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_it_is_the_quantiles_of_a_plain_loop_over_the_same_draws(level):
    rng = np.random.default_rng(5)
    images = [[], [], [(0, 0.875)], [(1, -np.inf)]]
    scores = iter(rng.permutation(np.arange(40)) / 16)  # all apart, also from those of the wrong ones
    images += [[(int(label), float(next(scores))) for label in rng.integers(0, 2, 2)] for _ in range(3)]
    images[4].append((0, -np.inf))
    draws = np.random.default_rng(8).multinomial(len(images), [1 / len(images)] * len(images), size=300)
    figures = [slow_ap50(images, draw) for draw in draws]
    figures = [figure for figure in figures if figure is not None]
    low, high = np.percentile(figures, [50 * (1 - level), 50 * (1 + level)])
    assert 0 < low < high
    interval = bootstrap_interval(matches_of(images), resamples=300, seed=8, level=level)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)


def test_a_resample_without_a_class_or_without_any_instance_leaves_it_out():
    # The draws are (2, 0), (1, 1) or (0, 2) images: class 0 alone gives 100, class 1 alone 0, both 50.
    interval = bootstrap_interval(matches_of([[(0, 0.5)], [(1, -np.inf)]]), resamples=200, seed=0)
    assert interval == Interval(0, 100)
    empty = bootstrap_interval(matches_of([[(0, 0.5), (1, -np.inf)], []]), resamples=200, seed=0)
    assert empty == Interval(50, 50)


def test_perfect_detections_leave_no_doubt():
    images = [[(0, 0.5 + n / 8)] for n in range(4)]
    sure = matches_of(images)
    sure = Matches(**{**vars(sure), "ignored": sure.instance < 0})
    assert bootstrap_interval(sure, resamples=100, seed=0) == Interval(100, 100)


def test_the_width_is_that_of_a_share_and_falls_with_the_root_of_the_images():
    widths = {}
    for images in (100, 400):
        half = [[(0, 0.5)] if n % 2 else [(0, -np.inf)] for n in range(images)]
        matches = matches_of(half)
        matches = Matches(**{**vars(matches), "ignored": matches.instance < 0})
        # With no false alarm AP50 is the recall, a share of independent images.
        interval = bootstrap_interval(matches, resamples=2000, seed=1)
        widths[images] = interval.high - interval.low
        assert widths[images] == pytest.approx(2 * 1.96 * 100 * np.sqrt(0.25 / images), rel=0.12)
        assert interval.low < 50 < interval.high
    assert widths[100] / widths[400] == pytest.approx(2, rel=0.15)


def test_the_seed_alone_decides():
    images = [[(n % 2, n / 16)] for n in range(9)] + [[(0, -np.inf), (1, -np.inf)]]
    matches = matches_of(images)
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    first = bootstrap_interval(matches, resamples=50, seed=3)
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(1)
    assert bootstrap_interval(matches, resamples=50, seed=3) == first
    assert bootstrap_interval(matches, resamples=50, seed=4) != first


@pytest.mark.parametrize("resamples", [0, -1])
def test_without_resamples_there_is_no_interval(resamples):
    with pytest.raises(ValueError, match="at least 1 resample"):
        bootstrap_interval(matches_of([[(0, 0.5)]]), resamples=resamples, seed=0)


def test_resamples_that_all_miss_the_instances_are_refused():
    matches = matches_of([[(0, 0.5)]] + [[]] * 9)
    seed = next(s for s in range(99) if not np.random.default_rng(s).multinomial(10, [0.1] * 10)[0])
    with pytest.raises(ValueError, match="none of 1 resamples"):
        bootstrap_interval(matches, resamples=1, seed=seed)
