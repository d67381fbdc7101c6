"""From coarse mask logits straight to run-length codes: no full-size bitmap ever exists.

A mask is the set of an image's pixels at which the bilinear interpolation of its logits is above 0
(MaskDINO's rule). Down a column of pixels that interpolation is linear between two rows of logits, so
where both are positive, or neither is, no pixel needs a look; and only columns near a positive logit
are gone through. For defects, which are small, this is tens of times faster than resizing the logits.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from unispector.ops.rle import Rle

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

OUTSIDE = np.float32(-10.0)
"""Logit that counts outside of a mask's window."""

_compiled = numba.njit(cache=True, nogil=True)


@dataclass(frozen=True)
class MaskRuns:
    """n masks of one image."""

    boxes_xyxy: FloatArray  # [n, 4] float32, tight around each mask in pixels; zeros where a mask is empty
    areas: IntArray  # [n] int64 pixels
    quality: FloatArray  # [n] float32 in [0, 1], mean probability of a mask's positive logits; 0 without any
    hw: tuple[int, int]  # height and width of the image in pixels
    codes: str  # the masks' compressed runs, one after the other
    ends: list[int]  # where each of the n ends in `codes`

    def rle(self, index: int) -> Rle:
        """COCO run-length code of one mask."""
        start = self.ends[index - 1] if index else 0
        return {"size": list(self.hw), "counts": self.codes[start : self.ends[index]]}


def masks_from_logits(
    logits: FloatArray, windows: IntArray, cells_per_side: float, hw: tuple[int, int]
) -> MaskRuns:
    """Interpolate mask logits at an image's pixels and encode where they are above 0.

    Pixel centres map to cells as in `torch.nn.functional.interpolate` (bilinear, `align_corners=False`);
    beyond the edge the logits repeat.

    Args:
        logits: [n, h, w] float32, finite.
        windows: [n, 4] first row, first column, last row and last column, both excluded, of the cells
            that count; the rest is background.
        cells_per_side: cells that the image covers from the top left, along each side; fewer than w and
            h where the network's frame is padded.
        hw: height and width of the image in pixels.
    """
    rows = _places(hw[0], logits.shape[1], cells_per_side)
    columns = _places(hw[1], logits.shape[2], cells_per_side)
    cells = np.ascontiguousarray(logits)
    covered = math.ceil(cells_per_side)
    codes, ends, boxes, areas, quality = _encode(cells, windows, covered, *rows, *columns)
    return MaskRuns(boxes, areas, quality, hw, codes.tobytes().decode("ascii"), ends.tolist())


def _places(pixels: int, cells: int, covered: float) -> tuple[IntArray, FloatArray]:
    """For each pixel along a side: the cell before its centre, and the share of the cell after it."""
    centre = ((np.arange(pixels) + 0.5) * (covered / pixels) - 0.5).clip(0, cells - 1)
    before = np.minimum(centre.astype(np.int64), max(cells - 2, 0))
    return before, (centre - before).astype(np.float32)


@_compiled
def _encode(logits, windows, covered, row, row_share, column, column_share):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Codes of all masks one after the other, where each ends, tight boxes, areas and qualities."""
    masks, cells_high = logits.shape[:2]
    first = _first_pixels(row, cells_high)
    codes = np.empty(256, np.uint8)
    runs = np.empty(256, np.int64)
    ends = np.empty(masks, np.int64)
    boxes = np.zeros((masks, 4), np.float32)
    areas = np.zeros(masks, np.int64)
    quality = np.zeros(masks, np.float32)
    cells = np.empty(logits.shape[1:], np.float32)
    used = 0
    for i in range(masks):
        top, left, bottom, right = windows[i]
        cells[:] = OUTSIDE
        cells[top:bottom, left:right] = logits[i, top:bottom, left:right]
        quality[i] = _quality(cells[:covered, :covered])
        count = _runs(cells, first, row_share, column, column_share, runs, boxes[i])
        if count > len(runs):
            runs = np.empty(2 * count, np.int64)
            count = _runs(cells, first, row_share, column, column_share, runs, boxes[i])
        areas[i] = runs[1:count:2].sum()
        if used + 13 * count > len(codes):
            grown = np.empty(2 * (used + 13 * count), np.uint8)
            grown[:used] = codes[:used]
            codes = grown
        used = _compress(runs[:count], codes, used)
        ends[i] = used
    return codes[:used], ends, boxes, areas, quality


@_compiled
def _quality(cells):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Mean sigmoid of the positive logits."""
    total, count = 0.0, 0
    for value in cells.flat:
        if value > 0:
            total += 1 / (1 + np.exp(-value))
            count += 1
    return total / count if count > 0 else 0.0


