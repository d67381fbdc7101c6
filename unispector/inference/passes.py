"""Passes over an image: classes that are looked at alike go through the network together."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch

from unispector.detections import Detections
from unispector.inference.prompt_bank import PromptBank
from unispector.structures import ClassPrompts

Item = TypeVar("Item")


@dataclass(frozen=True)
class Pass:
    """Alternative prompts of some classes, all looked at with one size of the input."""

    size: int  # side S of the input in pixels
    class_names: tuple[str, ...]  # C of a bank's classes
    banks: tuple[int, ...]  # numbers of the K banks
    prompts: ClassPrompts  # K sets of C classes


def best_of(parts: Sequence[Detections], bank: PromptBank, limit: int) -> Detections:
    """The detections of all of a bank's classes, found in one or more passes over an image, calibrated."""
    names = bank.class_names
    if len(parts) == 1 and all(own.as_found for own in bank.calibrations):
        return parts[0]
    masks = [mask for part in parts for mask in part.masks_rle]
    found = [names.index(part.class_names[label]) for part in parts for label in part.labels.tolist()]
    labels = torch.tensor(found, dtype=torch.int64)
    scores = torch.cat([part.scores for part in parts])
    for label, calibration in enumerate(bank.calibrations):
        if not calibration.as_found:
            scores = torch.where(labels == label, calibration.apply(scores), scores)
    order = scores.argsort(descending=True, stable=True)[:limit]
    return Detections(
        boxes_xyxy=torch.cat([part.boxes_xyxy for part in parts])[order],
        scores=scores[order],
        labels=labels[order],
        masks_rle=tuple(masks[row] for row in order.tolist()),
        class_names=names,
        image_hw=parts[0].image_hw,
    )


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Consecutive lists of `size` items, the last one shorter."""
    if size < 1:
        raise ValueError(f"batch size {size}; it must be 1 or more")
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
