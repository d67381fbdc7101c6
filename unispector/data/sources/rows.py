"""The rows every source yields: one per image with a defect, none of its files opened yet.

Rows travel to worker processes, which open the files (`unispector.data.instances`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BinaryMask:
    """A mask file of one defect: every 8-connected component above `threshold` is an instance.

    Attributes:
        file: posix path relative to the set's folder.
        defect: name of the defect.
        threshold: a pixel brighter than this is defect, 0 to 254.
    """

    file: str
    defect: str
    threshold: int = 0


@dataclass(frozen=True)
class ClassMask:
    """A mask file whose pixel values are classes: components are cut value by value.

    Attributes:
        file: posix path relative to the set's folder.
        defects: pixel value -> name of the defect; 0 is background.
        left_out: pixel value -> name of a class the benchmark does not take. A value in neither of the
            two is counted as unknown.
    """

    file: str
    defects: Mapping[int, str]
    left_out: Mapping[int, str]


@dataclass(frozen=True)
class Box:
    """One instance known by its box only; its polygon is the rectangle.

    Attributes:
        defect: name of the defect.
        xywh: left, top, width, height in pixels, (0, 0) the outer corner of the first pixel.
    """

    defect: str
    xywh: tuple[float, float, float, float]


@dataclass(frozen=True)
class Polygon:
    """One instance as polygons.

    Attributes:
        defect: name of the defect.
        parts: polygons x0, y0, x1, y1, ... in pixels; their union is the instance.
    """

    defect: str
    parts: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Code:
    """One instance as a COCO run-length code, compressed or not."""

    defect: str
    rle: Mapping[str, Any]


Mark = BinaryMask | ClassMask | Box | Polygon | Code


@dataclass(frozen=True)
class Entry:
    """One image of a raw set and where its defects are marked.

    Attributes:
        file_name: posix path relative to the set's folder.
        product: what the image shows; categories are named `<product>_<defect>`, or `<defect>` where it
            is empty.
        marks: its defects.
        size: width and height that the release states, checked against the file; None = it states none.
    """

    file_name: str
    product: str
    marks: tuple[Mark, ...]
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
    """Something of the raw set that does not reach the annotation file.

    Attributes:
        reason: why, in a few words; the report groups by it.
        file_name: posix path relative to the set's folder.
        instances: defects lost with it (0 where it is no defect that is lost).
    """

    reason: str
    file_name: str
    instances: int = 0

    @property
    def files(self) -> tuple[str, ...]:
        """The file itself."""
        return (self.file_name,)


# Reasons that several sources share.
DEFECT_FREE = "image without defects"
NO_MASK = "image without its mask"
NO_IMAGE = "mask without its image"
NO_ANNOTATION = "image without its annotation"
ORPHAN = "annotation without its image"
DUPLICATE = "image listed twice"
UNKNOWN_CLASS = "unknown class"
LEFT_OUT_CLASS = "class the benchmark leaves out"
NOT_A_REGION = "mark that is no region"
