"""A made-up evaluation with everything a report can show, and hostile names."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from unispector.detections import Detections
from unispector.evaluation.alarms import AlarmFigures
from unispector.evaluation.coco_metrics import (
    AveragePrecision,
    ClassAP,
    SetMetrics,
    SizeAP,
    evaluate_overlaps,
)
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.intervals import Interval
from unispector.evaluation.matching import Matches
from unispector.evaluation.results import DrawnImage, EvaluationReport, EvaluationRow, ModelRecord

HOSTILE = "<b>&\"'|`x"


def evaluate_detections(annotations, detections):
    """Metrics of detections by image id."""
    truth = GroundTruth(annotations)
    return evaluate_overlaps(truth, {id_: truth.overlaps(id_, found) for id_, found in detections.items()})


def code_of(mask):
    """A mask [H, W] as pycocotools encodes it."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def filled(corners, height, width):
    """A mask of the pixels in x0, y0, x1, y1."""
    x0, y0, x1, y1 = (round(value) for value in corners)
    mask = np.zeros((height, width), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def make_detections(rows, names, image_hw):
    """Detections of one image from rows (class name, x0 y0 x1 y1, score, mask)."""
    return Detections(
        boxes_xyxy=torch.tensor([row[1] for row in rows], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([row[2] for row in rows], dtype=torch.float32),
        labels=torch.tensor([names.index(row[0]) for row in rows], dtype=torch.int64),
        masks_rle=tuple(code_of(row[3]) for row in rows),
        class_names=tuple(names),
        image_hw=image_hw,
    )


def make_matches(found=(), truth=(), ids=(0,), names=("hole",)):
    """Matches of rows (score, class, image, instance, ignored) and (score it was found with, class, image).

    The instances' ids are 1, 2, ...
    """
    scores, labels, images, instances, ignored = np.array(found, dtype=float).reshape(-1, 5).T
    truth_scores, truth_labels, truth_images = np.array(truth, dtype=float).reshape(-1, 3).T
    return Matches(
        images=np.array(ids),
        scores=scores,
        classes=labels.astype(np.int64),
        image=images.astype(np.int64),
        instance=instances.astype(np.int64),
        ignored=ignored.astype(bool),
        truth_image=truth_images.astype(np.int64),
        truth_classes=truth_labels.astype(np.int64),
        truth_ids=np.arange(1, len(truth) + 1),
        truth_score=truth_scores,
        class_names=names,
    )


def precision(value, size=True):
    sizes = {"small": None, "medium": SizeAP(value / 2, 2), "large": SizeAP(value, 1) if size else None}
    classes = {HOSTILE: ClassAP(value / 2, value, value / 4, 3), "hole": None}
    return AveragePrecision(value / 2, value, value / 4, classes, sizes)


def make_row(variant, data_set, subset, seeds, value, half_width=None, alarms=None, size=True):
    """An evaluation whose boxes have an AP50 of `value` and its masks of half as much."""
    intervals = {}
    if half_width is not None:
        intervals = {
            "bbox.AP50": Interval(value - half_width, value + half_width),
            "segm.AP50": Interval(value / 2 - half_width, value / 2 + half_width),
        }
    metrics = SetMetrics(precision(value, size), precision(value / 2, size), 5, 3)
    return EvaluationRow(variant, data_set, subset, *seeds, metrics, intervals, alarms)


def make_alarms(false_alarms, recall):
    return AlarmFigures(8, 0.3, false_alarms, 0.1, 0.625, recall, recall / 2)


@pytest.fixture
def new_row():
    return make_row


@pytest.fixture
def hostile():
    return HOSTILE


@pytest.fixture
def evaluation():
    """Two sets, three models, of which the main one has seeds the others lack."""
    rows = (
        make_row("unispector", "tile", "unseen", (42, 1), 40.0, 3.0, make_alarms(0.5, 60.0)),
        make_row("unispector", "tile", "unseen", (42, 2), 50.0, 5.0, make_alarms(1.5, 80.0), size=False),
        make_row("unispector", "tile", "unseen", (82, 1), 60.0, 4.0, make_alarms(1.0, 70.0)),
        make_row("unispector", "tile", "seen", (42, 1), 90.0, 2.0),
        make_row("base", "tile", "unseen", (42, 1), 20.0, 3.0, make_alarms(4.0, 10.0)),
        make_row("untrained", "tile", "unseen", (42, 1), 1.0, 1.0, make_alarms(2.0, 0.0)),
        make_row("unispector", HOSTILE, "unseen", (42, 1), 10.0, 3.0),
    )
    pictures = (
        DrawnImage("pictures/a b-01.jpg", "sample", "tile", "unseen", (HOSTILE, "hole"), "x/1.png", ""),
        DrawnImage("pictures/a b-02.jpg", "sample", "tile", "seen", ("hole",), "x/2.png", ""),
        DrawnImage("pictures/f-01.jpg", "false alarm", HOSTILE, "unseen", ("hole",), HOSTILE, "0.9 here"),
        DrawnImage("pictures/m-01.jpg", "miss", "tile", "unseen", ("hole",), "x/4.png", HOSTILE),
    )
    origins = {"data_sha256": "d" * 64, "git_commit": "c" * 40 + "-dirty", HOSTILE: HOSTILE}
    models = (ModelRecord("unispector", 42, "f" * 64, origins), ModelRecord("base", 42, "e" * 64, {}))
    return EvaluationReport(rows, pictures, models, False)
