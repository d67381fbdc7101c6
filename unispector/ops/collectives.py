"""Communication between the processes that train one model; with one process, each function is a no-op.

Every rank calls them in the same order, also one that has nothing to say: a call left out hangs the others.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def world() -> tuple[int, int]:
    """Rank of this process and the number of processes that train together: (0, 1) when alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all ranks, in the order of the ranks.

    The gradient of a row is what the losses of all ranks ask of it, summed. Rows are [n, ...] numbers; n may
    differ between ranks, and be 0, the other sizes may not. Returns [sum of n, ...], the same on every rank.
    """
    rank, size = world()
    if size == 1:
        return rows
    counts = counts_of_ranks(len(rows), rows.device)
    before, after = sum(counts[:rank]), sum(counts[rank + 1 :])
    first, last = (rows.new_zeros(n, *rows.shape[1:]) for n in (before, after))
    # Summed gradients are exact: DDP then divides by the ranks, as the mean of their losses does.
    gathered: Tensor = _SumOverRanks.apply(torch.cat([first, rows, last]))
    return gathered


def own_rows(rows: Tensor) -> Tensor:
    """This rank's share of rows [size * n, ...] that all ranks hold alike: n rows, in rank order."""
    rank, size = world()
    return rows.tensor_split(size)[rank]


def uniform_rows(like: Tensor) -> Tensor:
    """Uniform random numbers for this rank's rows, a share of one draw for the rows of all ranks.

    Two ranks thus draw what one process draws for both: their generators are seeded alike. The numbers get
    the shape [n, ...], dtype and device of `like`; n is the same on all ranks. Returns [n, ...] in [0, 1).
    """
    _, size = world()
    shape = (size * len(like), *like.shape[1:])
    return own_rows(torch.rand(shape, dtype=like.dtype, device=like.device))


def counts_of_ranks(count: int, device: torch.device) -> list[int]:
    """The count of every rank, in rank order; `device` is where this rank's tensors lie."""
    rank, size = world()
    if size == 1:
        return [count]
    counts = torch.zeros(size, dtype=torch.int64, device=device)
    counts[rank] = count
    distributed.all_reduce(counts)
    return [int(each) for each in counts.tolist()]


def mean_over_ranks(count: int, device: torch.device) -> float:
    """Mean of a count over the ranks; where no rank counted anything, as if one had counted 1."""
    counts = counts_of_ranks(count, device)
    return max(sum(counts), 1) / len(counts)


class _SumOverRanks(torch.autograd.Function):
    """Sum of a tensor over the ranks; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        del ctx
        total = rows.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        del ctx
        return _SumOverRanks.apply(gradient)
