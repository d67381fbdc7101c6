"""One evaluation's figures: what was found on a set under one draw of prompts."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unispector.benchmark.plan import Evaluation
from unispector.config import EvaluateConfig
from unispector.data.protocol.split_tree import TestPair
from unispector.evaluation.alarms import alarm_figures
from unispector.evaluation.coco_metrics import evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth, Overlaps
from unispector.evaluation.intervals import bootstrap_interval
from unispector.evaluation.matching import Matches, match
from unispector.evaluation.results import EvaluationRow


def evaluation_row(
    todo: Evaluation,
    test: TestPair,
    truth: GroundTruth,
    found: Mapping[int, Overlaps],
    good_scores: Sequence[npt.NDArray[np.floating]],
    config: EvaluateConfig,
) -> tuple[EvaluationRow, Matches]:
    """AP, its intervals, and false alarms.

    Args:
        found: what is kept of the detections, by image id.
        good_scores: scores of the detections on each defect-free image; none where there are none.

    Returns:
        The row, and what the detections' boxes found.
    """
    boxes, masks = match(truth, found, "bbox"), match(truth, found, "segm")
    alarms = None
    if good_scores:
        alarms = alarm_figures(good_scores, boxes, masks, config.alarm_score, config.alarm_rate)
    intervals = {}
    if config.resamples:
        intervals = {
            "bbox.AP50": bootstrap_interval(boxes, config.resamples, seed=0),
            "segm.AP50": bootstrap_interval(masks, config.resamples, seed=0),
        }
    row = EvaluationRow(
        variant=todo.variant,
        data_set=todo.set_name,
        subset=todo.subset,
        split_seed=todo.split_seed,
        prompt_seed=test.prompt_seed,
        metrics=evaluate_overlaps(truth, found),
        intervals=intervals,
        alarms=alarms,
    )
    return row, boxes
