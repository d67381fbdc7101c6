"""What a class's scores mean: the share of right findings, and the score from which a finding counts."""

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from unispector.scores import DEFAULT_SCORE

if TYPE_CHECKING:  # a prompt store is listed without the seconds that PyTorch takes
    from torch import Tensor

SURE = 1e-6  # scores are kept this far from 0 and 1, so that their logits stay finite
STEEPEST = 1e4  # slope and offset, which are fitted to far smaller ones
LARGEST = 1 + 1e-6  # threshold; just above 1 where a score of 1 is a false alarm already


@dataclass(frozen=True)
class AlarmBudget:
    """A threshold's false alarms on defect-free images, and what they allow to claim."""

    rate: float  # share of defect-free images that may show a false alarm, as it was asked for
    confidence: float  # of each of the two bounds, between 0 and 1
    good_images: int  # that were looked at
    alarms: int  # of them, those that show a finding with at least the threshold
    low: float  # lower bound of the true share of defect-free images with a false alarm
    high: float  # its upper bound; at most `rate`


@dataclass(frozen=True)
class Calibration:
    """The scores of one class, learned from images of one line."""

    # A score s becomes sigmoid(slope * logit(s) + offset); (1, 0) leaves it as it is.
    slope: float = 1.0  # above 0
    offset: float = 0.0
    right: int = 0  # findings that slope and offset were fitted to, right ones ...
    wrong: int = 0  # ... and wrong ones
    threshold: float = DEFAULT_SCORE  # from this score on, as it is after slope and offset, a finding counts
    budget: AlarmBudget | None = None  # what the threshold was chosen for; None = it was not
    marks: int = 0  # marked defects that prompts from the other images were tried on
    found: int = 0  # of them, those found with at least the threshold

    def __post_init__(self) -> None:
        numbers = (self.slope, self.offset, self.threshold)
        if not all(map(math.isfinite, numbers)) or self.slope <= 0 or not 0 <= self.threshold <= LARGEST:
            raise ValueError(f"a calibration with slope, offset and threshold {numbers}")
        if max(self.slope, abs(self.offset)) > STEEPEST:
            raise ValueError(f"a calibration with slope {self.slope:g} and offset {self.offset:g}")
        counts = (self.right, self.wrong, self.marks, self.found)
        if any(type(count) is not int or count < 0 for count in counts) or self.found > self.marks:
            raise ValueError(f"a calibration of {counts} findings and marks")

    @property
    def as_found(self) -> bool:
        """Return whether scores stay as the model gives them."""
        return (self.slope, self.offset) == (1, 0)

    def apply(self, scores: "Tensor") -> "Tensor":
        """Calibrated scores, in the order of the given ones [n], in [0, 1]."""
        logits = scores.double().clamp(SURE, 1 - SURE).logit()
        return (self.slope * logits + self.offset).sigmoid().to(scores.dtype)

    @property
    def lowest(self) -> float:
        """The score, as the model gives it, from which a finding counts; in [0, 1]."""
        least = min(max(self.threshold, SURE), 1 - SURE)
        logit = (math.log(least / (1 - least)) - self.offset) / self.slope
        return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The calibration as plain lists and dicts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Read the output of `as_dict`.

        Raises:
            ValueError, TypeError, KeyError: it is no such thing.
        """
        budget = content["budget"]
        return cls(**{**content, "budget": AlarmBudget(**budget) if budget is not None else None})
