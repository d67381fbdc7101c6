"""COCO run-length codes and polygons to pixels and back; works without torch, so that workers start fast.

Decoding is done here, not by pycocotools: its decoder trusts the code, so one that is too short or too
long for its size yields arbitrary pixels or corrupts memory.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from unispector.errors import DataError

MOST_PIXELS = 2**28
"""Of a mask: no image that is read has so many, and a code of a few bytes could ask for any memory."""

Rle = dict[str, Any]
BoolArray = npt.NDArray[np.bool_]


def count_runs(mask: BoolArray) -> int:
    """How many runs the code of a mask [h, w] has, at most one more."""
    columns = np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[0, 1:] != mask[-1, :-1])
    return int(columns) + 2


def encode_rle(masks: BoolArray) -> list[Rle]:
    """Encode masks as compressed COCO run-length codes that JSON can hold.

    Masks are bool [n, h, w]. Returns n dicts `{"size": [h, w], "counts": str}`.
    """
    if len(masks) == 0:
        return []
    columns = np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))
    return [
        {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}
        for code in coco_mask.encode(columns)
    ]


def encode_crop(crop: BoolArray, left: int, top: int, height: int, width: int) -> Rle:
    """Encode the mask of an image of which only a part is not background; costs no more than the part.

    The crop, bool [h, w], marks at least one pixel; its first pixel lies at `left`, `top` of an image of
    `height` x `width` pixels. Returns the same dict as `encode_rle` gives for the whole mask.
    """
    rows, columns = crop.shape
    # Column by column, with a row of background between columns, so that no run spans two of them.
    padded = np.zeros((columns, rows + 2), dtype=np.int8)
    padded[:, 1:-1] = crop.T
    column, row = np.nonzero(np.diff(padded, axis=1))
    edges = (column + left) * height + row + top
    starts, ends = edges[0::2], edges[1::2]
    joined = starts[1:] == ends[:-1]  # a run to the image's last row goes on in the next column
    starts, ends = starts[np.append(True, ~joined)], ends[np.append(~joined, True)]
    return _encode_runs(starts, ends, height, width)


def joined_rle(parts: Sequence[tuple[Mapping[str, Any], int, int]], height: int, width: int) -> Rle:
    """Encode the union of masks of parts of an image; the work grows with the runs, not with the image.

    A part is its code, and where its first pixel lies in the image of `height` x `width` pixels: left, top.

    Raises:
        DataError: a code is malformed.
    """
    placed = [_placed_runs(code, left, top, height) for code, left, top in parts]
    runs = np.concatenate([np.zeros((0, 2), dtype=np.int64), *placed])
    runs = runs[runs[:, 0].argsort(kind="stable")]
    reach = np.maximum.accumulate(runs[:, 1]) if len(runs) else runs[:, 1]
    first = np.append(True, runs[1:, 0] > reach[:-1])[: len(runs)]
    last = np.append(first[1:], True)[: len(runs)]
    return _encode_runs(runs[first, 0], reach[last], height, width)


def _placed_runs(rle: Mapping[str, Any], left: int, top: int, height: int) -> npt.NDArray[np.int64]:
    """First and last position (excluded), down the columns of the image, of the foreground of a part."""
    own_height, _, runs = _checked_runs(rle)
    edges = runs.cumsum()[: len(runs) // 2 * 2].reshape(-1, 2)
    edges = edges[edges[:, 1] > edges[:, 0]]
    column = edges[:, 0] // own_height
    columns = (edges[:, 1] - 1) // own_height - column + 1
    start, end = (np.repeat(side, columns) for side in edges.T)
    place = np.arange(len(start)) - np.repeat(columns.cumsum() - columns, columns)
    column = np.repeat(column, columns) + place
    start, end = np.maximum(start, column * own_height), np.minimum(end, (column + 1) * own_height)
    moved = (column + left) * height + top - column * own_height
    return np.stack((start + moved, end + moved), axis=1)


def _encode_runs(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], height: int, width: int) -> Rle:
    """Encode sorted runs of foreground that do not touch."""
    stops = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(np.concatenate(([0], stops, [height * width])))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    code = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def decode_rle(rle: Mapping[str, Any]) -> BoolArray:
    """Decode one COCO run-length code, compressed (`counts` str or bytes) or not (list of ints).

    The code is `{"size": [h, w], "counts": ...}`; runs go down the columns, background first. Returns bool
    [h, w].

    Raises:
        DataError: keys are missing, `counts` is no run-length code, or its runs do not fill h x w.
    """
    height, width, runs = _checked_runs(rle)
    values = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, runs).reshape(width, height).T)


def decode_crop(rle: Mapping[str, Any]) -> tuple[int, int, BoolArray]:
    """Decode a mask inside of its tight box only; costs no more than the box's columns of the image.

    Returns left, top and bool [h, w] of the box; an empty mask gives 0, 0 and [0, 0].

    Raises:
        DataError: as `decode_rle`.
    """
    height, _, runs = _checked_runs(rle)
    edges = np.cumsum(runs)
    starts, ends = edges[: len(edges) // 2 * 2 : 2], edges[1::2]
    starts, ends = starts[starts < ends], ends[starts < ends]
    if not len(starts):
        return 0, 0, np.zeros((0, 0), dtype=np.bool_)
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height + 1
    strip = np.zeros((right - left) * height + 1, dtype=np.int8)
    np.add.at(strip, starts - left * height, 1)
    np.add.at(strip, ends - left * height, -1)
    columns = strip[:-1].cumsum(dtype=np.int8).astype(np.bool_).reshape(right - left, height)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return left, top, np.ascontiguousarray(columns[:, top:bottom].T)


def _checked_runs(rle: Mapping[str, Any]) -> tuple[int, int, npt.NDArray[np.int64]]:
    height, width = _size(rle)
    if height * width > MOST_PIXELS:
        raise DataError(f"mask code of {width}x{height} pixels, more than any image has; correct its size")
    counts = rle.get("counts")
    runs = _runs_of_string(counts) if isinstance(counts, str | bytes) else _runs_of_list(counts)
    # The sum alone could overflow to the right value.
    fills = (runs >= 0).all() and (runs <= height * width).all() and runs.sum() == height * width
    if height < 1 or width < 1 or not fills:
        raise DataError(f"mask code does not fill its size {width}x{height}; export the annotation again")
    return height, width, runs


def _size(rle: Mapping[str, Any]) -> tuple[int, int]:
    try:
        height, width = (int(side) for side in rle["size"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError('mask code without "size": [h, w]; export it as COCO RLE') from error
    return height, width


def _runs_of_list(counts: object) -> npt.NDArray[np.int64]:
    try:
        runs = np.asarray(counts) if isinstance(counts, list | tuple) else np.zeros(0)
    except ValueError:  # lists of different lengths in the list
        runs = np.zeros(0)
    if runs.ndim != 1 or runs.dtype.kind not in "iu":
        raise DataError("mask code's counts are no whole numbers; export it as COCO RLE")
    return runs.astype(np.int64)


def _runs_of_string(counts: str | bytes) -> npt.NDArray[np.int64]:
    """Runs of a compressed code: base-32 digits, least first, each char = 48 + 32 * more + digit."""
    raw = counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts
    chars = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - 48
    if len(chars) == 0 or (chars < 0).any() or (chars > 63).any() or chars[-1] >= 32:
        raise DataError("mask code's counts are no compressed COCO RLE; export the annotation again")
    last = np.flatnonzero(chars < 32)
    first = np.concatenate(([0], last[:-1] + 1))
    digits = last - first + 1
    if digits.max() > 7:
        raise DataError("mask code's counts are no compressed COCO RLE; export the annotation again")
    place = np.arange(len(chars)) - np.repeat(first, digits)
    runs = np.add.reduceat((chars & 31) << (5 * place), first)
    runs -= np.where(chars[last] & 16, np.int64(1) << (5 * digits), 0)
    runs[1::2] = runs[1::2].cumsum()  # from the fourth on, a run is stored as the difference
    runs[2::2] = runs[2::2].cumsum()  # to the run two places before it
    return runs


def segmentation_to_mask(
    segmentation: Mapping[str, Any] | Sequence[Sequence[float]], h: int, w: int
) -> BoolArray:
    """Pixels of a COCO `segmentation` field.

    It is a run-length code, or polygons `[x0, y0, x1, y1, ...]` in pixels whose union counts; the image has
    `h` x `w` pixels. Returns bool [h, w].

    Raises:
        DataError: the field is malformed or belongs to an image of another size.
    """
    if isinstance(segmentation, Mapping):
        _check_size(segmentation, h, w)  # before a mask of that size is made
        return decode_rle(segmentation)
    return np.asarray(coco_mask.decode(segmentation_to_rle(segmentation, h, w))).astype(np.bool_)


def segmentation_to_rle(segmentation: Mapping[str, Any] | Sequence[Sequence[float]], h: int, w: int) -> Rle:
    """A COCO `segmentation` field as a compressed code that pycocotools can measure: it checks none itself.

    Arguments as of `segmentation_to_mask`.

    Raises:
        DataError: the field is malformed or belongs to an image of another size.
    """
    if isinstance(segmentation, Mapping):
        _check_size(segmentation, h, w)
        _, _, runs = _checked_runs(segmentation)
        counts = segmentation["counts"]
        if isinstance(counts, str | bytes):
            return {"size": [h, w], "counts": counts}
        codes = [coco_mask.frPyObjects({"size": [h, w], "counts": runs.tolist()}, h, w)]
    else:
        polygons = [_checked_polygon(points, h, w) for points in segmentation]
        if not polygons:
            raise DataError("segmentation without any polygon; give one, or null for a box only")
        codes = coco_mask.frPyObjects(polygons, h, w)
    merged: Rle = coco_mask.merge(codes)
    return merged


def _check_size(rle: Mapping[str, Any], h: int, w: int) -> None:
    height, width = _size(rle)
    if (height, width) != (h, w):
        raise DataError(f"mask is {width}x{height} but the image is {w}x{h}; export the annotation again")


def _checked_polygon(points: Sequence[float], h: int, w: int) -> list[float]:
    try:
        values = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("polygon with something else than numbers; give x0, y0, x1, y1, ...") from error
    if values.ndim != 1 or len(values) < 6 or len(values) % 2:
        raise DataError("polygon without at least three x, y pairs; mend or drop it")
    far = np.abs(values) > 2 * max(h, w)
    if not np.isfinite(values).all() or far.any():
        raise DataError(f"polygon leaves its {w}x{h} image; give its points in pixels of the image")
    return [float(value) for value in values]
