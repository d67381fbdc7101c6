"""Seen and unseen classes, training images, prompts and targets: pure functions on annotations.

The protocol is InsA's (paper appendix 1 and 1.2). Every draw has its own generator, seeded by the seed
and, where it is per class, by the class's name, so a new class does not change the others' draws.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError

TrainingRule = Literal["clean", "naive"]


@dataclass(frozen=True)
class SplitRules:
    """The numbers of the protocol."""

    unseen_fraction: float  # share of an in-domain set's classes that are held out, in (0, 1)
    prompts_per_class: int  # prompt images per class, at least 1
    tail_images: int  # a class with at most so many images gets one prompt image
    seen_test_fraction: float  # share of each seen class's images kept from training, in [0, 1)
    # `clean` = an image that shows an unseen class never trains; `naive` = it trains with its seen instances,
    # so that its unseen ones are in the image without a label.
    training_rule: TrainingRule = "clean"


@dataclass(frozen=True)
class Lost:
    """Images that the clean rule excludes from training: they show a seen class and an unseen one too.

    Under the naive rule these are the images that train with unlabelled unseen instances.
    """

    images: int  # such images
    instances: int  # instances of seen classes on them
    images_by_class: dict[str, int]  # unseen class -> those of the images that show it
    instances_by_class: dict[str, int]  # unseen class -> instances of seen classes on the images that show it


@dataclass(frozen=True)
class SetSplit:
    """An in-domain set under one split seed; ids are those of the set's own file."""

    # Class names, sorted; together all classes of the set.
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    # Images that show a seen class, are not kept for the test and, under the clean rule, show no unseen
    # class; only instances of seen classes, and only classes that occur.
    training: Annotations
    # Images of seen classes that never train and show no unseen class, with all classes of the set.
    seen_test: Annotations
    untested_seen: dict[str, str]  # seen class that cannot be tested on `seen_test` -> why
    untested_unseen: dict[str, str]  # unseen class that cannot be tested -> why
    lost: Lost  # what the clean rule costs

    @property
    def tested_seen(self) -> tuple[str, ...]:
        """Seen classes that can be tested."""
        return tuple(name for name in self.seen if name not in self.untested_seen)

    @property
    def tested_unseen(self) -> tuple[str, ...]:
        """Unseen classes that can be tested."""
        return tuple(name for name in self.unseen if name not in self.untested_unseen)


@dataclass(frozen=True)
class PromptTargetSplit:
    """Prompt images and target images of one draw; no image is in both."""

    prompt: Annotations
    target: Annotations


def choose_unseen(names: Collection[str], fraction: float, seed: int) -> tuple[str, ...]:
    """Pick the classes to hold out.

    The first `fraction` of a seeded permutation of the sorted names, rounded half up, at least one: 3 of 10,
    1 of 5, 28 of 111, as in paper appendix 1. Returns the held-out names, sorted.

    Raises:
        DataError: fewer than two classes, or none would be left to train on.
    """
    ordered = sorted(names)
    count = max(1, _half_up(fraction * len(ordered)))
    if count >= len(ordered):
        raise DataError(
            f"{len(ordered)} classes cannot be split into seen and unseen ({count} unseen); "
            "use a set with more classes or lower split.unseen_fraction"
        )
    order = np.random.default_rng(seed).permutation(len(ordered))
    return tuple(sorted(ordered[position] for position in order[:count]))


