"""What parts of one kind have in common: numbers drawn once for the kind, moved a little for every part."""

from math import pi

import numpy as np

SPREAD = 0.1  # standard deviation of a part's number about its kind's, as a share of the range


class Kind:
    """Source of the numbers of one part of a kind; `rng` is the part's own randomness."""

    def __init__(self, common: np.random.Generator, rng: np.random.Generator) -> None:
        """Draw what is common from `common`, in the same state for all parts of the kind."""
        self._common = common
        self.rng = rng

    def uniform(self, low: float, high: float) -> float:
        """A number in low..high, near the kind's."""
        share = self._common.random() + SPREAD * self.rng.standard_normal()
        return float(low + (high - low) * np.clip(share, 0, 1))

    def chance(self, probability: float) -> bool:
        """Whether the kind has something that a kind has with `probability`."""
        return bool(self._common.random() < probability)

    def choice(self, names: list[str]) -> str:
        """One of `names`, the kind's."""
        return names[int(self._common.integers(len(names)))]

    def any_angle(self) -> float:
        """A direction in radians about the kind's, which may be any."""
        return float(self._common.uniform(0, 2 * pi) + 0.06 * self.rng.standard_normal())

    def mostly_upright(self) -> float:
        """A direction in radians about the kind's: often near an axis, else any."""
        along_axis, axis = self._common.random() < 0.7, self._common.integers(2)
        free = self._common.uniform(0, pi)
        return float((axis * pi / 2 if along_axis else free) + 0.03 * self.rng.standard_normal())
