"""The choice of an evaluation's images to draw, and the detections they need."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unispector.config import EvaluateConfig
from unispector.data.coco import Annotations
from unispector.data.protocol.split_tree import TestPair
from unispector.detections import Detections
from unispector.evaluation.failures import (
    FalseAlarm,
    Miss,
    worst_false_alarms,
    worst_good_images,
    worst_misses,
)
from unispector.evaluation.matching import Matches
from unispector.evaluation.results import DrawnImage
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.reporting.evaluation_images import (
    Shown,
    choose_samples,
    failure_strips,
    good_alarm_strips,
    sample_strips,
    write_strips,
)


@dataclass(frozen=True)
class Gallery:
    """The data that images are drawn from."""

    detector: UniSpector
    bank: PromptBank
    test: TestPair
    images: Path
    prompts: Annotations
    targets: Annotations
    boxes: Matches
    good: tuple[str, ...]  # defect-free images; `good_scores` are the scores of the detections on each
    good_scores: tuple[npt.NDArray[np.float32], ...]


def draw_gallery(
    gallery: Gallery, samples: int, failures: int, config: EvaluateConfig, out: Path
) -> list[DrawnImage]:
    """Draw random samples, the worst false alarms and misses, and the worst defect-free images.

    Detections were not kept while judging; the few images that are drawn are looked at once more.

    Args:
        failures: false alarms, misses and defect-free images, at most as many of each.
        out: folder of the reports; the files are written to `pictures/` in it.
    """
    score = config.picture_score
    chosen = choose_samples(gallery.targets, gallery.test.prompt_seed, samples)
    worst: tuple[FalseAlarm | Miss, ...] = (
        *worst_false_alarms(gallery.boxes, failures, score),
        *worst_misses(gallery.boxes, failures, score),
    )
    wanted = {image.id for image, _ in chosen} | {failure.image_id for failure in worst}
    records = [image for image in gallery.targets.images if image.id in wanted]
    found = _detect(gallery, [image.file_name for image in records], config)
    detections = dict(zip((image.id for image in records), found, strict=True))
    shown = Shown(gallery.prompts, gallery.targets, detections, gallery.images)
    good = [gallery.good[i] for i in worst_good_images(gallery.good_scores, failures, score)]
    on_good = dict(zip(good, _detect(gallery, good, config), strict=True))
    samples_and_failures = sample_strips(shown, chosen, score), failure_strips(shown, worst, score)
    strips = chain(*samples_and_failures, good_alarm_strips(shown, on_good, score))
    return write_strips(strips, gallery.test, out)


def _detect(gallery: Gallery, names: Sequence[str], config: EvaluateConfig) -> list[Detections]:
    files = [gallery.images / name for name in names]
    return gallery.detector.detect(files, gallery.bank, config.batch_size, config.detections)
