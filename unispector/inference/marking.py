"""Marks a user draws on an image of a defect, turned into what the prompt encoder reads."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.data.coco import Annotations, ImageRecord, Segmentation
from unispector.data.samples import build_sample
from unispector.data.transforms import ResizedImage, resize_mask
from unispector.errors import DataError, PromptBankError
from unispector.inference.geometry import Geometry
from unispector.names import name_problem
from unispector.ops.images import ImageInput, as_pixels
from unispector.ops.rle import BoolArray, segmentation_to_rle
from unispector.structures import Sample

LEAST_INSIDE = 0.1  # share of a box; one that lies farther out was drawn on another image or scale

LEAST_SEEN = 1.0  # pixels that a side of an annotated box has inside the image, at least

SLACK = 2.0  # pixels that a box may stick out without a word

ALL = "*"
"""Label of a mark that is none of the classes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompt:
    """One image with at least one marked instance of one class; give boxes or masks, not both."""

    image: ImageInput  # file, array (grey, RGB or RGBA) or PIL image
    boxes_xywh: Sequence[Sequence[float]] = ()  # K boxes (left, top, width, height) in pixels of the image
    # Bool or uint8 (not 0 = marked) [K, h, w] of the image's size, or [h, w] for one.
    masks: npt.NDArray[np.bool_] | npt.NDArray[np.uint8] | None = None
    label: str = "defect"  # name of the class that the marks show, or, as a negative, do not show


def mark(prompt: Prompt, label: int, geometry: Geometry) -> Sample:
    """Read a prompt into the network's frame, as the data set does for an annotated image.

    Raises:
        DataError: the image is unreadable; no name; no mark; boxes and masks at once; a box of no size or
            mostly outside the image; an empty mask or one of another size. The message names the image.
    """
    (sample,) = mark_together([prompt], [label], geometry)
    return sample


def mark_together(
    prompts: Sequence[Prompt], labels: Sequence[int], geometry: Geometry, bit_depth: int = 16
) -> Iterator[Sample]:
    """Read prompts into the network's frame, those of the same image as one sample.

    An image's surroundings are what none of its marks covers, so all of them must be known at once.

    Args:
        bit_depth: as of `as_pixels`.

    Raises:
        DataError: as `mark`.
    """
    for group in prompts_by_image(prompts, labels):
        pixels = as_pixels(group[0][0].image, bit_depth)
        boxes, masks, classes = list[Sequence[float]](), list[BoolArray](), list[int]()
        for prompt, label in group:
            own_boxes, own_masks = marks_of(prompt, pixels.shape[:2])
            boxes += own_boxes
            masks += [_resized(mask, geometry.image_size) for mask in own_masks]
            classes += [label] * len(own_boxes)
        resized = ResizedImage.of(pixels, boxes, masks, geometry.image_size)
        yield build_sample(resized, classes, geometry, original_hw=pixels.shape[:2])


def by_class(negatives: Sequence[Prompt], names: Sequence[str]) -> list[list[Prompt]]:
    """Of each class the marks of what it is not; those that are none of the classes are in every list.

    Raises:
        PromptBankError: a mark names another class.
    """
    if strange := [each.label for each in negatives if each.label not in (ALL, *names)]:
        raise PromptBankError(
            f"a mark of what is not '{strange[0]}', but the classes are {', '.join(names)}; name one of "
            f"them, or '{ALL}' for all"
        )
    return [[each for each in negatives if each.label in (ALL, name)] for name in names]


def check_annotated(annotations: Annotations) -> None:
    """Refuse annotations that mark nothing; groups (`iscrowd`), which prompt nothing, are passed over.

    Raises:
        DataError: a mark without an area inside its image; the message names image and mark.
    """
    images = {image.id: image for image in annotations.images}
    for instance in annotations.instances:
        image = images[instance.image_id]
        if instance.iscrowd:
            continue
        name, mend = f"{image.file_name}: annotation {instance.id}", "mark at least one, or remove it"
        x, y, width, height = instance.bbox
        sides = min(x + width, image.width) - max(x, 0), min(y + height, image.height) - max(y, 0)
        if not np.isfinite(instance.bbox).all() or min(width, height) <= 0 or min(sides) < LEAST_SEEN:
            shown = ",".join(f"{value:g}" for value in instance.bbox)
            raise DataError(f"{name}: its box {shown} marks no pixel of the image; {mend}")
        if instance.segmentation is not None and not _has_area(instance.segmentation, image, name):
            raise DataError(f"{name}: its mask marks no pixel of the image; {mend}")