def split_set(
    name: str, annotations: Annotations, rules: SplitRules, seed: int, unseen: Collection[str] | None = None
) -> SetSplit:
    """Split one in-domain set.

    Of each seen class `seen_test_fraction` of the images without unseen classes (rounded half up) are kept
    for the test, and at least one for training; a class for which that is fewer than two images keeps none.
    Both training rules keep the same images. `name` is for messages; `unseen` are the classes to hold out:
    empty = all classes train, None = drawn, see `choose_unseen`.

    Raises:
        DataError: too few classes, no such class to hold out, or no image is left to train on.
    """
    unseen = _unseen_of(name, annotations, rules, seed, unseen)
    seen = tuple(sorted(set(annotations.class_names) - set(unseen)))
    unseen_ids, seen_ids = _ids_of(annotations, unseen), _ids_of(annotations, seen)
    labels = {image.id: annotations.labels_of(image.id) for image in annotations.images}
    showing_seen = {id_ for id_, shown in labels.items() if shown & seen_ids}
    mixed = {id_ for id_ in showing_seen if labels[id_] & unseen_ids}
    clean = annotations.keep_images(showing_seen - mixed)
    held = _hold_out(clean, seen, rules.seen_test_fraction, seed)
    trainable = showing_seen - mixed if rules.training_rule == "clean" else showing_seen
    if not trainable:
        raise DataError(
            f"{name}: split seed {seed} leaves no training image, as each shows an unseen class "
            f"({', '.join(unseen)}); use another split seed, or hold out others (data.sets.{name}.unseen)"
        )
    training = annotations.keep_images(trainable - held).keep_categories(seen_ids)
    seen_test = clean.keep_images(held)
    return SetSplit(
        seen=seen,
        unseen=unseen,
        training=training.keep_categories({instance.category_id for instance in training.instances}),
        seen_test=seen_test,
        untested_seen=untestable(seen_test, seen),
        untested_unseen=untestable(annotations, unseen),
        lost=_lost(annotations.keep_images(mixed), unseen, unseen_ids),
    )


def _unseen_of(
    name: str, annotations: Annotations, rules: SplitRules, seed: int, named: Collection[str] | None
) -> tuple[str, ...]:
    if named is None:
        try:
            return choose_unseen(annotations.class_names, rules.unseen_fraction, seed)
        except DataError as error:
            raise DataError(
                f"{name}: {error}, or name what to hold out in data.sets.{name}.unseen ([] = nothing)"
            ) from error
    if strangers := sorted(set(named) - set(annotations.class_names)):
        raise DataError(
            f"data.sets.{name}.unseen: {strangers[0]} is no class of the set; "
            f"its classes are {', '.join(annotations.class_names)}"
        )
    return tuple(sorted(set(named)))


def _hold_out(clean: Annotations, classes: Sequence[str], fraction: float, seed: int) -> set[int]:
    """Ids of the images kept for the test of seen classes."""
    held: set[int] = set()
    showing = _showing(clean)
    for class_name in classes:
        images = showing[class_name].images
        count = min(_half_up(fraction * len(images)), len(images) - 1)
        free = [id_ for id_ in images if id_ not in held]
        missing = count - (len(images) - len(free))
        if count >= 2 and missing > 0:
            held.update(_draw_ids(free, missing, seed, class_name))
    return held


def _lost(mixed: Annotations, unseen: Sequence[str], unseen_ids: Collection[int]) -> Lost:
    seen_instances = {
        image.id: sum(item.category_id not in unseen_ids for item in mixed.instances_of(image.id))
        for image in mixed.images
    }
    showing = _showing(mixed)
    return Lost(
        images=len(mixed.images),
        instances=sum(seen_instances.values()),
        images_by_class={name: len(showing[name].images) for name in unseen},
        instances_by_class={
            name: sum(seen_instances[id_] for id_ in showing[name].images) for name in unseen
        },
    )


def untestable(annotations: Annotations, classes: Sequence[str]) -> dict[str, str]:
    """Classes that cannot be prompted on some images, each with the reason.

    A prompt is an image that shows the class and no other (paper appendix 1.2), and there must be a target
    besides. The annotations to draw from have all classes of the set.
    """
    reasons = {}
    showing = _showing(annotations)
    for class_name in classes:
        images, alone = showing[class_name].images, showing[class_name].alone
        if len(images) < 2:
            reasons[class_name] = f"{len(images)} image(s), but a prompt and a target are two"
        elif not alone:
            reasons[class_name] = f"none of its {len(images)} images is without another class, as a prompt is"
    return reasons


