"""Average precision of detections against COCO ground truth; pycocotools is the referee.

Boxes and masks are judged apart: AP over the IoU thresholds .50:.05:.95, AP50 and AP75, each the mean
precision over 101 recall points, averaged over the classes that have ground truth (paper, evaluation
protocol). All figures are in percent.

Matching and accumulation are faster-coco-eval's C++, fed with pycocotools' IoUs. It gave pycocotools'
figures to 1e-9 in every case that was tried, random or degenerate (nothing found, equal scores, crowds,
boxes and masks without area, more detections than the cap, duplicates, boxes that leave the image), so
there is no second path; the tests keep comparing the two.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unispector.evaluation.ground_truth import FloatArray, GroundTruth, ImageTruth, IntArray, Kind, Overlaps

Array = npt.NDArray[np.generic]

MAX_DETECTIONS = (1, 10, 100)
"""COCO's caps on the detections of one class in one image; AP is taken at the last."""

SMALL_BELOW, LARGE_FROM = 1 / 300, 0.03
"""Bounds of the size bins as shares of the image's area: COCO's 32^2 and 96^2 pixels of 640 x 480."""

SIZES = {
    "small": (0.0, math.nextafter(SMALL_BELOW, 0)),  # both ends are within the bin
    "medium": (SMALL_BELOW, math.nextafter(LARGE_FROM, 0)),
    "large": (LARGE_FROM, math.inf),
}
"""Size bin -> least and largest share of the image's area."""

_RANGES = ((0.0, math.inf), *SIZES.values())


@dataclass(frozen=True)
class ClassAP:
    """One class's average precision in percent, and its ground-truth instances."""

    AP: float
    AP50: float
    AP75: float
    instances: int


@dataclass(frozen=True)
class SizeAP:
    """AP50 in percent on the instances of one size, and their number."""

    AP50: float
    instances: int


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision in percent."""

    AP: float  # mean over the IoU thresholds .50:.05:.95 and the classes that have ground truth
    # The same at one threshold.
    AP50: float
    AP75: float
    # Class name -> its figures; None where a class has no ground truth, which leaves it out of every mean.
    per_class: dict[str, ClassAP | None]
    # "small", "medium", "large" -> AP50 on instances whose area is below 1/300 of the image, below 3 %, and
    # the rest; areas are those of boxes or masks, as judged. None where there is no such instance.
    by_size: dict[str, SizeAP | None]


@dataclass(frozen=True)
class SetMetrics:
    """Result on one data set."""

    # Average precision of the boxes and of the masks, in percent.
    bbox: AveragePrecision
    segm: AveragePrecision
    images: int  # images judged, those without any instance included
    instances: int  # ground-truth instances, crowds left out


def evaluate_overlaps(truth: GroundTruth, overlaps: Mapping[int, Overlaps]) -> SetMetrics:
    """Judge a test by COCO's rules, boxes and masks.

    At most 100 detections of one class in one image count. What overlaps a crowd is neither right nor wrong.

    Args:
        overlaps: image id -> what `truth.overlaps` measured there; an image left out has no detections.

    Returns:
        Metrics in percent. No detections at all give 0, not an error.

    Raises:
        DataError: an image id is unknown.
    """
    for image_id in overlaps:
        truth.image(image_id)
    return SetMetrics(
        bbox=_average_precision(truth, overlaps, "bbox"),
        segm=_average_precision(truth, overlaps, "segm"),
        images=len(truth.image_ids),
        instances=sum(int((~truth.instances(image_id).crowd).sum()) for image_id in truth.image_ids),
    )


def _average_precision(truth: GroundTruth, overlaps: Mapping[int, Overlaps], kind: Kind) -> AveragePrecision:
    """Means over recall, thresholds and the classes with ground truth."""
    classes, shares = _counted(truth, kind)
    instances = np.bincount(classes, minlength=len(truth.class_names))
    present = np.flatnonzero(instances)
    precision = 100 * _precision(truth, overlaps, kind, present).mean(axis=1)
    per_class: dict[str, ClassAP | None] = dict.fromkeys(truth.class_names)
    for values, position in zip(precision[:, :, 0].T, present.tolist(), strict=True):
        figures = float(values.mean()), float(values[0]), float(values[5])
        per_class[truth.class_names[position]] = ClassAP(*figures, int(instances[position]))
    by_size: dict[str, SizeAP | None] = dict.fromkeys(SIZES)
    for values, (size, (least, most)) in zip(precision[0, :, 1:].T, SIZES.items(), strict=True):
        if within := int(((shares >= least) & (shares <= most)).sum()):
            by_size[size] = SizeAP(float(values[values >= 0].mean()), within)
    judged = precision[:, :, 0].mean(axis=1)
    return AveragePrecision(float(judged.mean()), float(judged[0]), float(judged[5]), per_class, by_size)


def _counted(truth: GroundTruth, kind: Kind) -> tuple[IntArray, FloatArray]:
    """Class and share of the image's area of every instance that is no crowd."""
    classes, shares = [], []
    for image_id in truth.image_ids:
        instances = truth.instances(image_id)
        classes.append(instances.classes[~instances.crowd])
        shares.append(_shares(truth, image_id, instances, kind)[~instances.crowd])
    return np.concatenate(classes), np.concatenate(shares)


