"""Large images looked at piece by piece: marks seen in tiles, and targets searched in tiles."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby
from typing import Literal

import numpy as np

from unispector.data.coco import Annotations
from unispector.data.dataset import InstanceDataset
from unispector.data.samples import build_sample
from unispector.data.transforms import ImageArray, ResizedImage, resize_mask
from unispector.detections import Detections
from unispector.inference.geometry import Geometry
from unispector.inference.marking import Prompt, marks_of, prompts_by_image
from unispector.inference.merging import Seams, best_of
from unispector.inference.prompt_bank import PromptBank
from unispector.inference.tiles import Window, fits, windows, windows_around
from unispector.ops.images import ImageInput, as_pixels
from unispector.ops.rle import BoolArray, segmentation_to_mask
from unispector.structures import Sample

Look = Callable[[Iterable[ImageInput], Sequence[PromptBank]], Iterator[tuple[Detections, ...]]]
"""Detections of each bank on images that are looked at as a whole."""

NOT_MEANT = -1  # number of a mark that only shows beside those that a tile is for


@dataclass(frozen=True)
class Mark:
    """A mark on a large image."""

    box_xywh: Sequence[float]  # pixels of the image, inside of it
    label: int  # its class
    number: int  # among all marks that are encoded together
    mask: (
        Callable[[], BoolArray] | None
    )  # makes the mask of the image's size, which may be large; None = the box


def marks_in_tiles(
    prompts: Sequence[Prompt],
    labels: Sequence[int],
    classes: Sequence[bool],
    geometry: Geometry,
    side: int,
    bit_depth: int = 16,
) -> Iterator[tuple[Sample, list[int]]]:
    """Read the marks of some classes into the network's frame, each from a tile around it.

    Args:
        classes: which of the classes are meant.
        side: of the tiles in pixels of the image.
        bit_depth: as of `as_pixels`.

    Yields:
        A tile with all marks it shows, and the number of each; see `tile_samples`.

    Raises:
        DataError: as `mark`.
    """
    number = 0
    for group in prompts_by_image(prompts, labels):
        pixels = as_pixels(group[0][0].image, bit_depth)
        marks: list[Mark] = []
        for prompt, label in group:
            boxes, masks = marks_of(prompt, pixels.shape[:2])
            for box, mask in zip(boxes, masks, strict=True):
                marks.append(Mark(box, label, number, None if mask is None else partial(np.asarray, mask)))
                number += 1
        yield from tile_samples(pixels, marks, classes, geometry, side)


def annotations_in_tiles(
    images: InstanceDataset,
    annotations: Annotations,
    roi: Literal["box", "mask"],
    classes: Sequence[bool],
    geometry: Geometry,
    side: int,
) -> Iterator[tuple[Sample, list[int]]]:
    """`marks_in_tiles`, of annotated images.

    Raises:
        DataError: an image cannot be used.
    """
    number = 0
    for index, record in enumerate(annotations.images):
        marks: list[Mark] = []
        for instance in annotations.instances_of(record.id):
            if instance.iscrowd:
                continue
            mask = None
            if roi == "mask" and instance.segmentation:
                mask = partial(segmentation_to_mask, instance.segmentation, record.height, record.width)
            label = annotations.class_index[instance.category_id]
            marks.append(Mark(instance.bbox, label, number, mask))
            number += 1
        if any(classes[mark.label] for mark in marks):
            yield from tile_samples(images.pixels(index), marks, classes, geometry, side)


def numbered(samples: Iterable[Sample]) -> Iterator[tuple[Sample, Sequence[int]]]:
    """Marked images whose marks are all meant, counted through."""
    first = 0
    for sample in samples:
        yield sample, range(first, first + len(sample.targets))
        first += len(sample.targets)


def tile_samples(
    pixels: ImageArray, marks: Sequence[Mark], classes: Sequence[bool], geometry: Geometry, side: int
) -> Iterator[tuple[Sample, list[int]]]:
    """Read the marks of some classes on an image, each from a tile around it.

    Yields:
        A tile with all marks it shows, as its surroundings are what none of them covers; and the number of
        each, `NOT_MEANT` of one that is of another class or lies in another tile.
    """
    meant = [mark for mark in marks if classes[mark.label]]
    for tile, rows in windows_around([mark.box_xywh for mark in meant], pixels.shape[:2], side):
        own = {meant[row].number for row in rows}
        boxes, masks, shown = list[Sequence[float]](), list[BoolArray](), list[Mark]()
        for mark in marks:
            box = _cut(mark.box_xywh, tile)
            if min(box[2:]) < 1 and mark.number not in own:
                continue
            mask = np.zeros((1, 1), dtype=np.bool_)
            if mark.mask is not None:
                mask = mark.mask()[tile.top : tile.bottom, tile.left : tile.right]
                if not mask.any() and mark.number not in own:
                    continue
            boxes.append(box)
            masks.append(resize_mask(mask, geometry.image_size))
            shown.append(mark)
        part = pixels[tile.top : tile.bottom, tile.left : tile.right]
        resized = ResizedImage.of(part, boxes, masks, geometry.image_size)
        sample = build_sample(resized, [mark.label for mark in shown], geometry, original_hw=part.shape[:2])
        yield sample, [mark.number if mark.number in own else NOT_MEANT for mark in shown]


def _cut(box_xywh: Sequence[float], tile: Window) -> tuple[float, ...]:
    """A box in pixels of a tile, cut at its edges."""
    left, top = max(box_xywh[0], tile.left), max(box_xywh[1], tile.top)
    right, bottom = min(box_xywh[0] + box_xywh[2], tile.right), min(box_xywh[1] + box_xywh[3], tile.bottom)
    return left - tile.left, top - tile.top, right - left, bottom - top


@dataclass(frozen=True)
class TiledSearch:
    """How targets are searched by banks with tiles."""

    look: Look
    limit: int  # detections kept per image
    nms_iou: float  # of two detections of a class that overlap more, the better one is kept
    progress: Callable[[int, int], None] | None  # told the tiles of an image that are done, and all

    def stream(
        self, images: Iterable[ImageInput], banks: Sequence[PromptBank]
    ) -> Iterator[tuple[Detections, ...]]:
        """Detections of each bank on every image; of large images one is held at a time.

        Raises:
            DataError: while iterating, an image is unreadable.
        """
        sides = {side for bank in banks for side in bank.tiles if side}
        decoded = (as_pixels(image, banks[0].bit_depth) for image in images)
        for are_small, some in groupby(decoded, lambda pixels: all(fits(pixels.shape[:2], s) for s in sides)):
            if are_small:
                yield from self.look(some, banks)
            else:
                yield from (self._search(pixels, banks) for pixels in some)

    def _search(self, pixels: ImageArray, banks: Sequence[PromptBank]) -> tuple[Detections, ...]:
        hw = pixels.shape[:2]
        groups: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for number, bank in enumerate(banks):
            seen_in = [0 if fits(hw, side) else side for side in bank.tiles]
            for side in set(seen_in):
                names = tuple(
                    name for name, own in zip(bank.class_names, seen_in, strict=True) if own == side
                )
                groups.setdefault((side, names), []).append(number)
        tiles = {side: windows(hw, side) for side, _ in groups if side}
        total, done = sum(len(tiles.get(side, ())) for side, _ in groups), 0
        parts: list[list[Detections]] = [[] for _ in banks]
        for (side, names), numbers in sorted(groups.items()):
            own = [banks[number].select(names) for number in numbers]
            cut = tiles.get(side, [])
            # The whole image comes first: it shows what is larger than a tile.
            views = chain([pixels], (pixels[t.top : t.bottom, t.left : t.right] for t in cut))
            found = self.look(views, own)
            whole = next(found)
            seams = [Seams(hw, side, self.limit) for _ in own]
            for tile, of_tile in zip(cut, found, strict=True):
                for seam, detections in zip(seams, of_tile, strict=True):
                    seam.add(tile, detections)
                done += 1
                if self.progress is not None:
                    self.progress(done, total)
            for number, seam, detections in zip(numbers, seams, whole, strict=True):
                parts[number].append(seam.merged(detections, self.nms_iou) if side else detections)
        return tuple(best_of(own, banks[0].class_names, self.limit) for own in parts)
