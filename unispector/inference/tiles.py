"""The squares that a large image is cut into: their side, and where they lie."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from unispector.data.coco import Annotations
from unispector.inference.geometry import Geometry

Tile = Literal["auto"] | int
"""Side of the tiles in pixels of the image; 0 = none, auto = by the marks."""

OVERLAP = 0.2  # of neighbouring tiles, at least, relative to their side
MARKS_PER_TILE = 5  # typical marks side by side in a tile, at least, so that one fits in the overlap
SLACK = 1.25  # sides of a tile up to which an image is not worth cutting

LEAST_SEEN = 16.0
"""A class whose marks have less than so many pixels a side in the largest input is looked at in tiles.

This and `AIM` were chosen on training data (reports/tiling.md)."""

AIM = 20.0
"""Pixels a side that a typical mark gets of the input of normal size, in a tile."""


class Window(NamedTuple):
    """A part of an image in whole pixels; right and bottom are excluded."""

    left: int
    top: int
    right: int
    bottom: int

    def common(self, other: "Window") -> "Window":
        """What both hold; right <= left or bottom <= top where that is nothing."""
        low, high = map(max, self[:2], other[:2]), map(min, self[2:], other[2:])
        return Window(*low, *high)


@dataclass(frozen=True, order=True)
class View:
    """How a class is looked at."""

    tile: int  # side of the tiles in pixels of the image; 0 = the whole image
    size: int  # side of the network's input


@dataclass(frozen=True)
class MarkSizes:
    """The sizes of N marks."""

    shares: Sequence[float]  # root of the share of its image that each covers
    image_hw: Sequence[tuple[int, int]]  # height and width of its image in pixels
    labels: Sequence[int]  # class of each

    @classmethod
    def of_annotations(cls, annotations: Annotations) -> "MarkSizes":
        """Those of an annotation file; crowds have no say."""
        marks = [
            (image, mark)
            for image in annotations.images
            for mark in annotations.instances_of(image.id)
            if not mark.iscrowd
        ]
        return cls(
            [(mark.bbox[2] * mark.bbox[3] / (image.width * image.height)) ** 0.5 for image, mark in marks],
            [(image.height, image.width) for image, _ in marks],
            [annotations.class_index[mark.category_id] for _, mark in marks],
        )

    def of(self, label: int) -> "MarkSizes":
        """Those of one class."""
        rows = [row for row, own in enumerate(self.labels) if own == label]
        return MarkSizes(
            [self.shares[row] for row in rows], [self.image_hw[row] for row in rows], [label] * len(rows)
        )

    @property
    def sides(self) -> list[float]:
        """Root of the pixels of the image that each covers."""
        return [share * (h * w) ** 0.5 for share, (h, w) in zip(self.shares, self.image_hw, strict=True)]

    def shares_in(self, side: int) -> list[float]:
        """`shares`, of a tile instead of the image."""
        tiles = [min(side, h) * min(side, w) for h, w in self.image_hw]
        return [own / area**0.5 for own, area in zip(self.sides, tiles, strict=True)]


def views_of(marks: MarkSizes, classes: int, geometry: Geometry, tile: Tile) -> tuple[View, ...]:
    """Return how each class is looked at; `tile` is the side that is asked for."""
    return tuple(_view(marks.of(label), geometry, tile) for label in range(classes))


def _view(marks: MarkSizes, geometry: Geometry, tile: Tile) -> View:
    side = _tile_side(marks, geometry, tile)
    return View(side, geometry.input_size(marks.shares_in(side) if side else marks.shares))


def _tile_side(marks: MarkSizes, geometry: Geometry, tile: Tile) -> int:
    # A model that never looks closer (the paper's) does not choose tiles either.
    if tile == 0 or not marks.labels or (tile == "auto" and geometry.magnify == 1):
        return 0
    typical = float(np.median(marks.sides))
    least = -(-MARKS_PER_TILE * typical // 32) * 32
    if tile != "auto":
        return int(max(tile, least))
    seen = float(np.median(marks.shares)) * geometry.image_size * geometry.magnify
    if seen >= LEAST_SEEN:
        return 0
    # Steps of the root of 2, so that classes share passes; enlarged pixels show nothing more.
    step = max(round(2 * np.log2(typical / AIM)), 0)
    side = int(max(round(geometry.image_size * 2 ** (step / 2) / 32) * 32, least))
    return 0 if all(fits(hw, side) for hw in marks.image_hw) else side


def fits(image_hw: tuple[int, int], side: int) -> bool:
    """Return whether an image is small enough to be looked at as a whole."""
    return max(image_hw) <= SLACK * side


def windows(image_hw: tuple[int, int], side: int) -> list[Window]:
    """Tiles that cover an image, row by row; where it is shorter than `side`, they are as short.

    They lie evenly, and neighbours overlap by at least `OVERLAP`.
    """
    rows, columns = (_starts(length, side) for length in image_hw)
    height, width = (min(side, length) for length in image_hw)
    return [Window(left, top, left + width, top + height) for top in rows for left in columns]


def _starts(length: int, side: int) -> list[int]:
    if length <= side:
        return [0]
    count = int(np.ceil((length - side) / (side * (1 - OVERLAP)))) + 1
    return [round(place) for place in np.linspace(0, length - side, count)]


def windows_around(
    boxes_xywh: Sequence[Sequence[float]], image_hw: tuple[int, int], side: int
) -> Iterator[tuple[Window, list[int]]]:
    """Tiles around marks, so that each mark lies whole in one of them; they stay inside the image.

    Yields:
        A tile, larger than `side` where a mark is, and the marks (rows of the boxes) that it is for.
    """
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes_xywh]).reshape(-1, 4)
    left = list(range(len(corners)))
    while left:
        around = _window_around(corners[left[0]], image_hw, side)
        inside = (corners[left] >= (*around[:2], *around[:2])) & (corners[left] <= (*around[2:], *around[2:]))
        own = [left[place] for place, within in enumerate(inside) if place == 0 or within.all()]
        hull = np.concatenate((corners[own, :2].min(axis=0), corners[own, 2:].max(axis=0)))
        yield _window_around(hull, image_hw, side), own
        left = [row for row in left if row not in own]


def _window_around(corners: np.ndarray, image_hw: tuple[int, int], side: int) -> Window:
    """A tile with the corners xyxy in its middle, as far as the image goes."""
    side = max(side, int(np.ceil((corners[2:] - corners[:2]).max())) + 1)
    low, high = [], []
    for first, last, length in zip(corners[:2], corners[2:], image_hw[::-1], strict=True):
        own = min(side, length)
        start = min(max(round((first + last - own) / 2), 0), length - own)
        low.append(start)
        high.append(start + own)
    return Window(low[0], low[1], high[0], high[1])
