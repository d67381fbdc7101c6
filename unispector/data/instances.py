"""One row of a source to instances: files are opened, masks cut, boxes and areas measured.

This is what runs in worker processes; nothing here imports torch.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.data.coco import BOX_SLACK, Segmentation
from unispector.data.sources import reasons
from unispector.data.sources.rows import BinaryMask, Box, ClassMask, Code, Dropped, Entry, Mark, Polygon
from unispector.errors import DataError
from unispector.ops.components import components
from unispector.ops.files import is_turned, read_class_mask, read_image_size, read_mask
from unispector.ops.rle import BoolArray, encode_crop, segmentation_to_mask, segmentation_to_rle

EMPTY_MASK = "mask marks nothing"
TOO_SMALL = "every component too small"
SMALL_COMPONENT = "component too small"
EMPTY_REGION = "region without a pixel of its image"
UPRIGHT = "image turned by its EXIF orientation, stated as stored, marked upright"


@dataclass(frozen=True)
class Instance:
    """One instance as the annotation file holds it."""

    category: str  # its class's name
    bbox: tuple[float, float, float, float]  # x, y, width, height in pixels
    area: float  # pixels of its mask
    # Run-length code; of an instance known by its box only, the rectangle as a polygon.
    segmentation: Segmentation


@dataclass(frozen=True)
class ImageInstances:
    """One image of a set, read."""

    file_name: str  # posix path relative to the set's folder
    product: str  # what it shows
    # Size of the file in pixels.
    width: int
    height: int
    instances: tuple[Instance, ...]  # those that were kept
    found: dict[str, int]  # instances per category before any was dropped
    dropped: tuple[Dropped, ...]  # what was, by reason


@dataclass
class _Sheet:
    """The data collected of one image so far."""

    entry: Entry
    root: Path
    width: int
    height: int
    min_side: float
    kept: list[Instance] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    notes: list[Dropped] = field(default_factory=list)  # what is told although no instance is lost by it

    def is_small(self, width: float, height: float) -> bool:
        # Quotients round right, while 0.07 * 100 is above 7 in floating point.
        return width / self.width < self.min_side or height / self.height < self.min_side


def read_instances(entry: Entry, root: Path, min_side: float) -> ImageInstances:
    """Open an image's files and measure its instances (paper appendix 1.1).

    Masks fall into 8-connected components and become run-length codes; box and area are those of the pixels.
    An instance is dropped when its box's width or height is under `min_side` of the image's. `root` is the
    set's folder; `min_side` is in [0, 1), and 0 keeps instances of any size. A stated size may be that of the
    image before its EXIF orientation turns it, if the marks fit only the turned one.

    Raises:
        DataError: a file is absent or cannot be decoded, sizes disagree, a polygon or code is malformed.
    """
    width, height = read_image_size(root / entry.file_name)
    sheet = _Sheet(entry, root, width, height, min_side)
    if entry.size not in (None, (width, height)):
        _check_turned(sheet)
        sheet.notes.append(Dropped(UPRIGHT, entry.file_name))
    for mark in entry.marks:
        match mark:
            case BinaryMask():
                grey = _of_the_image_size(sheet, mark.file, read_mask(root / mark.file))
                _cut(sheet, grey > mark.threshold, mark.defect)
            case ClassMask():
                _cut_classes(sheet, mark)
            case Box():
                _add_box(sheet, mark)
            case Polygon():
                _add_region(sheet, mark.defect, [list(part) for part in mark.parts])
            case Code():
                _add_region(sheet, mark.defect, dict(mark.rle))
    return ImageInstances(
        file_name=entry.file_name,
        product=entry.product,
        width=width,
        height=height,
        instances=tuple(sheet.kept),
        found=dict(sheet.found),
        dropped=(*sheet.notes, *_told_losses(sheet)),
    )


def _check_turned(sheet: _Sheet) -> None:
    """Refuse a stated size that is not the image's; see `read_instances` for the stored one."""
    file, upright = sheet.root / sheet.entry.file_name, (sheet.width, sheet.height)
    stated = sheet.entry.size or upright
    is_, told = (f"{size[0]}x{size[1]}" for size in (upright, stated))
    if stated != upright[::-1] or not is_turned(file):
        raise DataError(
            f"{file}: the image is {is_} but its annotation says {told}; restore the image that belongs to it"
        )
    ends = [end for mark in sheet.entry.marks if (end := _end(mark)) is not None]
    if not all(_fits(end, upright) for end in ends) or all(_fits(end, stated) for end in ends):
        raise DataError(
            f"{file}: its EXIF orientation turns it to {is_}, but its annotation says {told}; "
            "swap width and height there if the marks lie on the upright image, otherwise save the image "
            "without its EXIF orientation"
        )