def draw_prompts(
    name: str, annotations: Annotations, classes: Sequence[str], rules: SplitRules, seed: int
) -> PromptTargetSplit:
    """Draw prompt images for some classes; what else shows them is a target (paper appendix 1.2).

    A class gets `prompts_per_class` images, or one where it has at most `tail_images`. They show no other
    class of the set, prompted or not; all instances of a prompt image are prompts. A class with too few of
    them gets as many as there are, and always leaves itself a target. Targets are all other images with an
    instance of a prompted class. Both files list the prompted classes only: instances of other classes on
    target images are left out. `name` is for messages; the annotations to draw from have all classes of the
    set, and none of `classes` is `untestable`.

    Raises:
        DataError: a class cannot be prompted.
    """
    for class_name, reason in untestable(annotations, classes).items():
        raise DataError(f"{name}: class {class_name}: {reason}; add images or drop the class")
    prompted = _ids_of(annotations, classes)
    showing = _showing(annotations)
    chosen: set[int] = set()
    for class_name in classes:
        total, alone = len(showing[class_name].images), showing[class_name].alone
        wanted = 1 if total <= rules.tail_images else rules.prompts_per_class
        chosen.update(_draw_ids(alone, min(wanted, len(alone), total - 1), seed, class_name))
    targets = [
        image.id
        for image in annotations.images
        if image.id not in chosen and annotations.labels_of(image.id) & prompted
    ]
    shown = annotations.keep_categories(prompted)
    return PromptTargetSplit(prompt=shown.keep_images(chosen), target=shown.keep_images(targets))


def merge_training(sets: Mapping[str, tuple[str, Annotations]]) -> Annotations:
    """One training file of several sets, all ids anew from 1.

    `sets`: set name -> (raw folder relative to the data's root, training annotations). File names become
    relative to the data's root, classes are named `<set>/<class>`.

    Raises:
        DataError: two sets hold the same file.
    """
    images: list[ImageRecord] = []
    instances: list[InstanceRecord] = []
    categories: list[CategoryRecord] = []
    for name, (folder, annotations) in sets.items():
        category_ids = {}
        for category in sorted(annotations.categories, key=lambda record: record.id):
            category_ids[category.id] = len(categories) + 1
            categories.append(replace(category, id=len(categories) + 1, name=f"{name}/{category.name}"))
        image_ids = {}
        for image in annotations.images:
            image_ids[image.id] = len(images) + 1
            images.append(replace(image, id=len(images) + 1, file_name=f"{folder}/{image.file_name}"))
        for instance in annotations.instances:
            ids = (len(instances) + 1, image_ids[instance.image_id], category_ids[instance.category_id])
            instances.append(replace(instance, id=ids[0], image_id=ids[1], category_id=ids[2]))
    if len({image.file_name for image in images}) < len(images):
        raise DataError("two sets hold the same images; give each set under data.sets its own path")
    return Annotations(tuple(images), tuple(instances), tuple(categories))


def _half_up(value: float) -> int:
    return math.floor(value + 0.5)


def _ids_of(annotations: Annotations, names: Collection[str]) -> frozenset[int]:
    return frozenset(category.id for category in annotations.categories if category.name in names)


@dataclass(frozen=True)
class _Showing:
    """Ids of the images that show a class, and of those that show no other, in file order."""

    images: list[int]
    alone: list[int]


def _showing(annotations: Annotations) -> dict[str, _Showing]:
    """By class name; all categories are there."""
    by_id = {category.id: _Showing([], []) for category in annotations.categories}
    for image in annotations.images:
        labels = annotations.labels_of(image.id)
        for label in labels:
            by_id[label].images.append(image.id)
            if len(labels) == 1:
                by_id[label].alone.append(image.id)
    return {category.name: by_id[category.id] for category in annotations.categories}


def _draw_ids(ids: Sequence[int], count: int, seed: int, class_name: str) -> set[int]:
    rng = np.random.default_rng([seed, *class_name.encode()])
    return {ids[position] for position in rng.permutation(len(ids))[:count]}
