"""Marks of a session: boxes and masks that a person drew, accepted or rejected, and how they are drawn."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.errors import DataError
from unispector.inference.marking import ALL
from unispector.ops.rle import BoolArray, Rle, decode_crop, decode_rle, encode_crop, segmentation_to_rle

Box = tuple[float, float, float, float]
Origin = Literal["drawn", "accepted", "rejected"]
Polygon = list[float]  # x0, y0, x1, y1, ... in pixels of the image

ANY_CLASS = ALL
"""Label of a negative mark that is a defect of no class."""
SAME = 0.5  # IoU of the boxes of a finding and of a mark from which on they are the same thing


@dataclass(frozen=True)
class Mark:
    """One marked region of an image."""

    id: str  # distinct within a session
    image: str  # name in the folder
    label: str  # its class; of a negative one the class that it is not, or `ANY_CLASS`
    box: Box  # left, top, width, height in pixels of the upright image, inside of it
    hw: tuple[int, int]  # height and width of the upright image
    mask: Rle | None = None  # its pixels; None = all of the box
    negative: bool = False  # a mark of what is not the defect
    origin: Origin = "drawn"


@dataclass(frozen=True)
class Stroke:
    """One movement of the brush or of the eraser."""

    points: list[float]  # x0, y0, x1, y1, ... in pixels of the image
    radius: float  # pixels of the image
    erase: bool = False


def new_id() -> str:
    """A name for a new mark."""
    return secrets.token_hex(4)


def box_inside(box: Sequence[float], hw: tuple[int, int]) -> Box:
    """A drawn box, its corners in order, cut at the image's edge.

    Raises:
        DataError: it is no box, or has less than a pixel inside the image.
    """
    _check_numbers(box)
    x0, x1 = sorted((box[0], box[0] + box[2]))
    y0, y1 = sorted((box[1], box[1] + box[3]))
    left, top = max(x0, 0.0), max(y0, 0.0)
    right, bottom = min(x1, float(hw[1])), min(y1, float(hw[0]))
    if right - left < 1 or bottom - top < 1:
        raise DataError(f"the box has less than a pixel inside the image of {hw[1]}x{hw[0]} pixels; ignored")
    return round(left, 2), round(top, 2), round(right - left, 2), round(bottom - top, 2)


def _check_numbers(box: Sequence[float]) -> None:
    if len(box) != 4 or not np.isfinite(box).all():
        raise DataError("a box needs four numbers: left, top, width, height")


def paint(strokes: Sequence[Stroke], before: Rle | None, hw: tuple[int, int]) -> tuple[Box, Rle] | None:
    """The mask that strokes leave of `before`, or of nothing, and its tight box; None where nothing is left.

    Raises:
        DataError: a stroke is no list of points.
    """
    mask = np.zeros(hw, np.uint8) if before is None else decode_rle(before).astype(np.uint8)
    for stroke in strokes:
        points = np.asarray(stroke.points, dtype=np.float64).reshape(-1)
        if len(points) < 2 or len(points) % 2 or not np.isfinite([*points, stroke.radius]).all():
            raise DataError("a stroke needs x, y pairs and a radius; ignored")
        # OpenCV overflows far outside; nothing is painted there.
        line = np.clip(points.reshape(-1, 2), -1e4, max(hw) + 1e4).round().astype(np.int32)
        width, value = max(round(2 * min(stroke.radius, 2000)), 1), 0 if stroke.erase else 1
        if len(line) == 1:
            line = np.repeat(line, 2, axis=0)
        cv2.polylines(mask, [line.reshape(-1, 1, 2)], isClosed=False, color=value, thickness=width)
    return tight(mask.astype(np.bool_))


def moved(mask: Rle, box: Box, to: Sequence[float]) -> tuple[Box, Rle]:
    """A mask moved with its box by whole pixels, what leaves the image cut off, and its tight box.

    Raises:
        DataError: `to` is no box, or nothing is left inside the image.
    """
    _check_numbers(to)
    before = decode_rle(mask)
    right, down = (min(max(new - old, -1e6), 1e6) for new, old in zip(to[:2], box[:2], strict=True))
    rows, columns = np.nonzero(before)
    rows, columns = rows + round(down), columns + round(right)
    inside = (rows >= 0) & (rows < before.shape[0]) & (columns >= 0) & (columns < before.shape[1])
    after = np.zeros_like(before)
    after[rows[inside], columns[inside]] = True
    if (found := tight(after)) is None:
        raise DataError("nothing of the mask would be left inside the image; ignored")
    return found


def tight(mask: BoolArray) -> tuple[Box, Rle] | None:
    """The tight box of a mask [h, w] and its code; None of an empty one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    code = encode_crop(mask[top:bottom, left:right], left, top, *mask.shape)
    return (float(left), float(top), float(right - left), float(bottom - top)), code


def checked_mask(rle: Any, hw: tuple[int, int]) -> tuple[Box, Rle] | None:
    """A mask of a file, checked, and its tight box; None where it is empty.

    Raises:
        DataError: it is no code of an image of this size.
    """
    code = segmentation_to_rle(rle, *hw)
    left, top, width, height = (float(value) for value in coco_mask.toBbox(code))
    return ((left, top, width, height), code) if width and height else None


def outlines(rle: Rle) -> list[Polygon]:
    """The outlines of a mask, its holes left out; costs no more than the mask's box.

    The points are the outermost pixels' centres, but for at most a pixel or a hundredth of the mask.
    """
    left, top, crop = decode_crop(rle)
    if not crop.size:
        return []
    found, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    coarse = max(0.6, 0.004 * max(crop.shape))
    polygons = []
    for contour in found:
        points = cv2.approxPolyDP(contour, coarse, closed=True).reshape(-1, 2)
        polygons.append([float(value) for value in (points + np.array([left + 0.5, top + 0.5])).ravel()])
    return polygons


def overlaps(boxes: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU of n with k boxes (left, top, width, height): [n, k]."""
    near = np.maximum(boxes[:, None, :2], others[None, :, :2])
    far = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    shared = (far - near).clip(0).prod(2)
    areas, of_others = boxes[:, 2:].prod(1), others[:, 2:].prod(1)
    together: npt.NDArray[np.float64] = shared / (areas[:, None] + of_others[None] - shared).clip(1e-9)
    return together
