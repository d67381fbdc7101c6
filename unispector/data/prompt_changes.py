"""Changes of prompts in the robustness sweeps: blurred images, inexact boxes, more images.

Source: paper section 4.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from unispector.data.coco import Annotations, ImageRecord
from unispector.errors import DataError

Box = tuple[float, float, float, float]
FloatArray = npt.NDArray[np.float64]

IOU_TOLERANCE = 0.02
LARGEST_FACTOR = 4.0  # by which a shifted box's side may grow or shrink before it is cut at the border
CANDIDATES, ROUNDS = 1024, 64  # half a percent of the candidates fit in the worst place, several elsewhere


def blurred(image: npt.NDArray[np.uint8], sigma: float) -> npt.NDArray[np.uint8]:
    """Gaussian blur; OpenCV derives the kernel's size from `sigma`, the image is mirrored at its border.

    The image is [h, w, 3] uint8, as it was taken; `sigma`, not negative, is in its pixels; 0 leaves it as it
    is. Returns uint8 [h, w, 3].
    """
    if sigma == 0:
        return image
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.uint8)


def shifted_box(box_xywh: Box, iou: float, image_hw: tuple[int, int], rng: np.random.Generator) -> Box:
    """A randomly shifted and scaled box that overlaps the given one by `iou`, by rejection sampling.

    Candidates are shifted by up to a side and scaled by up to `LARGEST_FACTOR` per axis, then cut at the
    image's border; the first whose IoU, as cut, is less than `IOU_TOLERANCE` off is taken. The IoU is that
    of the boxes as numbers: the network sees whole pixels of its own frame, where a box of few pixels may
    overlap more or less.

    Boxes are x, y, width, height in pixels; of the given one the part inside the image counts; `iou` is 0.1
    to 0.9. Returns fractions of pixels, inside the image; a side is at least one pixel, or as long as the
    given box's where that is shorter.

    Raises:
        DataError: there is no such box, for instance in an image of one pixel.
    """
    frame = np.array(image_hw[::-1], dtype=np.float64)
    x, y, width, height = box_xywh
    low, high = np.clip([(x, y), (x + width, y + height)], 0, frame)
    for _ in range(ROUNDS):
        lows, highs = _candidates(low, high, frame, rng)
        fits = np.flatnonzero(np.abs(_ious(low, high, lows, highs) - iou) < IOU_TOLERANCE)
        if len(fits):
            (left, top), (right, bottom) = lows[fits[0]].tolist(), highs[fits[0]].tolist()
            return left, top, right - left, bottom - top
    raise DataError(
        f"box {[round(value, 2) for value in box_xywh]} of a {image_hw[1]}x{image_hw[0]} image cannot be "
        f"shifted to IoU {iou:g}; use a larger image or another IoU"
    )


def _candidates(
    low: FloatArray, high: FloatArray, frame: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Low and high corners of random boxes inside the frame, [n, 2] each; some near the box, some far."""
    side = high - low
    least = np.minimum(side, 1.0)
    strength = rng.random((CANDIDATES, 1))
    middle = (low + high) / 2 + side * strength * rng.uniform(-1, 1, (CANDIDATES, 2))
    half = side / 2 * LARGEST_FACTOR ** (strength * rng.uniform(-1, 1, (CANDIDATES, 2)))
    lows = np.clip(middle - half, 0, frame - least)
    return lows, np.clip(middle + half, lows + least, frame)


def _ious(low: FloatArray, high: FloatArray, lows: FloatArray, highs: FloatArray) -> FloatArray:
    """IoU of one box with each of many, [n]."""
    inner = (np.minimum(high, highs) - np.maximum(low, lows)).clip(0).prod(axis=1)
    outer = (high - low).prod() + (highs - lows).prod(axis=1) - inner
    return np.asarray(inner / outer, dtype=np.float64)


