"""Seen and unseen classes, training images, prompts and targets: pure functions on annotations.

The protocol is InsA's (paper appendix 1 and 1.2). Every draw has its own generator, seeded by the seed
and, where it is per class, by the class's name, so a new class does not change the others' draws.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from unispector.data.coco import Annotations, CategoryRecord, ImageRecord, InstanceRecord
from unispector.errors import DataError


@dataclass(frozen=True)
class SplitRules:
    """The numbers of the protocol.

    Attributes:
        unseen_fraction: share of an in-domain set's classes that are held out, in (0, 1).
        prompts_per_class: prompt images per class, at least 1.
        tail_images: a class with at most so many images gets one prompt image.
        seen_test_fraction: share of each seen class's images kept from training, in [0, 1).
    """

    unseen_fraction: float
    prompts_per_class: int
    tail_images: int
    seen_test_fraction: float


@dataclass(frozen=True)
class SetSplit:
    """An in-domain set under one split seed; ids are those of the set's own file.

    Attributes:
        seen, unseen: class names, sorted; together all classes of the set.
        training: images that show no unseen class and are not kept for the test; only classes that
            occur in them.
        seen_test: images of seen classes that never train, with all classes of the set.
        tested_seen: seen classes that can be tested on `seen_test`.
        lost_images: images that show a seen class but cannot train, for they show an unseen one too.
    """

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    training: Annotations
    seen_test: Annotations
    tested_seen: tuple[str, ...]
    lost_images: int


@dataclass(frozen=True)
class Draw:
    """Prompt images and target images of one draw; no image is in both."""

    prompt: Annotations
    target: Annotations


def choose_unseen(names: Collection[str], fraction: float, seed: int) -> tuple[str, ...]:
    """Pick the classes to hold out.

    The first `fraction` of a seeded permutation of the sorted names, rounded half up, at least one: 3 of
    10, 1 of 5, 28 of 111, as in paper appendix 1.

    Args:
        names: class names of one set.
        fraction: share in (0, 1).
        seed: split seed.

    Returns:
        The held-out names, sorted.

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


def split_set(name: str, annotations: Annotations, rules: SplitRules, seed: int) -> SetSplit:
    """Split one in-domain set.

    Of each seen class `seen_test_fraction` of the images without unseen classes (rounded half up) are kept
    for the test, and at least one for training; a class for which that is fewer than two images keeps none.
    A seen class is tested when the kept images hold two of it, one of them with no other class, which a
    prompt needs.

    Args:
        name: name of the set, for messages.
        annotations: all classes and images of the set.
        rules: the protocol's numbers.
        seed: split seed.

    Raises:
        DataError: too few classes, or no image is left to train on.
    """
    try:
        unseen = choose_unseen(annotations.class_names, rules.unseen_fraction, seed)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    unseen_ids = _ids_of(annotations, unseen)
    seen = tuple(sorted(set(annotations.class_names) - set(unseen)))
    labelled = [image.id for image in annotations.images if annotations.labels_of(image.id)]
    clean = annotations.keep_images([id_ for id_ in labelled if not annotations.labels_of(id_) & unseen_ids])
    lost = sum(
        1
        for id_ in labelled
        if annotations.labels_of(id_) & unseen_ids and annotations.labels_of(id_) - unseen_ids
    )
    if not clean.images:
        raise DataError(
            f"{name}: split seed {seed} leaves no training image, as each shows an unseen class "
            f"({', '.join(unseen)}); use another split seed"
        )
    held = _hold_out(clean, seen, rules.seen_test_fraction, seed)
    training = clean.keep_images({image.id for image in clean.images} - held)
    seen_test = clean.keep_images(held)
    tested = tuple(
        class_name
        for class_name in seen
        if len(_images_with(seen_test, class_name)) >= 2 and _single_label(seen_test, class_name)
    )
    trained = {instance.category_id for instance in training.instances}
    return SetSplit(seen, unseen, training.keep_categories(trained), seen_test, tested, lost)


def _hold_out(clean: Annotations, classes: Sequence[str], fraction: float, seed: int) -> set[int]:
    """Ids of the images kept for the test of seen classes."""
    held: set[int] = set()
    for class_name in classes:
        images = _images_with(clean, class_name)
        count = min(_half_up(fraction * len(images)), len(images) - 1)
        free = [id_ for id_ in images if id_ not in held]
        missing = count - (len(images) - len(free))
        if count >= 2 and missing > 0:
            held.update(_draw_ids(free, missing, seed, class_name))
    return held


def draw_prompts(
    name: str, annotations: Annotations, classes: Sequence[str], rules: SplitRules, seed: int
) -> Draw:
    """Draw prompt images for some classes; what else shows them is a target (paper appendix 1.2).

    A class gets `prompts_per_class` images, or one where it has at most `tail_images`. They show no other
    class of the set, prompted or not; all instances of a prompt image are prompts. A class with too few of
    them gets as many as there are, and always leaves itself a target. Targets are all other images with an
    instance of a prompted class. Both files list the prompted classes only: instances of other classes on
    target images are left out.

    Args:
        name: name of the set, for messages.
        annotations: the images to draw from, with all classes of the set.
        classes: the classes to prompt.
        rules: the protocol's numbers.
        seed: prompt seed.

    Raises:
        DataError: a class has no image that shows it alone, or fewer than two images.
    """
    prompted = _ids_of(annotations, classes)
    chosen: set[int] = set()
    for class_name in classes:
        total = len(_images_with(annotations, class_name))
        single = _single_label(annotations, class_name)
        if total < 2 or not single:
            raise DataError(
                f"{name}: class {class_name} has {total} image(s), {len(single)} of them without another "
                "class; a prompt needs one without and a target another, so add images or drop the class"
            )
        wanted = 1 if total <= rules.tail_images else rules.prompts_per_class
        chosen.update(_draw_ids(single, min(wanted, len(single), total - 1), seed, class_name))
    targets = [
        image.id
        for image in annotations.images
        if image.id not in chosen and annotations.labels_of(image.id) & prompted
    ]
    shown = annotations.keep_categories(prompted)
    return Draw(prompt=shown.keep_images(chosen), target=shown.keep_images(targets))


def merge_training(sets: Mapping[str, tuple[str, Annotations]]) -> Annotations:
    """One training file of several sets, all ids anew from 1.

    Args:
        sets: set name -> (raw folder relative to the data's root, training annotations).

    Returns:
        Annotations whose file names are relative to the data's root and whose classes are named
        `<set>/<class>`.

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


def _images_with(annotations: Annotations, class_name: str) -> list[int]:
    return _images_where(annotations, class_name, lambda labels, wanted: wanted <= labels)


def _single_label(annotations: Annotations, class_name: str) -> list[int]:
    return _images_where(annotations, class_name, lambda labels, wanted: wanted == labels)


def _images_where(
    annotations: Annotations, class_name: str, fits: Callable[[frozenset[int], frozenset[int]], bool]
) -> list[int]:
    wanted = _ids_of(annotations, [class_name])
    return [image.id for image in annotations.images if fits(annotations.labels_of(image.id), wanted)]


def _draw_ids(ids: Sequence[int], count: int, seed: int, class_name: str) -> set[int]:
    rng = np.random.default_rng([seed, *class_name.encode()])
    return {ids[position] for position in rng.permutation(len(ids))[:count]}
