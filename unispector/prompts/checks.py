"""Do the marked images of a class find one another: each is looked at with prompts from the others."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from unispector.data.coco import Annotations, ImageRecord, InstanceRecord
from unispector.detections import Detections
from unispector.inference.detector import UniSpector
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.boxes import pairwise_iou

FOUND_IOU = 0.5
"""A detection finds a mark from this IoU of the boxes on."""

WEIGHED = 16
"""Of more images than this, it is not tried what each is worth: that grows with their square."""


@dataclass(frozen=True)
class MarkCheck:
    """The check of one mark."""

    id: int
    box_xyxy: tuple[float, float, float, float]  # pixels
    score: float  # of the best detection of its class there, in [0, 1]; 0 = the mark was missed
    other: str  # the class already enrolled that scores best there; empty = none was detected
    other_score: float  # its score; 0 without

    @property
    def found(self) -> bool:
        """Return whether prompts from the other images find it."""
        return self.score > 0

    @property
    def confused(self) -> bool:
        """Return whether a class already enrolled scores higher."""
        return self.other_score > self.score


@dataclass(frozen=True)
class ImageCheck:
    """One image, looked at with prompts from the others."""

    file_name: str
    marks: tuple[MarkCheck, ...]  # at least one
    detections: Detections  # of all classes, those whose score counts
    # Other image -> marks that are found here when its prompts are left out too.
    found_without: dict[str, int]

    @property
    def found(self) -> int:
        """The number of its marks that were found."""
        return sum(mark.found for mark in self.marks)


@dataclass(frozen=True)
class Worth:
    """The worth of one image's prompts to all other images."""

    file_name: str
    found: int  # marks on the other images that are found with it among the prompts
    without: int  # those found without it
    marks: int

    @property
    def hurts(self) -> bool:
        """Return whether more is found without it."""
        return self.without > self.found


@dataclass(frozen=True)
class Enrolled:
    """The prompts already enrolled, which a new class joins."""

    # All classes enrolled already; the class itself may be among them, without images that are to be checked.
    # None = no class.
    bank: PromptBank | None
    label: str

    def joined_by(self, new: InstanceEmbeddings) -> PromptBank | None:
        """All classes with some new instances; None where the class would have no prompt."""
        if len(new.labels) == 0:
            return self.bank if self.bank is not None and self.label in self.bank.class_names else None
        return new.bank() if self.bank is None else self.bank.merge(new.bank())


def leave_one_out(
    detector: UniSpector,
    annotations: Annotations,
    root: Path,
    enrolled: Enrolled,
    roi: Literal["box", "mask"],
    score: float,
) -> Iterator[ImageCheck]:
    """Look at every image with prompts from the others, beside the classes already enrolled.

    Args:
        detector: the model; it encodes every image once as prompt and once as target.
        annotations: images and marks of one category, named as the class; every image has a mark.
        score: lowest score of a detection that counts, in [0, 1].

    Yields:
        A check for each image that has prompts from others, in their order.

    Raises:
        DataError: an image is unusable.
        PromptBankError: the enrolled classes were encoded by another model.
    """
    instances = detector.encode_instances(annotations, root, roi)
    for image in annotations.images:
        others = [other for other in annotations.images if other.id != image.id]
        choices = {"": enrolled.joined_by(_of(instances, annotations, others))}
        for left in others if len(annotations.images) <= WEIGHED else []:
            rest = [other for other in others if other.id != left.id]
            choices[left.file_name] = enrolled.joined_by(_of(instances, annotations, rest))
        banks = {name: bank for name, bank in choices.items() if bank is not None}
        if "" in banks:
            found = next(detector.stream_banks([root / image.file_name], list(banks.values())))
            counted = [detections.above(score) for detections in found]
            by_choice = dict(zip(banks, counted, strict=True))
            yield _check(image, annotations.instances_of(image.id), by_choice, enrolled.label)


def worth_of(checks: Collection[ImageCheck]) -> tuple[Worth, ...]:
    """Return the worth of each image, over the images it was tried on."""
    worth = []
    for name in sorted({name for check in checks for name in check.found_without}):
        seen = [check for check in checks if name in check.found_without]
        found, without = sum(check.found for check in seen), sum(check.found_without[name] for check in seen)
        worth.append(Worth(name, found, without, sum(len(check.marks) for check in seen)))
    return tuple(worth)


def _of(
    instances: InstanceEmbeddings, annotations: Annotations, images: Collection[ImageRecord]
) -> InstanceEmbeddings:
    marks = (annotations.instances_of(image.id) for image in images)
    return instances.only({mark.id for of_image in marks for mark in of_image})


def _check(
    image: ImageRecord, marks: tuple[InstanceRecord, ...], found: dict[str, Detections], label: str
) -> ImageCheck:
    """`found`: left out image -> detections; the empty name is that of the check itself."""
    detections = found[""]
    without = {
        name: sum(_mark(mark, other, label).found for mark in marks) for name, other in found.items() if name
    }
    checked = tuple(_mark(mark, detections, label) for mark in marks)
    return ImageCheck(image.file_name, checked, detections, without)


def _mark(mark: InstanceRecord, detections: Detections, label: str) -> MarkCheck:
    left, top, width, height = mark.bbox
    box = (left, top, left + width, top + height)
    near = pairwise_iou(torch.tensor([box]), detections.boxes_xyxy)[0] >= FOUND_IOU
    best: dict[str, float] = {}
    for row in near.nonzero().flatten().tolist():  # best first
        best.setdefault(detections.class_names[int(detections.labels[row])], float(detections.scores[row]))
    own = best.pop(label, 0.0)
    other = max(best, key=best.__getitem__, default="")
    return MarkCheck(mark.id, box, own, other, best.get(other, 0.0))
