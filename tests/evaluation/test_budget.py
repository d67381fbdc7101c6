"""Thresholds for a false-alarm budget."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.evaluation.budget import FEWEST, images_needed, lowest_threshold, provable_rate


def chance_of_fewer(k: int, n: int, share: float) -> float:
    """That fewer than k of n images lie in the highest `share` of all: a binomial sum."""
    return sum(math.comb(n, i) * share**i * (1 - share) ** (n - i) for i in range(k))


@pytest.mark.parametrize(("rate", "needed"), [(1 / 200, 598), (1 / 100, 299), (0.05, 59), (0.5, FEWEST)])
def test_how_many_images_are_needed(rate, needed):
    """(1 - rate)^n <= 5 %, as in tables of tolerance limits."""
    assert images_needed(rate, 0.95) == needed
    if needed > FEWEST:
        assert (1 - rate) ** needed <= 0.05 < (1 - rate) ** (needed - 1)


def test_the_rate_that_so_many_images_can_prove_is_proved_by_no_fewer():
    for images in (20, 59, 300):
        assert (1 - provable_rate(images, 0.95)) ** images == pytest.approx(0.05)


@given(
    st.lists(st.floats(0, 1, width=32), min_size=FEWEST, max_size=150),
    st.floats(0.05, 0.6),
    st.sampled_from([0.8, 0.9, 0.95]),
)
@settings(deadline=None)
def test_the_lowest_threshold_that_keeps_the_budget_is_chosen(highest, rate, confidence):
    bound = lowest_threshold(np.array(highest), rate, confidence)
    n = len(highest)
    falling = sorted(map(np.float32, highest), reverse=True)
    # The k-th highest may be the threshold where the share above it is at most `rate` with the confidence.
    allowed = [k for k in range(1, n + 1) if 1 - chance_of_fewer(k, n, rate) >= confidence - 1e-9]
    if not allowed:
        assert bound is None
        return
    assert bound is not None
    assert bound.threshold == np.nextafter(falling[allowed[-1] - 1], np.float32(2))
    assert bound.alarms == sum(score >= bound.threshold for score in falling)
    assert bound.low < bound.high <= rate + 1e-9
    assert 1 - chance_of_fewer(bound.alarms + 1, n, bound.high) == pytest.approx(confidence, abs=1e-6)
    assert 1 - chance_of_fewer(bound.alarms + 1, n, bound.low) == pytest.approx(1 - confidence, abs=1e-6)


def test_the_claim_holds_as_often_as_it_says():
    """Of many lines with scores of any distribution, at least 95 % keep the claim on all their images."""
    draw, kept = np.random.default_rng(1), []
    for _ in range(600):
        highest = draw.random(100) ** 3
        bound = lowest_threshold(highest, 0.05, 0.95)
        assert bound is not None
        kept.append(1 - bound.threshold ** (1 / 3) <= 0.05)
    assert 0.93 <= np.mean(kept) <= 0.99


def test_too_few_images_prove_nothing():
    assert lowest_threshold(np.zeros(58), 0.05, 0.95) is None
    assert lowest_threshold(np.zeros(59), 0.05, 0.95) is not None
    assert lowest_threshold(np.zeros(19), 0.9, 0.95) is None


def test_a_false_alarm_with_a_score_of_one_leaves_no_score_that_counts():
    bound = lowest_threshold(np.ones(30), 0.2, 0.95)
    assert bound is not None
    assert bound.threshold > 1
    assert bound.alarms == 0
