"""Published figures of the benchmark's sets, to put beside what is measured."""

from dataclasses import dataclass

from unispector.data.statistics import Colour, Moments

COLOUR_SOURCE = "UniSpector (arXiv 2604.02905), appendix, table 1"
COUNT_SOURCE = "UniSpector (arXiv 2604.02905), appendix 1.1"


@dataclass(frozen=True)
class PublishedSet:
    """What is published of one set.

    Attributes:
        colour: HSV over all pixels (`COLOUR_SOURCE`).
        images: about how many there are (`COUNT_SOURCE`); None where no number is given.
        classes: how many there are (`COUNT_SOURCE`); None where no number is given.
    """

    colour: Colour
    images: int | None = None
    classes: int | None = None


def _colour(*moments: tuple[float, float]) -> Colour:
    return Colour(*(Moments(mean, deviation) for mean, deviation in moments))


PUBLISHED = {
    "GC10": PublishedSet(_colour((0.0, 0.0), (0.0, 0.0), (85.7, 39.6)), images=2300, classes=10),
    "MagneticTile": PublishedSet(_colour((0.0, 0.0), (0.0, 0.0), (109.4, 47.4)), images=400, classes=5),
    "RealIAD": PublishedSet(_colour((33.4, 49.5), (40.6, 65.7), (110.2, 105.5))),
    "MVTec": PublishedSet(_colour((46.7, 55.1), (46.0, 47.8), (120.5, 66.7))),
    "3CAD": PublishedSet(_colour((7.2, 19.2), (16.7, 49.0), (78.6, 70.5)), classes=46),
    "VISION": PublishedSet(_colour((25.2, 41.1), (38.4, 70.7), (106.3, 83.3)), classes=44),
    "VisA": PublishedSet(_colour((47.7, 36.4), (95.7, 71.9), (101.9, 66.1))),
}
"""By the set's name in InsA; sets of other names have no published figures."""
