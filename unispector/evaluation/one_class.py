"""One class at a time: figures of a detector that looks for a single class from a few prompt images.

A row is one class with one draw of prompts. Means are taken over the classes of a draw first, so that the
spread over draws is that of the whole set.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unispector.evaluation.ground_truth import GroundTruth, Overlaps, best_overlaps
from unispector.evaluation.matching import Matches
from unispector.evaluation.results import Spread

BIN_EDGES = tuple(tenth / 10 for tenth in range(11))
"""Bounds of the bins of a reliability table."""

Figure = Literal["box_ap50", "mask_ap50", "box_fit_50", "box_fit_80", "half_score", "false_alarms"]


@dataclass(frozen=True)
class ScoreBin:
    """Findings by score."""

    # A finding's score lies in [low, high); the last bin has its end too.
    low: float
    high: float
    findings: int  # detections on targets, at most 100 of an image
    true: int  # those that found an instance at box IoU 0.5


@dataclass(frozen=True)
class DrawRow:
    """One class with one draw of prompts, and figures as further attributes."""

    class_name: str
    prompt_seed: int


class DrawnFigures:
    """Figures of classes and draws of prompts; one row for each class and prompt seed."""

    rows: tuple[DrawRow, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes in the order of the rows."""
        return tuple(dict.fromkeys(row.class_name for row in self.rows))

    def of_class(self, class_name: str, figure: str) -> Spread | None:
        """Mean and spread over the draws of a figure such as `box_ap50` or `masks.recall`; or None."""
        return _spread([_figure_of(row, figure) for row in self.rows if row.class_name == class_name])

    def mean(self, figure: str) -> Spread | None:
        """Mean over the classes of a draw, then mean and spread over the draws; None where none has it."""
        draws: dict[int, list[float | None]] = {}
        for row in self.rows:
            draws.setdefault(row.prompt_seed, []).append(_figure_of(row, figure))
        means = [_spread(values) for values in draws.values()]
        return _spread([None if spread is None else spread.mean for spread in means])


@dataclass(frozen=True)
class ClassRow(DrawRow):
    """One class with one draw of prompts; the class is prompted and looked for alone."""

    prompt_images: int
    prompts: int
    targets: int
    possible_targets: int  # images that could have been: all that show the class and are no prompts
    instances: int
    box_ap50: float  # percent
    mask_ap50: float | None  # percent; None = the set has boxes only
    # Percent of the marked instances whose box some detection on the prompt image itself gives back, at IoU
    # 0.5 and 0.8.
    box_fit_50: float
    box_fit_80: float
    # Score from which on half of the targets' instances are found (boxes, IoU 0.5); None = fewer than half
    # are found at all.
    half_score: float | None
    # Detections a defect-free image with at least `half_score`; None without such a score or such images.
    false_alarms: float | None
    seconds: tuple[float, ...]  # processor time of each target, all threads together
    bins: tuple[ScoreBin, ...]


@dataclass(frozen=True)
class DetectorFigures(DrawnFigures):
    """All rows of one detector on one set."""

    name: str
    fingerprint: str  # of the model; empty for a detector without one
    rows: tuple[ClassRow, ...]

    def having(self, figure: Figure) -> int:
        """Rows that have a figure."""
        return sum(getattr(row, figure) is not None for row in self.rows)

    @property
    def seconds(self) -> float:
        """Median processor time of an image."""
        return float(np.median([second for row in self.rows for second in row.seconds]))

    @property
    def bins(self) -> tuple[ScoreBin, ...]:
        """Reliability over all rows."""
        columns = zip(*(row.bins for row in self.rows), strict=True)
        return tuple(
            ScoreBin(
                bins[0].low,
                bins[0].high,
                sum(bin_.findings for bin_ in bins),
                sum(bin_.true for bin_ in bins),
            )
            for bins in columns
        )


@dataclass(frozen=True)
class SkippedClass:
    """A class that cannot be measured, and why."""

    class_name: str
    reason: str


@dataclass(frozen=True)
class FailureImage:
    """An image of a false alarm or a miss."""

    file: str
    class_name: str
    image: str
    note: str


@dataclass(frozen=True)
class OneClassReport:
    """A set measured one class at a time."""

    data_set: str
    roi: Literal["box", "mask"]
    prompt_images: int  # images marked a class, at most
    target_limit: int  # targets judged a class, at most
    good_images: int  # defect-free images looked at for each row
    # The model first, then what it is compared with; all had the same prompts and targets.
    detectors: tuple[DetectorFigures, ...]
    skipped: tuple[SkippedClass, ...]
    pictures: tuple[FailureImage, ...] = ()


def box_fit(truth: GroundTruth, overlaps: Mapping[int, Overlaps], iou: float) -> float:
    """Percent of the instances whose box some detection overlaps by at least `iou`, crowds left out.

    Args:
        iou: in (0, 1].
    """
    best = best_overlaps(truth, overlaps, "bbox")
    counted = [~truth.instances(image_id).crowd for image_id in truth.image_ids]
    return 100 * float(np.mean(best[np.concatenate(counted)] >= iou))


def half_found_score(matches: Matches) -> float | None:
    """The highest score from which on at least half of the instances are found; None = they never are."""
    falling = np.sort(matches.truth_score)[::-1]
    score = float(falling[math.ceil(len(falling) / 2) - 1])
    return score if score > -math.inf else None


def alarms_from(good_scores: Sequence[npt.NDArray[np.floating]], score: float | None) -> float | None:
    """Detections a defect-free image with at least `score`; None without a score or an image.

    Args:
        good_scores: of the detections on each defect-free image, an empty array for one without any.
        score: in [0, 1].
    """
    if score is None or not good_scores:
        return None
    # Detections have single-precision scores, as has a score that is one of theirs.
    return float(np.count_nonzero(np.concatenate(good_scores) >= np.float32(score)) / len(good_scores))


def score_bins(matches: Matches) -> tuple[ScoreBin, ...]:
    """Findings and true ones among them by tenths of the score; those on a crowd are left out."""
    edges = np.array(BIN_EDGES, dtype=np.float32)
    counted = ~matches.ignored
    place = np.searchsorted(edges, matches.scores[counted].astype(np.float32), side="right") - 1
    place = place.clip(0, len(edges) - 2)
    findings = np.bincount(place, minlength=len(edges) - 1)
    true = np.bincount(place[matches.instance[counted] >= 0], minlength=len(edges) - 1)
    bounds = zip(BIN_EDGES[:-1], BIN_EDGES[1:], findings.tolist(), true.tolist(), strict=True)
    return tuple(ScoreBin(*bin_) for bin_ in bounds)


def _figure_of(row: DrawRow, figure: str) -> float | None:
    """Walk a dotted name; None where the row has no such figure."""
    value: Any = row
    for name in figure.split("."):
        value = None if value is None else getattr(value, name)
    return None if value is None else float(value)


def _spread(values: Sequence[float | None]) -> Spread | None:
    present = [value for value in values if value is not None]
    return Spread(float(np.mean(present)), float(np.std(present))) if present else None
