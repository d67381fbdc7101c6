"""Figures of marked images: what their prompts find on one another. Advice and reports read them."""

from collections.abc import Mapping
from dataclasses import dataclass

from unispector.config import Roi
from unispector.detections import Detections
from unispector.evaluation.intervals import Interval
from unispector.scores import DEFAULT_SCORE


@dataclass(frozen=True)
class MarkCheck:
    """The check of one mark."""

    id: int
    box_xyxy: tuple[float, float, float, float]  # pixels
    score: float  # of the best detection of its class there, in [0, 1]; 0 = none
    other: str  # the other class that scores best there; empty = none was detected
    other_score: float  # its score; 0 without
    least: float = DEFAULT_SCORE  # score from which `detect` draws the class
    # Score of the best detection that lies inside the mark and covers less than half of it; 0 = none.
    inner_score: float = 0.0

    @property
    def found(self) -> bool:
        """Return whether prompts from the other images find it, so that it is drawn."""
        return self.score >= self.least and self.score > 0

    @property
    def confused(self) -> bool:
        """Return whether another class scores higher."""
        return self.other_score > self.score


@dataclass(frozen=True)
class ImageCheck:
    """One image, looked at with prompts from the others."""

    file_name: str
    marks: tuple[MarkCheck, ...]  # at least one
    detections: Detections  # of the class, those that are drawn

    @property
    def found(self) -> int:
        """The number of its marks that were found."""
        return sum(mark.found for mark in self.marks)


@dataclass(frozen=True)
class Share:
    """Marks found."""

    found: int
    marks: int

    @property
    def percent(self) -> float:
        """Percent of the marks; 0 without any."""
        return 100 * self.found / max(self.marks, 1)


@dataclass(frozen=True)
class Gain:
    """AP50 in percent with one choice of prompts and with another, on the same images."""

    before: float
    after: float
    interval: Interval  # of after - before in points, on other draws of the images

    @property
    def sure(self) -> bool:
        """Return whether the second choice is better, whatever images had been drawn."""
        return self.interval.low > 0


@dataclass(frozen=True)
class ImageFigures:
    """What is known of one marked image; None = not tried, as with too few or too many images."""

    check: ImageCheck | None  # None where no other image prompts
    dropped: Gain | None  # of the other images, when this one's prompts are left out
    alone: Share | None = None  # marks of others that are found with its prompts only ...
    shifted: Share | None = None  # ... with its boxes shifted and scaled, ...
    blurred: Share | None = None  # ... and with its image blurred
    given_back: Share | None = None  # its own marks, found with its own prompts
    cosine: float | None = None  # of its mean embedding with that of all other marks, in [-1, 1]


@dataclass(frozen=True)
class CurvePoint:
    """AP50 with a number of prompt images, on images that are not among them."""

    images: int
    mean: float  # percent, over random choices
    deviation: float  # standard deviation (population) over them


@dataclass(frozen=True)
class ClassFigures:
    """All figures of a class."""

    label: str
    roi: Roi  # kind of marks that prompt
    images: Mapping[str, ImageFigures]  # by file name
    score: float  # from which on a finding counts
    ap50: float | None  # percent, each image looked at with the others' prompts
    curve: tuple[CurvePoint, ...]
    other_roi: Gain | None  # with the other kind of marks; None where the images have but one
    weighed: int  # images that took part in what is quadratic

    @property
    def checks(self) -> tuple[ImageCheck, ...]:
        """The checks of all images that were looked at."""
        return tuple(image.check for image in self.images.values() if image.check is not None)