def _shares(truth: GroundTruth, image_id: int, regions: ImageTruth | Overlaps, kind: Kind) -> FloatArray:
    """Areas of an image's boxes or masks as shares of its own."""
    image = truth.image(image_id)
    areas = regions.mask_areas if kind == "segm" else regions.boxes_xywh[:, 2:].prod(axis=1)
    return areas / (image.width * image.height)


def _precision(
    truth: GroundTruth, overlaps: Mapping[int, Overlaps], kind: Kind, present: IntArray
) -> FloatArray:
    """Precision [10 thresholds, 101 recalls, C present classes, all and 3 sizes]; -1 = no ground truth."""
    from faster_coco_eval import faster_eval_api_cpp as engine
    from faster_coco_eval.core.cocoeval import Params

    # Equal scores are ranked by image id; the engine gets positions, as it holds ids as floats.
    image_ids = sorted(truth.image_ids)
    known, found = engine.Dataset(), engine.Dataset()
    for position, image_id in enumerate(image_ids):
        instances = truth.instances(image_id)
        crowd = instances.crowd
        for class_, record in _records(truth, image_id, instances, kind, iscrowd=crowd, ignore=crowd):
            known.append_ref(position, class_, record)
        if image_id in overlaps:
            own = overlaps[image_id]
            for class_, record in _records(truth, image_id, own, kind, score=own.scores):
                found.append_ref(position, class_, record)
    ious = [_ious(truth.instances(id_), overlaps.get(id_), kind, present) for id_ in image_ids]
    rules = Params()
    rules.areaRng, rules.maxDets = [list(limits) for limits in _RANGES], [MAX_DETECTIONS[-1]]
    rules.imgIds, rules.catIds = list(range(len(image_ids))), present.tolist()
    judged = engine.COCOevalEvaluateAccumulate(rules, ious, known, found, rules.imgIds, rules.catIds, True)
    precision: FloatArray = judged["precision"]
    return precision[..., 0]


def _records(
    truth: GroundTruth, image_id: int, regions: ImageTruth | Overlaps, kind: Kind, **columns: Array
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Class and the engine's record of every region; ids from 1, since 0 means `no match` there."""
    columns["area"] = _shares(truth, image_id, regions, kind)
    rows = zip(regions.classes.tolist(), *(column.tolist() for column in columns.values()), strict=True)
    for number, (class_, *values) in enumerate(rows, start=1):
        yield class_, {"id": number, **dict(zip(columns, values, strict=True))}


def _ious(
    known: ImageTruth, found: Overlaps | None, kind: Kind, present: IntArray
) -> list[list[list[float]]]:
    """IoUs of the detections that count and the instances, by present class; empty where either lacks."""
    if found is None:
        return [[] for _ in present]
    ious = found.iou(kind)
    own = set(known.classes.tolist())
    return [
        ious[found.classes == class_][: MAX_DETECTIONS[-1], known.classes == class_].tolist()
        if class_ in own
        else []
        for class_ in present.tolist()
    ]
