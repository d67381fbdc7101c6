"""What parts of one kind have in common: numbers drawn once for the kind, moved a little for every part."""

from math import pi

import numpy as np

SPREAD = 0.1  # standard deviation of a part's number about its kind's, as a share of the range


class Lot:
    """Source of the numbers of one part of a kind.

    Attributes:
        rng: the part's own randomness, for all that differs from part to part.
    """

    def __init__(self, kind: np.random.Generator, rng: np.random.Generator) -> None:
        """Draw what is common from `kind`, in the same state for all parts of the kind."""
        self._kind = kind
        self.rng = rng

    def uniform(self, low: float, high: float) -> float:
        """A number in low..high, near the kind's."""
        share = self._kind.random() + SPREAD * self.rng.standard_normal()
        return float(low + (high - low) * np.clip(share, 0, 1))

    def chance(self, probability: float) -> bool:
        """Whether the kind has something that a kind has with `probability`."""
        return bool(self._kind.random() < probability)

    def sign(self) -> int:
        """-1 or 1, the kind's."""
        return -1 if self.chance(0.5) else 1

    def choice(self, names: list[str]) -> str:
        """One of `names`, the kind's."""
        return names[int(self._kind.integers(len(names)))]

    def any_angle(self) -> float:
        """A direction in radians about the kind's, which may be any."""
        return float(self._kind.uniform(0, 2 * pi) + 0.06 * self.rng.standard_normal())

    def mostly_upright(self) -> float:
        """A direction in radians about the kind's: often near an axis, else any."""
        along_axis, axis, free = self._kind.random() < 0.7, self._kind.integers(2), self._kind.uniform(0, pi)
        return float((axis * pi / 2 if along_axis else free) + 0.03 * self.rng.standard_normal())