def with_shifted_boxes(annotations: Annotations, iou: float, seed: int, trial: int) -> Annotations:
    """Every instance known by a box that overlaps its own by `iou` (paper section 4.1, ten trials each).

    Masks are dropped, so that the box is the prompt; `iou`, 0.1 to 0.9, is reached to `IOU_TOLERANCE`. A box
    depends on `seed`, `trial` (not negative) and its instance's id only.

    Raises:
        DataError: a box cannot be shifted so; the message names the image and the annotation.
    """
    images = {image.id: image for image in annotations.images}
    shifted = []
    for instance in annotations.instances:
        image = images[instance.image_id]
        rng = np.random.default_rng((seed, trial, instance.id))
        try:
            box = shifted_box(instance.bbox, iou, (image.height, image.width), rng)
        except DataError as error:
            raise DataError(f"{image.file_name}: annotation {instance.id}: {error}") from error
        shifted.append(replace(instance, bbox=box, area=box[2] * box[3], segmentation=None))
    return replace(annotations, instances=tuple(shifted))


@dataclass(frozen=True)
class PromptPool:
    """Prompt images to choose the first k of, class by class."""

    # Class name -> ids of images in `annotations`, those of the prompt file at the front.
    order: dict[str, tuple[int, ...]]
    # All of these images with all their instances of the prompt file's classes. Where an image is in two
    # classes' orders, it prompts each with the instances of that class.
    annotations: Annotations
    taken: frozenset[str]  # file names of the images that were targets; none may be looked at, whatever k is


def prompt_pool(prompts: Annotations, targets: Annotations, images_per_class: int, seed: int) -> PromptPool:
    """Up to `images_per_class` prompt images per class, for the sweep over their number.

    A class's images of the prompt file come first, in an order drawn at random; then follow images drawn from
    the targets that show this class and, as far as the target file tells, no other (paper appendix 1.2). At
    most half of the target images that show a class are taken. The files are joined by file name and class
    name, as either may number images and classes its own way; the pool's image and instance ids are new.
    A class may get fewer images; another class does not change a class's draw.
    """
    own, others = _files_by_class(prompts), _files_by_class(targets)
    prompt_files = {image.file_name for image in prompts.images}
    chosen: dict[str, list[str]] = {}
    for class_name in prompts.class_names:
        rng = np.random.default_rng((seed, *class_name.encode()))
        first = _shuffled(own[class_name].images, rng)
        showing = others.get(class_name, _Files([], []))
        free = [name for name in showing.alone if name not in prompt_files]
        further = _shuffled(free, rng)[: len(showing.images) // 2]
        chosen[class_name] = (first + further)[:images_per_class]
    files = dict.fromkeys(name for names in chosen.values() for name in names)
    ids = {name: number for number, name in enumerate(files, start=1)}
    return PromptPool(
        order={class_name: tuple(ids[name] for name in names) for class_name, names in chosen.items()},
        annotations=_joined(prompts, targets, ids),
        taken=frozenset(files.keys() - prompt_files),
    )


@dataclass(frozen=True)
class _Files:
    """File names of the images with an instance of a class, no crowd, and of those that show no other."""

    images: list[str]
    alone: list[str]


def _files_by_class(annotations: Annotations) -> dict[str, _Files]:
    by_id = {category.id: _Files([], []) for category in annotations.categories}
    for image in annotations.images:
        labels = annotations.labels_of(image.id)
        for label in {item.category_id for item in annotations.instances_of(image.id) if not item.iscrowd}:
            by_id[label].images.append(image.file_name)
            if len(labels) == 1:
                by_id[label].alone.append(image.file_name)
    return {category.name: by_id[category.id] for category in annotations.categories}


def _shuffled(names: Sequence[str], rng: np.random.Generator) -> list[str]:
    return [names[position] for position in rng.permutation(len(names))]


def _joined(prompts: Annotations, targets: Annotations, ids: Mapping[str, int]) -> Annotations:
    """The images of `ids` with these ids and the prompt file's classes; its own record of a file counts."""
    category_ids = {category.name: category.id for category in prompts.categories}
    images: dict[str, ImageRecord] = {}
    instances = []
    for part in (prompts, targets):
        names = {category.id: category.name for category in part.categories}
        for image in part.images:
            if image.file_name not in ids or image.file_name in images:
                continue
            images[image.file_name] = replace(image, id=ids[image.file_name])
            instances += [
                replace(
                    item, image_id=ids[image.file_name], category_id=category_ids[names[item.category_id]]
                )
                for item in part.instances_of(image.id)
            ]
    return Annotations(
        images=tuple(images[name] for name in ids),
        instances=tuple(replace(item, id=number) for number, item in enumerate(instances, start=1)),
        categories=prompts.categories,
    )
