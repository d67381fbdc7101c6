"""Comparison of a level of features with prompts: measures without a weight, and learned attention."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.prior_structures import PromptMemory

HEADS, KEY = 8, 14  # attention heads of a level, and channels of their keys
ATTENDING = 256  # channels from which on a level is attended to; the finer ones are many and say little
MEASURES = 8
CALIBRATED_MEASURE = 5  # the measure that the untrained mask is read from
LEAST_GAP = 0.1  # between what marked and other cells score
BLOCKED = -1e4  # added to an attention logit that must not count
AT_ONCE = 2**24
"""Similarities that are held at a time (64 MiB)."""


class LevelComparison(nn.Module):
    """Compares every cell of one level with the prompts: by fixed measures, and by learned attention."""

    def __init__(self, channels: int) -> None:
        """Build the attention of a level of `channels`, where it has any."""
        super().__init__()
        self.attention = _MarkAttention(channels) if channels >= ATTENDING else None
        self.channels = MEASURES + (HEADS if self.attention is not None else 0)
        # How sharply a cell picks cells of its own image that look like itself.
        self.sharpness = nn.Parameter(torch.tensor(math.log(20.0))) if self.attention is not None else None

    def forward(
        self, level: Tensor, memory: PromptMemory, number: int, members: Tensor, typical: Tensor
    ) -> Tensor:
        """Compare B images with the prompts of C classes in R sets.

        Args:
            level: [B, D, h, w] unit vectors.
            memory: of N marked images.
            number: of the level within the memory.
            members: [R, C, N] bool, R a multiple of B.
            typical: [R, C, 2] difference of similarities on marked and on other cells.

        Returns:
            [R * C, channels, h, w]: nearest inside, nearest outside, their difference, similarity to the
            mean inside, nearest inside averaged over the images, the difference scaled so that other cells
            are 0 and marked ones 1, how unlike the image's mean the cell is, the scaled difference spread
            to cells of the same image that look alike; then the attention heads.
        """
        rows, classes, _ = members.shape
        cells = level.flatten(2).transpose(1, 2)
        image = torch.arange(len(cells), device=level.device).repeat_interleave(rows // len(cells))
        measures = measure(cells, memory.inside[number], memory.outside[number], members, typical)
        scaled = measures[:, :, CALIBRATED_MEASURE]
        if self.attention is None or self.sharpness is None:
            return torch.cat((measures, scaled[:, :, None]), dim=2).view(
                rows * classes, -1, *level.shape[-2:]
            )
        with torch.no_grad():
            alike = cells @ cells.transpose(1, 2)
        weights = torch.softmax(alike * self.sharpness.exp(), dim=-1)
        spread = scaled.float() @ weights.float()[image].transpose(1, 2)
        heads = self.attention(cells, memory, number, members)
        out = torch.cat((measures, spread[:, :, None], heads.to(measures.dtype)), dim=2)
        return out.view(rows * classes, -1, *level.shape[-2:])


class _MarkAttention(nn.Module):
    """Attention from target cells to prompt cells; a head tells how much of what it looks at is marked."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(channels, HEADS * KEY, bias=False)
        self.key = nn.Linear(channels, HEADS * KEY, bias=False)
        self.sharpness = nn.Parameter(torch.linspace(math.log(6.0), math.log(20.0), HEADS))
        self.marked = nn.Parameter(torch.zeros(HEADS))
        self.plain = nn.Parameter(torch.zeros(HEADS))
        # Alike at the start, so that a head begins by comparing.
        nn.init.orthogonal_(self.query.weight)
        self.key.weight.data.copy_(self.query.weight.data)

    def forward(self, cells: Tensor, memory: PromptMemory, number: int, members: Tensor) -> Tensor:
        """[R, C, H, T] in [-1, 1]: 1 where all of a cell's attention lies on marked cells."""
        rows, classes, _ = members.shape
        query = self._split(self.query, cells) * self.sharpness.exp()[:, None, None]
        # The last channel of a key is added to its logit: a query's is 1.
        query = torch.cat((query, torch.ones_like(query[..., :1])), dim=-1)
        query = query.repeat_interleave(rows // len(cells), dim=0)
        inside, outside = memory.inside[number], memory.outside[number]
        bonus = self.marked[:, None] - self.plain[:, None] * memory.plainness[number][:, None]
        keys = torch.cat(
            (
                torch.cat((self._split(self.key, inside), bonus[..., None]), dim=-1),
                F.pad(self._split(self.key, outside), (0, 1)),
            ),
            dim=2,
        )
        value = query.new_zeros(1, 1, keys.shape[2], KEY + 1)
        value[:, :, : inside.shape[1], 0] = 1
        found = []
        for column in range(classes):
            chosen, valid = _chosen(members[:, column])
            key = keys[chosen]  # [R, n, H, m, K]
            block = torch.where(valid, 0.0, BLOCKED)[:, :, None, None].expand(key.shape[:-1])
            key = torch.cat((key[..., :-1], key[..., -1:] + block[..., None]), dim=-1)
            key = key.transpose(1, 2).flatten(2, 3)
            values = value.repeat(1, 1, chosen.shape[1], 1).expand(rows, HEADS, -1, -1)
            looked = F.scaled_dot_product_attention(query, key, values.to(key.dtype), scale=1.0)
            found.append(2 * looked[..., 0].float() - 1)
        return torch.stack(found, dim=1)

    def _split(self, layer: nn.Linear, cells: Tensor) -> Tensor:
        """[n, H, T, K] unit vectors of cells [n, T, D]."""
        return F.normalize(layer(cells).unflatten(-1, (HEADS, KEY)).float(), dim=-1).transpose(1, 2)


@torch.no_grad()
def measure(cells: Tensor, inside: Tensor, outside: Tensor, members: Tensor, typical: Tensor) -> Tensor:
    """Compare every cell of B images with the prompts of every class, without a weight to learn.

    Args:
        cells: [B, T, D] unit vectors.
        inside, outside: [N, m, D] unit vectors in and around the marks of N images.
        members: [R, C, N] bool, R a multiple of B.
        typical: [R, C, 2] difference of similarities on marked and on other cells.

    Returns:
        [R, C, 7, T]: nearest inside, nearest outside, their difference, similarity to the mean inside,
        nearest inside averaged over the images, the difference scaled so that other cells are 0 and
        marked ones 1, and how unlike the image's mean the cell is.
    """
    rows, classes, _ = members.shape
    image = torch.arange(len(cells), device=cells.device).repeat_interleave(rows // len(cells))
    near_in, near_out = nearest(cells, inside), nearest(cells, outside)
    means = inside.mean(1)
    unlike = 1 - torch.einsum("btd,bd->bt", cells, F.normalize(cells.mean(1), dim=-1))[image]
    out = cells.new_empty(rows, classes, MEASURES - 1, cells.shape[1])
    for column in range(classes):
        chosen, valid = _chosen(members[:, column])
        of_in, of_out = (near[image[:, None], chosen] for near in (near_in, near_out))
        difference = of_in.amax(1) - of_out.amax(1)
        share = valid.float() / valid.sum(1, keepdim=True)
        centre = F.normalize((share[..., None] * means[chosen]).sum(1), dim=-1)
        marked, other = typical[:, column].unsqueeze(-1).unbind(1)
        channels = (
            of_in.amax(1),
            of_out.amax(1),
            difference,
            torch.einsum("rtd,rd->rt", cells[image], centre),
            (share[..., None] * of_in).sum(1),
            ((difference - other) / (marked - other).clamp(min=LEAST_GAP)).clamp(-2, 3),
            unlike,
        )
        out[:, column] = torch.stack([c.float() for c in channels], dim=1)
    return out


def _chosen(members: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [R, n] of the members of each row [R, N], the first one repeated; and which are no repeats."""
    count = members.sum(1)
    order = members.int().argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
    valid = torch.arange(order.shape[1], device=members.device) < count[:, None]
    return torch.where(valid, order, order[:, :1]), valid


def nearest(cells: Tensor, known: Tensor) -> Tensor:
    """[B, N, T] best cosine of cells [B, T, D] to each image's [N, m, D]."""
    at_once = max(AT_ONCE // (cells.shape[0] * cells.shape[1] * known.shape[1]), 1)
    return torch.cat(
        [
            (part.flatten(0, 1) @ cells.transpose(1, 2)).unflatten(1, part.shape[:2]).amax(2)
            for part in known.split(at_once)
        ],
        dim=1,
    )
