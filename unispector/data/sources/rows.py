"""The rows every source yields: one per image with a defect, none of its files opened yet.

Rows travel to worker processes, which open the files (`unispector.data.instances`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BinaryMask:
    """A mask file of one defect: every 8-connected component above `threshold` is an instance."""

    file: str  # posix path relative to the set's folder
    defect: str  # name of the defect
    threshold: int = 0  # a pixel brighter than this is defect, 0 to 254


@dataclass(frozen=True)
class ClassMask:
    """A mask file whose pixel values are classes: components are cut value by value."""

    file: str  # posix path relative to the set's folder
    defects: Mapping[int, str]  # pixel value -> name of the defect; 0 is background
    # Pixel value -> name of a class the benchmark does not take. A value in neither of the two is counted as
    # unknown.
    left_out: Mapping[int, str]


@dataclass(frozen=True)
class Box:
    """One instance known by its box only; its polygon is the rectangle."""

    defect: str  # name of the defect
    # Left, top, width, height in pixels, (0, 0) the outer corner of the first pixel.
    xywh: tuple[float, float, float, float]


@dataclass(frozen=True)
class Polygon:
    """One instance as polygons."""

    defect: str  # name of the defect
    # Polygons x0, y0, x1, y1, ... in pixels; their union is the instance.
    parts: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Code:
    """One instance as a COCO run-length code, compressed or not."""

    defect: str
    rle: Mapping[str, Any]


Mark = BinaryMask | ClassMask | Box | Polygon | Code


@dataclass(frozen=True)
class Entry:
    """One image of a raw set and where its defects are marked."""

    file_name: str  # posix path relative to the set's folder
    # What the image shows; categories are named `<product>_<defect>`, or `<defect>` where it is empty.
    product: str
    marks: tuple[Mark, ...]  # its defects
    # Width and height that the release states, checked against the file; None = it states none.
    size: tuple[int, int] | None = None

    def category(self, defect: str) -> str:
        """Name of a defect's category on this image."""
        return f"{self.product}_{defect}" if self.product else defect

    @property
    def files(self) -> tuple[str, ...]:
        """The image and its mask files."""
        masks = (mark.file for mark in self.marks if isinstance(mark, BinaryMask | ClassMask))
        return (self.file_name, *masks)


@dataclass(frozen=True)
class Dropped:
    """Something of the raw set that does not reach the annotation file."""

    reason: str  # why, in a few words; the report groups by it
    file_name: str  # posix path relative to the set's folder
    instances: int = 0  # defects lost with it (0 where it is no defect that is lost)

    @property
    def files(self) -> tuple[str, ...]:
        """The file itself."""
        return (self.file_name,)
