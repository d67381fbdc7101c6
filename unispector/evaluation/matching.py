"""Matching of detections and instances at IoU 0.5, and AP50 of a test with weighted images.

COCO's greedy rule as pycocotools applies it, so that weights of one give its AP50. The matching of an image
does not depend on the other images: it is done once, and every resample of the images only weighs it anew.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from unispector.evaluation.coco_metrics import MAX_DETECTIONS
from unispector.evaluation.ground_truth import GroundTruth, ImageTruth, Kind, Overlaps

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MATCH_IOU = 0.5
"""A detection finds an instance from this IoU on."""

_RECALLS = np.linspace(0, 1, 101)
_CHUNK = 1 << 18  # resamples times detections held at a time


@dataclass(frozen=True)
class Matches:
    """The boxes or the masks of one test at IoU 0.5: n detections, g instances, I images.

    Detections beyond the best 100 of a class in an image are not in it, nor are crowds.
    """

    images: Integers  # [I] ids of all images, ascending
    scores: Floats  # [n] by image, within an image best first
    classes: Integers  # [n] position in `class_names`
    image: Integers  # [n] position in `images`
    instance: Integers  # [n] row of the instance that was found, -1 = none
    ignored: Flags  # [n] fell on a crowd: neither right nor wrong
    truth_image: Integers  # [g] position in `images`
    truth_classes: Integers  # [g] position in `class_names`
    truth_ids: Integers  # [g] ids in the annotation file
    truth_score: Floats  # [g] score of the detection that found it, -inf = missed
    class_names: tuple[str, ...]  # of the ground truth, by category id


def match(truth: GroundTruth, overlaps: Mapping[int, Overlaps], kind: Kind) -> Matches:
    """Match the detections of a test to its instances.

    By falling score, each detection takes the instance of its class that overlaps it most, by at least
    0.5, and is not taken yet; of two that overlap it alike, the later one. A detection that finds none but
    lies on a crowd is ignored; a crowd takes any number of them.

    Args:
        overlaps: image id -> its detections; an image left out has none.

    Raises:
        DataError: the ground truth does not have an image id.
    """
    for image_id in overlaps:
        truth.image(image_id)  # refuses an unknown one
    images = sorted(truth.image_ids)
    known = [truth.instances(image_id) for image_id in images]
    counted = [~instances.crowd for instances in known]
    found = [
        _found(instances, overlaps.get(image_id), kind)
        for image_id, instances in zip(images, known, strict=True)
    ]
    numbers = np.array([np.count_nonzero(rows) for rows in counted])
    image = np.repeat(np.arange(len(images)), [len(of_image) for of_image, *_ in found])
    scores, classes, instance, ignored = map(np.concatenate, zip(*found, strict=True))
    hits = instance >= 0
    instance[hits] += (np.cumsum(numbers) - numbers)[image[hits]]
    truth_score = np.full(numbers.sum(), -np.inf)
    truth_score[instance[hits]] = scores[hits]
    return Matches(
        images=np.array(images, dtype=np.int64),
        scores=scores,
        classes=classes,
        image=image,
        instance=instance,
        ignored=ignored,
        truth_image=np.repeat(np.arange(len(images)), numbers),
        truth_classes=np.concatenate([each.classes[rows] for each, rows in zip(known, counted, strict=True)]),
        truth_ids=np.concatenate([each.ids[rows] for each, rows in zip(known, counted, strict=True)]),
        truth_score=truth_score,
        class_names=truth.class_names,
    )


def _found(
    known: ImageTruth, overlaps: Overlaps | None, kind: Kind
) -> tuple[Floats, Integers, Integers, Flags]:
    """Score, class, instance and whether ignored, of the detections of an image that count.

    Instances count from 0 in the image, crowds left out.
    """
    if overlaps is None:
        nothing = np.empty(0, dtype=np.int64)
        return np.empty(0), nothing, nothing, np.empty(0, dtype=np.bool_)
    kept = _within_cap(overlaps.classes)
    column, ignored = _greedy(overlaps.iou(kind)[kept], known.crowd)
    row_of_column = np.cumsum(~known.crowd) - 1
    instance = np.full(len(kept), -1)
    instance[column >= 0] = row_of_column[column[column >= 0]]
    return overlaps.scores[kept], overlaps.classes[kept], instance, ignored


def _within_cap(classes: Integers) -> Integers:
    """Rows of the first `MAX_DETECTIONS` of each class, in order."""
    order = np.argsort(classes, kind="stable")
    ranked = classes[order]
    rank = np.arange(len(classes)) - np.searchsorted(ranked, ranked)
    return np.sort(order[rank < MAX_DETECTIONS[-1]])


def _greedy(iou: Floats, crowd: Flags) -> tuple[Integers, Flags]:
    """Column that each row of `iou` takes (-1 = none), best row first; and whether it fell on a crowd."""
    column = np.full(len(iou), -1)
    ignored = np.zeros(len(iou), dtype=np.bool_)
    taken: set[int] = set()
    pairs = np.argwhere(iou >= MATCH_IOU).tolist()
    for row, group in groupby(pairs, key=itemgetter(0)):
        near = [place for _, place in group]
        free = [place for place in near if not crowd[place] and place not in taken]
        if free:
            column[row] = max(free, key=lambda place: (iou[row, place], place))
            taken.add(column[row])
        else:
            ignored[row] = crowd[near].any()
    return column, ignored


@dataclass(frozen=True)
class _Ranking:
    """One class of a test."""

    # [n] position of the image of each detection that counts, best first; of equal scores, by image and then
    # by rank in it.
    image: Integers
    hits: Integers  # [h] places in `image` of those that found an instance
    instances: Integers  # [I] instances of each image


def average_precision_50(matches: Matches, weights: npt.NDArray[np.number]) -> Floats:
    """AP50 of the test in which image i occurs `weights[r, i]` times, for each r.

    Mean precision over 101 recall points, then over the classes that have an instance. With weights of one
    it is the AP50 of pycocotools. With other whole numbers it is the AP50 of a data set in which each image
    is repeated so often; where different detections of a class have equal scores, it is that of the order
    in which all copies of a detection come before those of the next, by image and then by rank in it.

    Args:
        weights: [R, I], whole numbers of at least 0, an image per column as in `matches.images`.

    Returns:
        [R] percent; nan where no image with an instance has a weight.
    """
    rankings = [_ranking(matches, label) for label in range(len(matches.class_names))]
    width = max(len(matches.images), *(len(ranking.image) for ranking in rankings))
    chunk = max(1, _CHUNK // width)
    return np.concatenate(
        [
            _mean_over_classes(rankings, weights[start : start + chunk].astype(np.float64))
            for start in range(0, len(weights), chunk)
        ]
    )


def _ranking(matches: Matches, label: int) -> _Ranking:
    rows = np.flatnonzero((matches.classes == label) & ~matches.ignored)
    rows = rows[np.argsort(-matches.scores[rows], kind="stable")]
    of_class = matches.truth_image[matches.truth_classes == label]
    return _Ranking(
        image=matches.image[rows],
        hits=np.flatnonzero(matches.instance[rows] >= 0),
        instances=np.bincount(of_class, minlength=len(matches.images)),
    )


def _mean_over_classes(rankings: list[_Ranking], weights: Floats) -> Floats:
    """Percent [R]; nan where no class has an instance."""
    return known_mean([_average_precision(ranking, weights) for ranking in rankings])


def known_mean(figures: Sequence[Floats]) -> Floats:
    """Mean [R] of the figures [R] that are not nan; nan where all are."""
    stacked = np.stack(figures)
    known = ~np.isnan(stacked)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(known, stacked, 0).sum(axis=0) / known.sum(axis=0)
    return mean


def _average_precision(ranking: _Ranking, weights: Floats) -> Floats:
    """Percent [R]; nan where the class has no instance. Envelope and recall only change at hits."""
    weighted = weights[:, ranking.image]
    shown = np.cumsum(weighted, axis=1)[:, ranking.hits]
    found = np.cumsum(weighted[:, ranking.hits], axis=1)
    instances = weights @ ranking.instances
    with np.errstate(invalid="ignore"):
        recall = found / instances[:, None]
    precision = found / np.maximum(shown, np.finfo(np.float64).tiny)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(_RECALLS, recall, side="right")
    new = np.diff(reached, axis=1, prepend=0)
    return np.where(instances > 0, 100 * (new * envelope).sum(axis=1) / len(_RECALLS), np.nan)
