"""False alarms on defect-free images, and what is still found when they are held at a rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unispector.evaluation.matching import Matches


@dataclass(frozen=True)
class AlarmFigures:
    """False alarms of one test on defect-free images, all prompted classes together."""

    good_images: int
    score: float  # lowest score that counts in `false_alarms`
    false_alarms: float  # detections per defect-free image with at least `score`
    rate: float  # false alarms per defect-free image that are allowed
    # Lowest score at which there are no more than `rate`; just above 1 where a score of 1 already gives more.
    threshold: float
    # Percent of the instances found at IoU 0.5 by a detection with at least `threshold`.
    recall_boxes: float
    recall_masks: float


def alarm_figures(
    good_scores: Sequence[npt.NDArray[np.floating]], boxes: Matches, masks: Matches, score: float, rate: float
) -> AlarmFigures:
    """Count false alarms at a score, and the recall at the score where they are rare enough.

    Args:
        good_scores: scores of the detections in each defect-free image, of all prompted classes together;
            an empty array for an image without any.
        boxes, masks: matches of the same model and prompts on the images with defects.
        score: in [0, 1].
        rate: at least 0.

    Raises:
        ValueError: there is no defect-free image.
    """
    if not good_scores:
        raise ValueError("false alarms need at least one defect-free image")
    # Detections have single-precision scores, and a user compares those to the threshold.
    alarms = np.concatenate(good_scores).astype(np.float32)
    threshold = _threshold(alarms, len(good_scores), rate)
    return AlarmFigures(
        good_images=len(good_scores),
        score=score,
        false_alarms=float(np.count_nonzero(alarms >= score) / len(good_scores)),
        rate=rate,
        threshold=threshold,
        recall_boxes=_recall(boxes, threshold),
        recall_masks=_recall(masks, threshold),
    )


def _threshold(alarms: npt.NDArray[np.float32], images: int, rate: float) -> float:
    """The lowest single-precision score t >= 0 that at most `rate` of `alarms` an image reach."""
    if len(alarms) / images <= rate:
        return 0.0
    values, counts = np.unique(alarms, return_counts=True)
    above = len(alarms) - np.cumsum(counts)
    loudest_silenced = values[np.argmax(above / images <= rate)]
    return float(np.nextafter(loudest_silenced, np.float32(np.inf)))


def _recall(matches: Matches, threshold: float) -> float:
    return 100 * float(np.mean(matches.truth_score >= threshold))
