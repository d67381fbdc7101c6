"""The worst failures of an evaluation: sure detections of nothing, and instances that stay unfound.

All failures are reported at one lowest score, the one from which detections are drawn, so that an image
shows what is said of it.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from unispector.evaluation.matching import Matches

Name = TypeVar("Name", bound=Hashable)

_LOT = 0  # seed; a lot, since the images of a file that follow each other are often alike


@dataclass(frozen=True)
class FalseAlarm:
    """A detection that found no instance: its image, its class and its score in [0, 1]."""

    image_id: int
    class_name: str
    score: float


@dataclass(frozen=True)
class Miss:
    """An instance without a detection."""

    image_id: int
    class_name: str
    instance_id: int
    best_score: float  # of the detection that found it with a score too low, -inf = none did


def in_turn(images: Mapping[Name, Iterable[int]]) -> Iterator[tuple[Name, int]]:
    """Distinct images with the class each stands for: one of each class, then the next of each.

    Args:
        images: of each class, the wanted first.
    """
    waiting = {name: iter(of_class) for name, of_class in images.items()}
    taken: set[int] = set()
    while waiting:
        for name in tuple(waiting):
            image = next((image for image in waiting[name] if image not in taken), None)
            if image is None:
                del waiting[name]
            else:
                taken.add(image)
                yield name, image


def worst_false_alarms(matches: Matches, count: int, score: float) -> tuple[FalseAlarm, ...]:
    """Detections that found nothing with the highest scores, one per image, classes in turn.

    A detection on a crowd is no false alarm.

    Args:
        count: false alarms at most.
        score: lowest score of a detection that counts.
    """
    wrong = (matches.instance < 0) & ~matches.ignored & _reaches(matches.scores, score)
    rows = np.flatnonzero(wrong)
    rows = rows[np.argsort(-matches.scores[rows], kind="stable")]
    return tuple(
        FalseAlarm(
            image_id=int(matches.images[matches.image[row]]),
            class_name=matches.class_names[matches.classes[row]],
            score=float(matches.scores[row]),
        )
        for row in rows[_spread(matches.classes[rows], matches.image[rows], count)]
    )


def worst_misses(matches: Matches, count: int, score: float) -> tuple[Miss, ...]:
    """Instances that no detection found, then those found with the lowest scores; ties in random order.

    One per image, classes in turn. An instance found with at least `score` is no miss.
    """
    lot = np.random.default_rng(_LOT).permutation(len(matches.truth_score))
    rows = lot[~_reaches(matches.truth_score[lot], score)]
    rows = rows[np.argsort(matches.truth_score[rows], kind="stable")]
    return tuple(
        Miss(
            image_id=int(matches.images[matches.truth_image[row]]),
            class_name=matches.class_names[matches.truth_classes[row]],
            instance_id=int(matches.truth_ids[row]),
            best_score=float(matches.truth_score[row]),
        )
        for row in rows[_spread(matches.truth_classes[rows], matches.truth_image[rows], count)]
    )


def worst_good_images(
    scores: Sequence[npt.NDArray[np.floating]], count: int, score: float
) -> tuple[int, ...]:
    """Positions of the defect-free images with the surest detection, the surest first.

    Args:
        scores: of the detections in each defect-free image.
    """
    best = np.array([of_image.max(initial=-np.inf) for of_image in scores])
    order = np.argsort(-best, kind="stable")
    return tuple(order[_reaches(best[order], score)][:count].tolist())


def _reaches(scores: npt.NDArray[np.floating], score: float) -> npt.NDArray[np.bool_]:
    """Compared in single precision, as detections are when they are drawn."""
    return np.asarray(scores.astype(np.float32) >= np.float32(score))


def _spread(
    classes: npt.NDArray[np.int64], images: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """Choose failures, given worst first: classes in turn, one per image."""
    rows_of: dict[int, dict[int, int]] = {}
    for label in dict.fromkeys(classes.tolist()):
        rows = np.flatnonzero(classes == label)
        _, worst = np.unique(images[rows], return_index=True)
        kept = rows[np.sort(worst)][:count]  # the other classes take fewer images than that
        rows_of[label] = dict(zip(images[kept].tolist(), kept.tolist(), strict=True))
    chosen = [rows_of[label][image] for label, image in islice(in_turn(rows_of), count)]
    return np.array(chosen, dtype=np.int64)
