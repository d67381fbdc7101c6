"""What the defects of one class of a drawn set have in common: a class is one way of going wrong.

A painter of insa-mini draws every number anew, so that a family shows all that it can look like. On one line,
most defects of a class resemble one another.
"""

from typing import Any

import numpy as np

SPREADS = (0.06, 0.15, 0.4)  # standard deviation of a number about its class's, as a share of the range
LEAST_SPAN = 0.35  # share of a family's sizes, on a log scale, that a class has at least
SPAN = 1.6  # of the sizes, relative to the spread


class Alike:
    """The looks of a class: numbers drawn once for it, and how far its defects depart from them."""

    def __init__(self, rng: np.random.Generator) -> None:
        """Draw a class."""
        self._seed = int(rng.integers(2**31))
        self._spread = float(rng.choice(SPREADS))
        self._place = float(rng.random())

    def numbers(self, rng: np.random.Generator) -> np.random.Generator:
        """A source like `rng` whose n-th single number lies near the class's n-th; arrays are free."""
        return _Near(np.random.default_rng(self._seed), self._spread, rng)

    def sizes(self, smallest: float, largest: float) -> tuple[float, float]:
        """The part of a range of sizes that the class has."""
        low, whole = np.log(smallest), np.log(largest / smallest)
        span = min(max(LEAST_SPAN, SPAN * self._spread), 1.0) * whole
        start = low + self._place * (whole - span)
        return float(np.exp(start)), float(np.exp(start + span))


class _Near(np.random.Generator):
    """A generator whose single numbers follow another's with a spread; see `Alike.numbers`."""

    def __init__(self, kind: np.random.Generator, spread: float, rng: np.random.Generator) -> None:
        super().__init__(rng.bit_generator)
        self._kind, self._spread = kind, spread

    def _share(self) -> float:
        """A number in [0, 1) near the class's, reflected at the ends."""
        share = abs(self._kind.random() + self._spread * super().standard_normal()) % 2
        return float(min(share, 2 - share, 1 - 1e-9))

    def random(self, size: Any = None, *_: Any, **__: Any) -> Any:
        return self._share() if size is None else super().random(size)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        if size is not None or np.ndim(low) or np.ndim(high):
            return super().uniform(low, high, size)
        return low + (high - low) * self._share()

    def integers(self, low: Any, high: Any = None, *_: Any, **__: Any) -> Any:
        first, end = (0, low) if high is None else (low, high)
        return first + int((end - first) * self._share())

    def choice(self, a: Any, *_: Any, p: Any = None, **__: Any) -> Any:
        values = np.arange(a) if isinstance(a, int) else np.asarray(a)
        shares = np.full(len(values), 1 / len(values)) if p is None else np.asarray(p)
        return values[min(int(np.searchsorted(np.cumsum(shares), self._share(), "right")), len(values) - 1)]