@_compiled
def _first_pixels(row, cells):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Of each cell row, the first pixel row that lies at or after it; at the end the number of pixels."""
    first = np.full(cells + 1, len(row), np.int64)
    for y in range(len(row) - 1, -1, -1):
        first[row[y]] = y
    for cell in range(cells - 1, -1, -1):
        first[cell] = min(first[cell], first[cell + 1])
    first[0] = 0
    return first


@_compiled
def _runs(cells, first, row_share, column, column_share, runs, box):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Lengths of the runs down the columns, background first; how many there are, even if `runs` is full."""
    height, width = len(row_share), len(column)
    wanted, top, bottom = _positive(cells)
    line = np.empty(cells.shape[0], np.float32)
    place = np.zeros(2, np.int64)  # runs so far, and the position after the last foreground one
    for x in range(width):
        left = column[x]
        right = min(left + 1, cells.shape[1] - 1)
        if wanted[left] or wanted[right]:
            for j in range(top, min(bottom + 2, cells.shape[0])):
                line[j] = cells[j, left] + (cells[j, right] - cells[j, left]) * column_share[x]
            begun = place[0] > 0
            _column_runs(line[top:], bottom - top, first[top:], row_share, x * height, runs, place, box)
            if place[1] > x * height:
                box[0] = box[0] if begun else x
                box[2] = x + 1
    count = place[0]
    if place[1] < width * height:
        count += 1
        if count <= len(runs):
            runs[count - 1] = width * height - place[1]
    return count


@_compiled
def _column_runs(line, last, first, row_share, offset, runs, place, box):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append the runs of one column up to cell row `last`; its pixels begin at position `offset`."""
    for j in range(last + 1):
        a, b = line[j], line[min(j + 1, len(line) - 1)]
        if a <= 0 and b <= 0:
            continue
        y, stop = first[j], first[j + 1]
        while y < stop:
            begin = y
            if a > 0 and b > 0:
                y = stop
            else:
                while y < stop and a + (b - a) * row_share[y] > 0:
                    y += 1
            if y == begin:
                y += 1
                continue
            box[1] = begin if place[0] == 0 else min(box[1], begin)
            box[3] = max(box[3], y)
            place[0] = _extended(runs, place[0], offset + begin - place[1], y - begin)
            place[1] = offset + y


@_compiled
def _extended(runs, count, gap, length):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append `gap` background and `length` foreground pixels; without a gap the last run goes on."""
    if gap > 0 or count == 0:
        count += 2
        if count <= len(runs):
            runs[count - 2], runs[count - 1] = gap, length
    elif count <= len(runs):
        runs[count - 1] += length
    return count


@_compiled
def _positive(cells):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Find columns with a positive logit, and the first and last row from which pixels can be positive."""
    wanted = np.zeros(cells.shape[1], np.bool_)
    top, bottom = cells.shape[0], -1
    for j in range(cells.shape[0]):
        for i in range(cells.shape[1]):
            if cells[j, i] > 0:
                wanted[i] = True
                top, bottom = min(top, j), j
    return wanted, max(top - 1, 0), bottom


@_compiled
def _compress(runs, codes, used):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Append COCO's code: from the third run on differences to the last but one, five bits a character."""
    for k in range(len(runs)):
        value = runs[k] - runs[k - 2] if k > 2 else runs[k]
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            codes[used] = (bits | (0x20 if more else 0)) + 48
            used += 1
    return used
