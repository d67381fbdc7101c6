"""Numbers of one class: near one another, in range, and the same for the same class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unispector.data.mini.alike import LEAST_SPAN, SPREADS, Alike


def alike(seed: int, spread: float) -> Alike:
    found = Alike(np.random.default_rng(seed))
    found._spread = spread
    return found


# What is drawn, and the smallest and largest number it may be.
CALLS = {
    "random": (lambda rng: rng.random(), 0, 1),
    "uniform": (lambda rng: rng.uniform(-3, 5), -3, 5),
    "integers": (lambda rng: rng.integers(2, 12), 2, 11),
    "end": (lambda rng: rng.integers(7), 0, 6),
    "choice": (lambda rng: rng.choice([10, 20, 30, 40]), 10, 40),
    "weighted": (lambda rng: rng.choice([1, 2, 3], p=[0.7, 0.3, 0.0]), 1, 2),
    "count": (lambda rng: rng.choice(6), 0, 5),
}


def drawn(look: Alike, call: str, count: int = 300) -> np.ndarray:
    """The first number that each of many instances draws."""
    first = CALLS[call][0]
    return np.array([first(look.numbers(np.random.default_rng(n))) for n in range(count)], np.float64)


@pytest.mark.parametrize("call", CALLS)
def test_a_class_draws_numbers_near_one_another_and_in_range(call: str):
    _, low, high = CALLS[call]
    middles, spreads = [], []
    for seed in range(25):
        numbers = drawn(alike(seed, 0.06), call)
        assert low <= numbers.min() <= numbers.max() <= high
        middles.append(numbers.mean())
        spreads.append(numbers.std())
    # Most of what differs differs between classes.
    assert np.mean(spreads) < 0.6 * np.std(middles)


@pytest.mark.parametrize("spread", SPREADS)
def test_the_spread_is_that_of_the_class(spread: float):
    """Where no end of the range is near."""
    seed = next(
        n for n in range(1000) if abs(alike(n, 0.0).numbers(np.random.default_rng(0)).random() - 0.5) < 0.01
    )
    numbers = drawn(alike(seed, spread), "random", 4000)
    expected = np.abs(np.random.default_rng(1).normal(0.5, spread, 200_000)) % 2
    expected = np.minimum(expected, 2 - expected)
    assert numbers.std() == pytest.approx(expected.std(), rel=0.05)


def test_the_nth_number_is_near_the_classs_nth_and_arrays_are_free():
    look, again = (alike(3, 0.0) for _ in range(2))
    one, other = look.numbers(np.random.default_rng(0)), again.numbers(np.random.default_rng(1))
    for _ in range(5):
        assert one.random() == other.random()
        assert one.uniform(2, 4) == other.uniform(2, 4)
        assert not np.array_equal(one.uniform(0, 1, 3), other.uniform(0, 1, 3))
        assert not np.array_equal(one.normal(size=4), other.normal(size=4))
        assert not np.array_equal(one.random(4), other.random(4))
    assert len({look.numbers(np.random.default_rng(0)).random() for _ in range(3)}) == 1


def test_a_whole_range_is_drawn_evenly_over_classes():
    numbers = [drawn(alike(seed, 0.06), "random", 1)[0] for seed in range(2000)]
    counts = np.histogram(numbers, bins=5, range=(0, 1))[0]
    assert counts.min() > 320


@settings(max_examples=50)
@given(seed=st.integers(0, 10**6), smallest=st.floats(0.01, 0.5), ratio=st.floats(1, 40))
def test_sizes_are_a_part_of_the_range_that_is_wide_enough(seed: int, smallest: float, ratio: float):
    low, high = Alike(np.random.default_rng(seed)).sizes(smallest, smallest * ratio)
    assert smallest * (1 - 1e-9) <= low <= high <= smallest * ratio * (1 + 1e-9)
    assert np.log(high / low) >= LEAST_SPAN * np.log(ratio) - 1e-9
