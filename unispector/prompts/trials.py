"""Many choices of a class's marked images, each tried on some of the others; an image is encoded once."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from unispector.data.coco import Annotations, InstanceRecord
from unispector.detections import Detections
from unispector.evaluation.ground_truth import GroundTruth, Overlaps
from unispector.evaluation.matching import MATCH_IOU, Floats, Integers, average_precision_50, match
from unispector.inference.detector import UniSpector
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.boxes import pairwise_iou

PLAIN = "plain"
"""Kind of prompts: the marks as they are."""


@dataclass(frozen=True)
class Trial:
    """A choice of prompts, and an image that is looked at with it."""

    prompts: frozenset[int]  # ids of the images whose marks are the prompts
    target: int  # id of the image looked at; one of `prompts` tells only how a mark is given back
    kind: str = PLAIN  # which encoding of the marks


@dataclass(frozen=True)
class Outcome:
    """What was found on an image."""

    detections: Detections
    overlaps: Overlaps  # the same against its marks
    scores: tuple[float, ...]  # of the best detection on each of its marks; 0 without one

    def found(self, score: float) -> int:
        """The number of marks found with at least this score."""
        return sum(of_mark >= score for of_mark in self.scores if of_mark)


class MarkedClass:
    """The marked images of one class.

    Attributes:
        annotations: images and marks of the class, its only category; every image has a mark.
        root: folder the file names are relative to.
        base: prompts of the class from elsewhere, which join every choice; None = none.
        truth: the marks, to judge by.
    """

    def __init__(self, annotations: Annotations, root: Path, base: PromptBank | None = None) -> None:
        self.annotations = annotations
        self.root = root
        self.base = base
        self.truth = GroundTruth(annotations)
        self._ids = sorted(self.truth.image_ids)

    @property
    def label(self) -> str:
        """The name of the class."""
        return self.annotations.class_names[0]

    def marks(self, image_id: int) -> tuple[InstanceRecord, ...]:
        """The marks of an image."""
        return self.annotations.instances_of(image_id)

    def bank(self, instances: InstanceEmbeddings, image_ids: Collection[int]) -> PromptBank | None:
        """The prompts of some images; None where there is none."""
        own = instances.only({mark.id for image_id in image_ids for mark in self.marks(image_id)})
        if len(own.labels) == 0:
            return self.base
        return own.bank() if self.base is None else self.base.merge(own.bank())

    def try_all(
        self,
        detector: UniSpector,
        instances: Mapping[str, InstanceEmbeddings],
        trials: Iterable[Trial],
        moved: Callable[[int], object],
    ) -> dict[Trial, Outcome]:
        """Look at every trial's image; all trials of an image share its encoding.

        Args:
            instances: the marks of all images, by kind of prompt.
            moved: gets the number of trials that were done.

        Raises:
            DataError: an image is unusable.
            PromptBankError: `base` is another model's.
        """
        by_target: dict[int, list[Trial]] = {}
        for trial in dict.fromkeys(trials):
            by_target.setdefault(trial.target, []).append(trial)
        find = partial(self._try, detector, instances)
        outcomes: dict[Trial, Outcome] = {}
        # Images side by side, a thread each, take less than one image with all threads.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for own, found in zip(by_target.values(), pool.map(find, by_target.values()), strict=True):
                    outcomes |= found
                    moved(len(own))
            except BaseException:  # given up: what has not begun is not waited for
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return outcomes

    def _try(
        self, detector: UniSpector, instances: Mapping[str, InstanceEmbeddings], trials: Sequence[Trial]
    ) -> dict[Trial, Outcome]:
        """All trials of one image; those without any prompt are left out."""
        banks = [self.bank(instances[trial.kind], trial.prompts) for trial in trials]
        tried = [(trial, bank) for trial, bank in zip(trials, banks, strict=True) if bank is not None]
        if not tried:
            return {}
        target = trials[0].target
        path = self.root / self.truth.image(target).file_name
        found = next(detector.stream_banks([path], [bank for _, bank in tried], batch_size=1))
        outcomes = (self.outcome(target, detections) for detections in found)
        return dict(zip((trial for trial, _ in tried), outcomes, strict=True))

    def average_precision(self, outcomes: Mapping[int, Outcome], weights: Integers | None = None) -> Floats:
        """AP50 of the boxes in percent.

        Args:
            outcomes: image id -> what was found there; images that are left out do not count.
            weights: [R, I] how often each of the I images of `outcomes`, by ascending id, occurs;
                None = once.

        Returns:
            [R]; nan where no image counts.
        """
        overlaps = {image_id: outcome.overlaps for image_id, outcome in outcomes.items()}
        matches = match(self.truth, overlaps, "bbox")
        own = np.isin(self._ids, list(outcomes))
        counted = np.zeros((1 if weights is None else len(weights), len(own)), dtype=np.int64)
        counted[:, own] = 1 if weights is None else weights
        return average_precision_50(matches, counted)

    def outcome(self, image_id: int, detections: Detections) -> Outcome:
        """What detections on an image found of its marks."""
        scores = tuple(best_on(mark, detections).get(self.label, 0.0) for mark in self.marks(image_id))
        return Outcome(detections, self.truth.overlaps(image_id, detections), scores)


def best_on(mark: InstanceRecord, detections: Detections) -> dict[str, float]:
    """The best score of each class that was found on a mark, at IoU 0.5 of the boxes."""
    near = pairwise_iou(torch.tensor([corners(mark)]), detections.boxes_xyxy)[0] >= MATCH_IOU
    best: dict[str, float] = {}
    for row in near.nonzero().flatten().tolist():  # best first
        best.setdefault(detections.class_names[int(detections.labels[row])], float(detections.scores[row]))
    return best


def corners(mark: InstanceRecord) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a mark's box in pixels."""
    left, top, width, height = mark.bbox
    return left, top, left + width, top + height
