"""Published figures of the benchmark's sets and results on them, to put beside what is measured."""

from dataclasses import dataclass

from unispector.data.statistics import Colour, Moments
from unispector.reporting.model import BoxesMasks

COLOUR_SOURCE = "UniSpector (arXiv 2604.02905), appendix, table 1"
COUNT_SOURCE = "UniSpector (arXiv 2604.02905), appendix 1.1"


@dataclass(frozen=True)
class PublishedSet:
    """The published figures of one set."""

    colour: Colour  # HSV over all pixels (`COLOUR_SOURCE`)
    images: int | None = None  # about how many there are (`COUNT_SOURCE`); None where no number is given
    classes: int | None = None  # how many there are (`COUNT_SOURCE`); None where no number is given


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

RESULTS_SOURCE = "UniSpector (arXiv 2604.02905)"

PUBLISHED_SETS = ("GC10", "MagneticTile", "RealIAD", "MVTec", "3CAD", "VISION", "VisA")
"""Names of the sets in InsA, in the order of the published tables."""

ABLATION_SET = "RealIAD"
"""The set of the published ablation; unseen classes."""


@dataclass(frozen=True)
class PublishedMethod:
    """A method's AP50 in percent on unseen classes."""

    name: str
    tuned: bool  # trained on the benchmark's seen classes; if not, it is used as it was released
    # Of each of `PUBLISHED_SETS`; None where the method gives no boxes or no masks.
    sets: tuple[BoxesMasks, ...]
    mean: BoxesMasks  # over the sets, as it is published


@dataclass(frozen=True)
class PublishedAblation:
    """A line of the ablation on `ABLATION_SET`, in percent."""

    components: str
    boxes: tuple[float, float, float]  # AP, AP50 and AP75
    masks: tuple[float, float]  # AP and AP50


Figures = tuple[float, float, float, float, float, float, float, float]
"""Of each of `PUBLISHED_SETS`, and the published mean."""


def _method(name: str, boxes: Figures | None, masks: Figures | None, tuned: bool = False) -> PublishedMethod:
    nothing = (None,) * 8
    pairs = [BoxesMasks(*pair) for pair in zip(boxes or nothing, masks or nothing, strict=True)]
    return PublishedMethod(name, tuned, tuple(pairs[:7]), pairs[7])


MAIN_TABLE = (
    _method("GroundingDINO", (9.6, 26.7, 0.3, 1.4, 0.0, 0.0, 0.0, 5.4), None),
    _method("GroundingDINO", (8.0, 11.0, 1.2, 18.8, 0.0, 0.0, 0.1, 5.6), None, tuned=True),
    _method(
        "YOLO-World", (7.0, 30.7, 0.3, 2.7, 0.0, 0.3, 1.2, 6.0), (2.1, 28.6, 0.2, 2.4, 0.0, 0.3, 1.2, 5.0)
    ),
    _method(
        "YOLO-World",
        (3.4, 29.8, 21.7, 5.4, 0.0, 0.0, 1.7, 8.9),
        (1.5, 27.5, 16.7, 4.7, 0.0, 0.0, 1.6, 7.4),
        tuned=True,
    ),
    _method("SEEM", None, (0.2, 0.2, 0.0, 0.3, 0.0, 0.0, 0.0, 0.1)),
    _method("SEEM", None, (0.1, 0.6, 0.0, 0.1, 0.0, 0.0, 0.0, 0.1), tuned=True),
    _method("SegGPT", None, (16.0, 20.1, 3.1, 6.8, 1.7, 0.9, 1.7, 7.2)),
    _method("SINE", (0.7, 2.0, 0.6, 4.6, 0.1, 0.7, 0.9, 1.4), (0.5, 2.0, 0.5, 4.4, 0.2, 0.6, 0.9, 1.3)),
    _method(
        "SINE", (0.9, 1.6, 1.2, 4.5, 0.1, 0.6, 1.0, 1.4), (0.9, 1.9, 0.5, 4.1, 0.1, 0.2, 0.8, 1.2), tuned=True
    ),
    _method("DINOv", (3.2, 30.0, 2.2, 19.0, 4.1, 4.3, 8.4, 10.2), (0.8, 26.9, 1.4, 15.0, 2.1, 3.8, 7.0, 8.1)),
    _method(
        "DINOv",
        (16.5, 48.4, 21.0, 15.9, 2.9, 4.6, 10.4, 17.1),
        (16.6, 39.6, 17.5, 15.2, 1.9, 3.8, 8.5, 14.7),
        tuned=True,
    ),
    _method(
        "T-Rex2",
        (32.4, 49.0, 25.1, 24.4, 4.3, 5.4, 7.8, 21.2),
        (33.9, 38.0, 28.8, 22.4, 2.9, 4.3, 6.7, 19.6),
        tuned=True,
    ),
    _method(
        "YOLOE", (1.6, 48.3, 16.6, 26.9, 4.9, 7.2, 14.4, 17.1), (0.4, 45.4, 13.9, 22.7, 2.0, 5.9, 12.2, 14.6)
    ),
    _method(
        "YOLOE",
        (10.7, 43.3, 17.2, 25.8, 3.3, 3.5, 17.7, 17.4),
        (9.5, 41.8, 15.5, 23.9, 1.4, 3.0, 15.3, 15.8),
        tuned=True,
    ),
    _method(
        "UniSpector",
        (38.2, 63.3, 69.1, 53.5, 14.1, 15.3, 32.8, 40.9),
        (36.9, 57.7, 56.7, 46.5, 10.0, 12.5, 27.8, 35.4),
        tuned=True,
    ),
)
"""Open-set detection and segmentation, mean over model seeds and prompt seeds (`RESULTS_SOURCE`)."""

IN_CONTEXT = (
    _method("PerSAM", None, (0.0, 33.0, 0.8, 4.8, 0.1, 0.3, 3.0, 6.0)),
    _method("PerSAM-F", None, (0.1, 34.2, 1.5, 8.7, 0.2, 1.0, 6.0, 7.4), tuned=True),
    _method("VRP-SAM", None, (0.4, 12.5, 22.3, 18.8, 3.2, 4.7, 12.2, 10.6), tuned=True),
)
"""In-context segmentation (`RESULTS_SOURCE`)."""

ABLATION = (
    PublishedAblation("base", (13.6, 24.0, 14.5), (7.7, 20.0)),
    PublishedAblation("+ SSPE", (27.9, 43.0, 31.0), (17.7, 34.8)),
    PublishedAblation("+ SSPE + CPE", (43.8, 65.8, 48.9), (26.0, 53.1)),
    PublishedAblation("+ SSPE + CPE + PQS", (46.3, 69.1, 51.9), (28.9, 56.7)),
)
"""What each part adds on `ABLATION_SET` (`RESULTS_SOURCE`)."""

BLUR_SOURCE = "UniSpector (arXiv 2604.02905), appendix, table 2"
BLUR_LEVELS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
PUBLISHED_BLUR: dict[str, dict[str, tuple[float, ...]]] = {
    "MagneticTile": {
        "bbox.AP50": (64.2, 64.9, 64.1, 63.5, 62.0, 60.1, 57.0),
        "segm.AP50": (38.9, 39.1, 38.8, 37.8, 36.4, 34.3, 31.0),
    },
    "VisA": {
        "bbox.AP50": (32.5, 33.3, 32.0, 30.0, 27.4, 25.8, 23.4),
        "segm.AP50": (28.2, 28.3, 27.6, 26.3, 23.8, 22.3, 20.4),
    },
}
"""AP50 in percent at `BLUR_LEVELS` (`BLUR_SOURCE`), by the set's name in InsA."""
