"""The prompt banks of a robustness sweep: blurred, inexactly boxed, masked, fewer or more prompts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from unispector.config import SweepConfig
from unispector.data.coco import Annotations
from unispector.data.combine import overlaid
from unispector.data.prompt_changes import PromptPool, blurred, prompt_pool, with_shifted_boxes
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank

CLEAN = ("prompt_kind", 0.0)
"""Sweep and level of the prompts as drawn: boxes on sharp images."""


@dataclass(frozen=True)
class Place:
    """The level and trial of a sweep that a condition belongs to, see `SweepRow`."""

    sweep: str
    level: float
    trial: int = 0


@dataclass(frozen=True)
class PromptCondition:
    """Prompts that were changed, and the places of the sweeps they stand for."""

    bank: PromptBank
    places: tuple[Place, ...]


def changed_prompts(
    detector: UniSpector, prompts: Annotations, images: Path, seed: int, config: SweepConfig, batch_size: int
) -> list[PromptCondition]:
    """All changes of given prompts (paper section 4.1); the prompts as drawn come first.

    Sharp images are encoded once for all boxes and masks on them.

    Raises:
        DataError: an image is unusable, or a box cannot be perturbed.
    """
    levels = list(product(config.box_iou, range(config.box_trials)))
    shifted = [with_shifted_boxes(prompts, iou, seed, trial) for iou, trial in levels]
    together, ids = overlaid([_without_masks(prompts), prompts, *shifted])
    # Prompted by its mask, an instance that has none is prompted by its filled box.
    instances = detector.encode_instances(together, images, "mask", batch_size)
    clean, masks, *others = [instances.only(own).bank() for own in ids]
    places = (Place(*CLEAN), Place("prompt_box_iou", 1.0), Place("prompt_blur", 0.0))
    conditions = [PromptCondition(clean, places)]
    conditions += [
        PromptCondition(bank, (Place("prompt_box_iou", iou, trial),))
        for (iou, trial), bank in zip(levels, others, strict=True)
    ]
    conditions.append(PromptCondition(masks, (Place("prompt_kind", 1.0),)))
    for sigma in filter(None, config.blur):
        change = partial(blurred, sigma=sigma)
        bank = detector.encode_instances(prompts, images, "box", batch_size, change).bank()
        conditions.append(PromptCondition(bank, (Place("prompt_blur", sigma),)))
    return conditions


def _without_masks(annotations: Annotations) -> Annotations:
    instances = tuple(replace(instance, segmentation=None) for instance in annotations.instances)
    return replace(annotations, instances=instances)


def counted_prompts(
    detector: UniSpector,
    pair: tuple[Annotations, Annotations],
    images: Path,
    seed: int,
    config: SweepConfig,
    batch_size: int,
) -> tuple[list[PromptCondition], frozenset[str]]:
    """More and fewer prompt images per class, in several orders; a class gives at most what it has.

    Args:
        pair: prompts and targets; some targets become prompts.
        config: the numbers. One that no class can reach is left out.

    Returns:
        The conditions, and the files of the targets that became prompts.

    Raises:
        DataError: an image is unusable.
    """
    pool = prompt_pool(*pair, max(config.counts), seed)
    instances = detector.encode_instances(pool.annotations, images, "box", batch_size)
    reachable = max(map(len, pool.order.values()))
    conditions = [
        PromptCondition(
            instances.only(frozenset(_first(pool, count, (seed, trial)))).bank(),
            (Place("prompt_count", count, trial),),
        )
        for count in config.counts
        if count <= reachable
        for trial in range(config.count_trials)
    ]
    return conditions, pool.taken


def _first(pool: PromptPool, count: int, seed: tuple[int, int]) -> Iterator[int]:
    """Instance ids of each class on the first `count` of its images, in an order drawn at random."""
    annotations = pool.annotations
    names = annotations.class_names
    for position, (name, order) in enumerate(pool.order.items()):
        chosen = np.random.default_rng((*seed, position)).permutation(order)[:count].tolist()
        for image_id in chosen:
            for instance in annotations.instances_of(image_id):
                if names[annotations.class_index[instance.category_id]] == name:
                    yield instance.id
