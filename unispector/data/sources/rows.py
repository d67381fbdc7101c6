"""What every source hands out: one typed row per image with a defect."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class SourceImage:
    """One image of a raw set with its defect masks, none of them filtered by size yet.

    Attributes:
        file_name: posix path relative to the set's folder.
        width, height: size of the image file in pixels.
        defects: K defect names, one per mask.
        masks: bool [K, height, width]; K = 0 where the release marks nothing on the image.
    """

    file_name: str
    width: int
    height: int
    defects: tuple[str, ...]
    masks: npt.NDArray[np.bool_]


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


@dataclass(frozen=True)
class SourceSet:
    """A raw set whose layout has been checked.

    Attributes:
        product: the product all images show; part of every category's name.
        dropped: files the source leaves aside, with the reason.
        images: the rows; files are opened as they are drawn, so that a broken one raises `DataError` then.
    """

    product: str
    dropped: tuple[Dropped, ...]
    images: Iterator[SourceImage]