def _end(mark: Mark) -> tuple[float, float] | None:
    """Right and bottom end of a mark, of a code's image; None for a mask file, checked later."""
    match mark:
        case Box():
            return mark.xywh[0] + mark.xywh[2], mark.xywh[1] + mark.xywh[3]
        case Polygon():
            return max(max(part[0::2]) for part in mark.parts), max(max(part[1::2]) for part in mark.parts)
        case Code(rle={"size": [int(height), int(width)]}):
            return width, height
    return None


def _fits(end: tuple[float, float], size: tuple[int, int]) -> bool:
    return end[0] <= size[0] + BOX_SLACK and end[1] <= size[1] + BOX_SLACK


def _told_losses(sheet: _Sheet) -> Iterator[Dropped]:
    name = sheet.entry.file_name
    if not sheet.found and not sheet.losses:
        yield Dropped(EMPTY_MASK, name)
    for reason, count in sheet.losses.items():
        every = reason == SMALL_COMPONENT and not sheet.kept
        yield Dropped(TOO_SMALL if every else reason, name, count)


def _of_the_image_size(sheet: _Sheet, file: str, mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if mask.shape != (sheet.height, sheet.width):
        raise DataError(
            f"{sheet.root / file}: mask is {mask.shape[1]}x{mask.shape[0]} but its image is "
            f"{sheet.width}x{sheet.height}; restore the mask that belongs to it"
        )
    return mask


def _cut(sheet: _Sheet, mask: BoolArray, defect: str) -> None:
    for crop, left, top in components(mask):
        _add_pixels(sheet, defect, crop, left, top)


def _cut_classes(sheet: _Sheet, mark: ClassMask) -> None:
    values = _of_the_image_size(sheet, mark.file, read_class_mask(sheet.root / mark.file))
    for value in np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist():
        if value in mark.defects:
            _cut(sheet, values == value, mark.defects[value])
        elif value:
            reason = reasons.LEFT_OUT_CLASS if value in mark.left_out else reasons.UNKNOWN_CLASS
            name = mark.left_out.get(value, f"value {value}")
            sheet.losses[f"{reason}: {name}"] += sum(1 for _ in components(values == value))


def _add_pixels(sheet: _Sheet, defect: str, crop: BoolArray, left: int, top: int) -> None:
    """An instance whose tight crop is `crop`."""
    height, width = crop.shape
    category = sheet.entry.category(defect)
    sheet.found[category] += 1
    if sheet.is_small(width, height):
        sheet.losses[SMALL_COMPONENT] += 1
        return
    code = encode_crop(crop, left, top, sheet.height, sheet.width)
    box = (float(left), float(top), float(width), float(height))
    sheet.kept.append(Instance(category, box, float(np.count_nonzero(crop)), code))


def _add_box(sheet: _Sheet, mark: Box) -> None:
    left, top = max(mark.xywh[0], 0.0), max(mark.xywh[1], 0.0)
    right = min(mark.xywh[0] + mark.xywh[2], float(sheet.width))
    bottom = min(mark.xywh[1] + mark.xywh[3], float(sheet.height))
    category = sheet.entry.category(mark.defect)
    sheet.found[category] += 1
    corners = [left, top, right, top, right, bottom, left, bottom]
    # Not above 0 is true of NaN too; a rectangle of a fraction of a pixel may fill none.
    if not (left < right and top < bottom) or not _fills_a_pixel(sheet, corners):
        sheet.losses[EMPTY_REGION] += 1
    elif sheet.is_small(right - left, bottom - top):
        sheet.losses[SMALL_COMPONENT] += 1
    else:
        box = (left, top, right - left, bottom - top)
        sheet.kept.append(Instance(category, box, box[2] * box[3], [corners]))


def _fills_a_pixel(sheet: _Sheet, corners: list[float]) -> bool:
    return bool(coco_mask.area(segmentation_to_rle([corners], sheet.height, sheet.width)) > 0)


def _add_region(sheet: _Sheet, defect: str, segmentation: Segmentation) -> None:
    """An instance that is given as polygons or as a code."""
    try:
        mask = segmentation_to_mask(segmentation, sheet.height, sheet.width)
    except DataError as error:
        raise DataError(f"{sheet.root / sheet.entry.file_name}: {defect}: {error}") from error
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        sheet.found[sheet.entry.category(defect)] += 1
        sheet.losses[EMPTY_REGION] += 1
        return
    left, top = int(columns[0]), int(rows[0])
    _add_pixels(sheet, defect, mask[top : rows[-1] + 1, left : columns[-1] + 1], left, top)
