"""Annotation files put together."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

from unispector.data.coco import Annotations
from unispector.errors import DataError


def joined(first: Annotations, second: Annotations) -> Annotations:
    """The images and instances of two files of the same categories, numbered anew from 1.

    Raises:
        DataError: the categories differ, or an image is in both.
    """
    if first.class_names != second.class_names:
        raise DataError(
            f"files of different classes ({', '.join(first.class_names)} and "
            f"{', '.join(second.class_names)}) cannot be joined"
        )
    if both := {image.file_name for image in first.images} & {image.file_name for image in second.images}:
        raise DataError(f"{min(both)}: the image is in both files; take it out of one")
    image_numbers, instance_numbers = count(1), count(1)
    images, instances = [], []
    for part in (first, second):
        category = dict(zip(sorted(part.class_index), sorted(first.class_index), strict=True))
        for image in part.images:
            images.append(replace(image, id=next(image_numbers)))
            instances += [
                replace(
                    instance,
                    id=next(instance_numbers),
                    image_id=images[-1].id,
                    category_id=category[instance.category_id],
                )
                for instance in part.instances_of(image.id)
            ]
    return Annotations(tuple(images), tuple(instances), first.categories)


def with_prompts(targets: Annotations, prompts: Annotations) -> Annotations:
    """The targets and those prompt images that are not among them.

    Raises:
        DataError: the categories differ.
    """
    known = {image.file_name for image in targets.images}
    missing = [image.id for image in prompts.images if image.file_name not in known]
    return joined(targets, prompts.keep_images(missing)) if missing else targets


def overlaid(variants: Sequence[Annotations]) -> tuple[Annotations, tuple[frozenset[int], ...]]:
    """Several versions of the instances of the same images, as one file.

    `variants`, at least one, are equal but for their instances. Returns the file, its instances numbered anew
    from 1, and each variant's instance ids in it.
    """
    numbers = count(1)
    numbered = [[replace(i, id=next(numbers)) for i in variant.instances] for variant in variants]
    everything = tuple(instance for instances in numbered for instance in instances)
    ids = tuple(frozenset(instance.id for instance in instances) for instances in numbered)
    return replace(variants[0], instances=everything), ids
