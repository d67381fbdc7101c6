"""Deformable sampling on a CPU: one compiled pass forward, one backward.

The pass visits every sample once and keeps nothing but its inputs, so that neither the indices and
shares of all corners (64 a query and head) nor a sort of them, which `embedding_bag`'s gradient needs,
ever exists. Compiled by numba at the first call, then cached beside this file.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

# Sums may be reordered, so that they run as vectors; NaN and infinity stay what they are.
_compiled = numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")


class CompiledSample(torch.autograd.Function):
    """`deformable_sample` for CPU tensors; once differentiable."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, level_hw: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
    ) -> Tensor:
        """Arguments and result of `deformable_sample`."""
        values, locations, weights = values.contiguous(), locations.contiguous(), weights.contiguous()
        sizes = np.array(level_hw)
        areas = sizes.prod(1)
        ctx.levels = np.column_stack((sizes, areas.cumsum() - areas))
        ctx.save_for_backward(values, locations, weights)
        sampled = values.new_zeros(*locations.shape[:3], values.shape[-1])
        given = values.numpy(), ctx.levels, locations.numpy(), weights.numpy()

        def sample(first: int, last: int) -> None:
            _sample(*given, sampled.numpy(), first, last)

        _in_parts(sample, len(sampled) * sampled.shape[1])
        return sampled.flatten(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
        """Gradients of values, locations and weights."""
        values, locations, weights = ctx.saved_tensors
        given = values.numpy(), ctx.levels, locations.numpy(), weights.numpy()
        upper = gradient.contiguous().view(*locations.shape[:3], -1).numpy()
        gradients = torch.zeros_like(values), torch.zeros_like(locations), torch.zeros_like(weights)
        out = tuple(g.numpy() for g in gradients)

        def spread(first: int, last: int) -> None:
            # Heads share no value, so threads that take whole heads never write to the same place.
            for head in range(first, last):
                _spread(*given, upper, out, head)

        _in_parts(spread, values.shape[2])
        return gradients[0], None, gradients[1], gradients[2]


def _in_parts(work: Callable[[int, int], None], count: int) -> None:
    """Call `work(first, last)` on as many parts of `count` as torch uses threads."""
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        work(0, count)
        return
    ends = [count * part // threads for part in range(threads + 1)]
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(work, ends[:-1], ends[1:]))


@_compiled
def _corners(level, x, y, cells, shares):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Cells around a place, their bilinear shares and these shares' slopes in x and y; how many there are."""
    height, width, start = level
    column, row = x * width - 0.5, y * height - 0.5
    if np.isnan(column) or np.isnan(row):
        cells[0], shares[:, 0] = start, np.nan
        return 1
    if column <= -1 or column >= width or row <= -1 or row >= height:
        return 0
    left, top = int(np.floor(column)), int(np.floor(row))
    count = 0
    for j in range(max(top, 0), min(top + 2, height)):
        below = row - top if j > top else 1 - (row - top)
        for i in range(max(left, 0), min(left + 2, width)):
            beside = column - left if i > left else 1 - (column - left)
            cells[count] = start + j * width + i
            shares[0, count] = below * beside
            shares[1, count] = below * width if i > left else -below * width
            shares[2, count] = beside * height if j > top else -beside * height
            count += 1
    return count


@_compiled
def _sample(values, levels, locations, weights, out, first, last):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Add up the samples of the queries `first` to `last` - 1 of all images' queries."""
    _, queries, heads, _, points, _ = locations.shape
    cells, shares = np.empty(4, np.int64), np.empty((3, 4), values.dtype)
    for line in range(first, last):
        b, q = line // queries, line % queries
        for h in range(heads):
            sums = out[b, q, h]
            for level in range(len(levels)):
                for p in range(points):
                    x, y = locations[b, q, h, level, p]
                    for c in range(_corners(levels[level], x, y, cells, shares)):
                        share = weights[b, q, h, level, p] * shares[0, c]
                        row = values[b, cells[c], h]
                        for k in range(len(sums)):
                            sums[k] += share * row[k]


@_compiled
def _spread(values, levels, locations, weights, upper, out, h):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """Gradients of head `h` from the result's gradient `upper`."""
    images, queries, _, _, points, _ = locations.shape
    of_values, of_locations, of_weights = out
    cells, shares = np.empty(4, np.int64), np.empty((3, 4), values.dtype)
    for b in range(images):
        for q in range(queries):
            slope = upper[b, q, h]
            for level in range(len(levels)):
                for p in range(points):
                    x, y = locations[b, q, h, level, p]
                    weight = weights[b, q, h, level, p]
                    for c in range(_corners(levels[level], x, y, cells, shares)):
                        row, target = values[b, cells[c], h], of_values[b, cells[c], h]
                        product = slope[0] * 0
                        for k in range(len(slope)):
                            product += slope[k] * row[k]
                            target[k] += weight * shares[0, c] * slope[k]
                        of_weights[b, q, h, level, p] += shares[0, c] * product
                        of_locations[b, q, h, level, p, 0] += weight * shares[1, c] * product
                        of_locations[b, q, h, level, p, 1] += weight * shares[2, c] * product