def _has_area(segmentation: Segmentation, image: ImageRecord, name: str) -> bool:
    """Return whether a mask marks a pixel, or has a polygon too thin for one."""
    try:
        if coco_mask.area(segmentation_to_rle(segmentation, image.height, image.width)) > 0:
            return True
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    if isinstance(segmentation, dict):
        return False
    corners = (np.reshape(part, (-1, 2)) for part in segmentation)
    inside = (corner.clip(0, (image.width, image.height)) for corner in corners)
    return any(cv2.contourArea(corner.astype(np.float32)) > 0 for corner in inside)


def prompts_by_image(
    prompts: Sequence[Prompt], labels: Sequence[int]
) -> Collection[Sequence[tuple[Prompt, int]]]:
    """Prompts and their labels, those of the same image together."""
    groups: dict[str | int, list[tuple[Prompt, int]]] = {}
    for prompt, label in zip(prompts, labels, strict=True):
        key = str(prompt.image) if isinstance(prompt.image, str | Path) else id(prompt.image)
        groups.setdefault(key, []).append((prompt, label))
    return groups.values()


def marks_of(
    prompt: Prompt, hw: tuple[int, int]
) -> tuple[list[tuple[float, ...]], Sequence[BoolArray | None]]:
    """A prompt's checked boxes XYWH, and its masks; a box's is None.

    Raises:
        DataError: as `mark`.
    """
    name = str(prompt.image) if isinstance(prompt.image, str | Path) else "the prompt image"
    if not prompt.label.strip():
        raise DataError(f"{name}: the defect marked on it has an empty name; give it one")
    if problem := name_problem(prompt.label):
        raise DataError(f"{name}: the name {prompt.label[:80]!r} of the defect {problem}; give it another")
    if (prompt.masks is None) == (len(prompt.boxes_xywh) == 0):
        raise DataError(f"{name}: mark the defect with boxes or with masks, one of the two")
    if prompt.masks is None:
        boxes = [_checked_box(box, name, hw) for box in prompt.boxes_xywh]
        return boxes, [None] * len(boxes)
    masks = _stack(prompt.masks)
    return [_box_of(mask, name, hw) for mask in masks], list(masks)


def _resized(mask: BoolArray | None, size: int) -> BoolArray:
    return np.zeros((size, size), dtype=np.bool_) if mask is None else resize_mask(mask, size)


def _checked_box(box: Sequence[float], name: str, hw: tuple[int, int]) -> tuple[float, ...]:
    """A box XYWH, cut at the image's edge."""
    shown = ",".join(f"{value:g}" for value in np.atleast_1d(box))
    if np.shape(box) != (4,) or not np.isfinite(box).all() or min(box[2:]) <= 0:
        raise DataError(f"{name}: box {shown} must be left,top,width,height in pixels with a size above 0")
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    right, bottom = min(box[0] + box[2], float(hw[1])), min(box[1] + box[3], float(hw[0]))
    inside = f"inside the image of {hw[1]}x{hw[0]} pixels"
    if right - left < 1 or bottom - top < 1:
        raise DataError(f"{name}: box {shown} has less than a pixel {inside}")
    if (right - left) * (bottom - top) < LEAST_INSIDE * box[2] * box[3]:
        raise DataError(f"{name}: box {shown} has less than a tenth of its area {inside}")
    if box[0] + box[2] > hw[1] + SLACK or box[1] + box[3] > hw[0] + SLACK:
        logger.warning(
            "%s: box %s ends at %g,%g, outside the image of %dx%d pixels, and is cut there; boxes are "
            "left,top,width,height, not left,top,right,bottom",
            *(name, shown, box[0] + box[2], box[1] + box[3], hw[1], hw[0]),
        )
    return left, top, right - left, bottom - top


def _box_of(mask: npt.NDArray[np.bool_], name: str, hw: tuple[int, int]) -> tuple[float, ...]:
    """The tight XYWH box of a checked mask."""
    if mask.shape != hw:
        size = "x".join(str(side) for side in reversed(mask.shape))
        raise DataError(f"{name}: its mask is {size} pixels, the image {hw[1]}x{hw[0]}; they must be equal")
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise DataError(f"{name}: its mask is all black; mark at least one pixel")
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


def _stack(masks: npt.NDArray[np.bool_] | npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Masks [h, w] or [K, h, w] as bool [K, h, w]."""
    marked: npt.NDArray[np.bool_] = np.asarray(masks).astype(np.bool_)
    return marked if marked.ndim == 3 else marked[None]
