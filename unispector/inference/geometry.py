"""The geometry of the network's input, whose size follows the marks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from unispector.config.model import ModelConfig
from unispector.data.samples import Frame
from unispector.errors import PromptBankError
from unispector.structures import Targets

CLOSER = ((16.0, 2.0), (56.0, 1.5))
"""A class whose marks have less than so many pixels a side is looked at so many times larger.

Chosen on training classes (reports/training_log.md)."""


@dataclass(frozen=True)
class Geometry(Frame):
    """A model's frame, and how far it grows."""

    magnify: float = 1.0  # most that the input grows for small marks; 1 = never

    @classmethod
    def of(cls, model: ModelConfig) -> Self:
        """The geometry of a configured model."""
        return cls(
            image_size=model.image_size,
            bins=model.spectral.bins,
            spectrum_empty=model.spectral.empty,
            spectrum_min_side=model.spectral.min_side,
            magnify=model.magnify,
        )

    def sized(self, image_size: int) -> Self:
        """The same with another input."""
        return replace(self, image_size=image_size)

    def check(self, image_sizes: Sequence[int]) -> None:
        """Refuse sizes of the input that `input_sizes` never gives.

        Raises:
            PromptBankError: such a size is among them.
        """
        known = {self.image_size, *(self._closer(factor) for _, factor in CLOSER)}
        if strange := sorted(set(image_sizes) - known):
            sizes = ", ".join(map(str, sorted(known)))
            raise PromptBankError(
                f"the prompt bank wants an input of {strange[0]} pixels; this model looks at {sizes}; "
                "build the bank again"
            )

    def sides(self, targets: Targets) -> list[float]:
        """Of each mark in this frame, the root of the share of the image that its bounding box covers."""
        sides = targets.boxes[:, 2:].prod(1).sqrt() * (self.padded_size / self.image_size)
        return [float(side) for side in sides]

    def input_size(self, sides: Sequence[float]) -> int:
        """Side of the input that a class is looked at with; without marks `image_size`.

        Args:
            sides: of its marks, as `sides` gives them.
        """
        if not len(sides) or self.magnify == 1:
            return self.image_size
        # The lower of two middle ones.
        typical = float(torch.tensor(sides, dtype=torch.float64).median()) * self.image_size
        return self._closer(next((factor for below, factor in CLOSER if typical < below), 1.0))

    def _closer(self, factor: float) -> int:
        factor = min(factor, self.magnify)
        return self.image_size if factor == 1 else round(self.image_size * factor / 32) * 32
