"""The marks of a raw release on one image, computed anew to check the instances of an annotation file.

Nothing of the conversion (`unispector.data.instances`) is used: masks are labelled as images, not by runs.
Polygons are filled by the same rasteriser as there, for no two agree on a polygon's edge.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unispector.data.coco import Segmentation
from unispector.data.sources.rows import BinaryMask, Box, ClassMask, Code, Entry, Polygon
from unispector.errors import DataError
from unispector.ops.files import read_class_mask, read_mask
from unispector.ops.rle import BoolArray, segmentation_to_mask

Region = tuple[str, bytes]
"""A category's name, and the positions of its pixels (int64, row by row) as bytes."""


def marked_regions(entry: Entry, root: Path, min_side: float, height: int, width: int) -> Iterator[Region]:
    """The regions that an image's marks give, without those under the size rule (paper appendix 1.1).

    `root` is the set's folder; regions narrower or lower than the share `min_side`, in [0, 1), are left out;
    `height` and `width` are those of the decoded image.

    Raises:
        DataError: a mask is absent, cannot be decoded or is not of the image's size; a polygon or code is
            malformed.
    """
    sides = (min_side, height, width)
    for mark in entry.marks:
        match mark:
            case BinaryMask():
                values = _of_size(read_mask(root / mark.file), root / mark.file, sides)
                yield from _components(entry.category(mark.defect), values > mark.threshold, sides)
            case ClassMask():
                values = _of_size(read_class_mask(root / mark.file), root / mark.file, sides)
                for value in set(mark.defects) - {0}:
                    yield from _components(entry.category(mark.defects[value]), values == value, sides)
            case Box():
                yield from _rectangle(entry.category(mark.defect), mark, sides)
            case Polygon():
                polygons = [list(part) for part in mark.parts]
                yield from _whole(entry.category(mark.defect), polygons, sides)
            case Code():
                yield from _whole(entry.category(mark.defect), dict(mark.rle), sides)


def instance_region(category: str, segmentation: Segmentation, height: int, width: int) -> Region:
    """The pixels of an instance of the annotation file; none where its code does not suit the image."""
    try:
        mask = segmentation_to_mask(segmentation, height, width)
    except DataError:
        return category, b""
    return category, _positions(np.flatnonzero(mask))


def difference(marked: Iterable[Region], instances: Iterable[Region]) -> int:
    """Pixels by which two collections of regions differ; 0 only if every region has its equal.

    A region without its equal is compared with the remaining one of its category that it shares most
    pixels with: what either has alone counts, as does all of a region that shares none. So one region
    where there should be two counts the smaller one, twice.
    """
    left, right = Counter(marked), Counter(instances)
    lacking, foreign = list((left - right).elements()), list((right - left).elements())
    if not lacking and not foreign:
        return 0
    categories = {category for category, _ in (*lacking, *foreign)}
    count = sum(
        _unequal_pixels(_sets_of(category, lacking), _sets_of(category, foreign)) for category in categories
    )
    return max(count, 1)  # a code that does not suit its image has no pixels


def _unequal_pixels(lacking: list[set[int]], foreign: list[set[int]]) -> int:
    count = 0
    for pixels in foreign:
        nearest = max(lacking, key=lambda other: len(other & pixels), default=set())
        if nearest & pixels:
            lacking.remove(nearest)
            count += len(nearest ^ pixels)
        else:
            count += len(pixels)
    return count + sum(len(pixels) for pixels in lacking)


def _sets_of(category: str, regions: Sequence[Region]) -> list[set[int]]:
    return [set(np.frombuffer(pixels, np.int64).tolist()) for name, pixels in regions if name == category]


def _of_size(
    values: npt.NDArray[np.uint8], path: Path, sides: tuple[float, int, int]
) -> npt.NDArray[np.uint8]:
    _, height, width = sides
    if values.shape != (height, width):
        found = f"{values.shape[1]}x{values.shape[0]}"
        raise DataError(f"{path}: mask is {found} but its image is {width}x{height}; restore the mask")
    return values


def _components(category: str, marked: BoolArray, sides: tuple[float, int, int]) -> Iterator[Region]:
    """8-connected components of a mask that are not too small."""
    from scipy import ndimage

    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    if len(rows) == 0:
        return
    top, left = int(rows[0]), int(columns[0])
    part = marked[top : rows[-1] + 1, left : columns[-1] + 1]
    labels, _ = ndimage.label(part, structure=np.ones((3, 3), dtype=np.int8))
    for number, (down, across) in enumerate(ndimage.find_objects(labels), start=1):
        if _is_large(across.stop - across.start, down.stop - down.start, sides):
            y, x = np.nonzero(labels[down, across] == number)
            yield category, _positions((y + down.start + top) * sides[2] + x + across.start + left)


def _rectangle(category: str, box: Box, sides: tuple[float, int, int]) -> Iterator[Region]:
    _, height, width = sides
    x0, x1 = np.clip([box.xywh[0], box.xywh[0] + box.xywh[2]], 0, width).tolist()
    y0, y1 = np.clip([box.xywh[1], box.xywh[1] + box.xywh[3]], 0, height).tolist()
    if x0 < x1 and y0 < y1 and _is_large(x1 - x0, y1 - y0, sides):
        region = instance_region(category, [[x0, y0, x1, y0, x1, y1, x0, y1]], height, width)
        if region[1]:  # a fraction of a pixel may fill none
            yield region


def _whole(category: str, segmentation: Segmentation, sides: tuple[float, int, int]) -> Iterator[Region]:
    """A region that is given as polygons or as a code, unless it is too small or marks no pixel."""
    _, height, width = sides
    y, x = np.nonzero(segmentation_to_mask(segmentation, height, width))
    if len(x) and _is_large(int(np.ptp(x)) + 1, int(np.ptp(y)) + 1, sides):
        yield category, _positions(y * width + x)


def _is_large(region_width: float, region_height: float, sides: tuple[float, int, int]) -> bool:
    min_side, height, width = sides
    return region_width / width >= min_side and region_height / height >= min_side


def _positions(pixels: npt.NDArray[np.int64]) -> bytes:
    return pixels.astype(np.int64).tobytes()
