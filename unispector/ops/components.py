"""8-connected components of a mask, found from its runs: the work grows with the defects, not the image."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unispector.ops.rle import BoolArray

Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Runs:
    """Horizontal runs of a mask, row by row: row, first column, column after the last."""

    row: Ints
    start: Ints
    end: Ints


def components(mask: BoolArray) -> Iterator[tuple[BoolArray, int, int]]:
    """The 8-connected components of a mask, each as its own crop.

    Yields (bool [component's h, w], left, top) in the order of their first pixel, row by row.
    """
    runs = _runs_of(mask)
    if len(runs.row) == 0:
        return
    labels = _label(runs, mask.shape[1])
    order = np.argsort(labels, kind="stable")
    firsts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    for member in sorted(np.split(order, firsts[1:]), key=lambda runs_of_one: int(runs_of_one[0])):
        yield _painted(_Runs(runs.row[member], runs.start[member], runs.end[member]))


def _runs_of(mask: BoolArray) -> _Runs:
    height, width = mask.shape
    padded = np.zeros((height, width + 2), dtype=np.bool_)
    padded[:, 1:-1] = mask
    row, column = np.divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), width + 1)
    return _Runs(row[0::2], column[0::2], column[1::2])


def _label(runs: _Runs, width: int) -> Ints:
    """A number per run; runs of one component share it."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # One sorted key per run and side, so that all runs of the next row are found at once.
    stride = width + 2
    starts, ends = runs.row * stride + runs.start, runs.row * stride + runs.end
    first = np.searchsorted(ends, starts + stride, side="left")  # ends reach this run's start or its corner
    last = np.searchsorted(starts, ends + stride, side="right")
    touching = np.maximum(last - first, 0)
    above = np.repeat(np.arange(len(touching)), touching)
    place = np.arange(len(above)) - np.repeat(np.cumsum(touching) - touching, touching)
    below = np.repeat(first, touching) + place
    shape = (len(touching), len(touching))
    graph = coo_array((np.ones(len(above), dtype=np.int8), (above, below)), shape=shape)
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def _painted(runs: _Runs) -> tuple[BoolArray, int, int]:
    top, left = int(runs.row[0]), int(runs.start.min())
    change = np.zeros((int(runs.row[-1]) - top + 1, int(runs.end.max()) - left + 1), dtype=np.int8)
    change[runs.row - top, runs.start - left] = 1
    change[runs.row - top, runs.end - left] = -1
    return change.cumsum(axis=1, dtype=np.int8)[:, :-1].view(np.bool_), left, top
