"""Multi-scale deformable attention (Deformable DETR, eq. 3): compiled on a CPU, plain PyTorch elsewhere."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.modeling.deformable_kernels import CompiledSample


def deformable_sample(
    values: Tensor, level_hw: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples; outside a map the value is zero.

    Args:
        values: [B, T, heads, d] tokens of all levels, concatenated in the order of `level_hw`.
        level_hw: (height, width) of each of the L levels; their areas sum to T.
        locations: [B, Q, heads, L, points, 2], x then y in [0, 1], cell edges at 0 and 1
            (`align_corners=False`).
        weights: [B, Q, heads, L, points] attention weights.

    Returns:
        [B, Q, heads * d].
    """
    if values.device.type == "cpu":
        sampled: Tensor = CompiledSample.apply(values, level_hw, locations, weights)
        return sampled
    return gathered_sample(values, level_hw, locations, weights)


def gathered_sample(
    values: Tensor, level_hw: tuple[tuple[int, int], ...], locations: Tensor, weights: Tensor
) -> Tensor:
    """`deformable_sample` on any device.

    A bilinear sample is a weighted sum of four table rows, so all samples of a query (levels, points,
    corners) are one `embedding_bag` with per-sample weights: no intermediate of sampled values exists.
    """
    batch, tokens, heads, depth = values.shape
    queries = locations.shape[1]
    sizes = torch.tensor(level_hw, device=values.device)
    height, width = (sizes[:, i].view(1, 1, 1, -1, 1) for i in (0, 1))
    starts = (sizes.prod(1).cumsum(0) - sizes.prod(1)).view(1, 1, 1, -1, 1)
    table = torch.arange(batch * heads, device=values.device).view(batch, 1, heads, 1, 1) * tokens + starts
    columns, x_shares = _neighbours(locations[..., 0] * width - 0.5, width)
    rows, y_shares = _neighbours(locations[..., 1] * height - 0.5, height)
    indices, shares = [], []
    for row, y_share in zip(rows, y_shares, strict=True):
        line = table + row * width
        for column, x_share in zip(columns, x_shares, strict=True):
            indices.append(line + column)
            shares.append(weights * x_share * y_share)
    bags = batch * queries * heads
    sampled = F.embedding_bag(
        torch.stack(indices, dim=-1).reshape(bags, -1),
        values.transpose(1, 2).reshape(batch * heads * tokens, depth),
        per_sample_weights=torch.stack(shares, dim=-1).reshape(bags, -1),
        mode="sum",
    )
    return sampled.view(batch, queries, heads * depth)


def _neighbours(place: Tensor, cells: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The two cells around a place along one axis, and their shares of it; a cell off the map has none."""
    first = place.detach().floor()
    share = place - first
    inside = (first >= 0) & (first < cells), (first >= -1) & (first < cells - 1)
    first = first.long()
    indices = tuple(cell.clamp(min=0).minimum(cells - 1) for cell in (first, first + 1))
    return (indices[0], indices[1]), ((1 - share) * inside[0], share * inside[1])


class DeformableAttention(nn.Module):
    """Attention of queries to a few learned places around their references on every level."""

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        """Build the projections.

        Args:
            width: channels D, divisible by `heads`.
            heads: attention heads.
            levels: feature levels L.
            points: sampling points per head and level.
        """
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Offsets start as one compass direction per head, points at growing distance; weights uniform."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack((angle.cos(), angle.sin()), dim=-1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        offsets = direction.view(self.heads, 1, 1, 2).repeat(1, self.levels, self.points, 1)
        offsets = offsets * torch.arange(1, self.points + 1).view(1, 1, -1, 1)
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.flatten())
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, queries: Tensor, references: Tensor, memory: Tensor, level_hw: tuple[tuple[int, int], ...]
    ) -> Tensor:
        """Attend.

        Args:
            queries: [B, Q, D].
            references: [B or 1, Q, 2] points (offsets in cells of each level) or [B or 1, Q, 4] boxes
                cxcywh (offsets in half box sizes), normalised.
            memory: [B, T, D].
            level_hw: (height, width) of the levels in the order of `memory`.

        Returns:
            [B, Q, D].
        """
        batch, count, _ = queries.shape
        shape = (batch, count, self.heads, self.levels, self.points)
        # Sampling stays in fp32: bf16 coordinates would be off by whole cells.
        with torch.autocast(queries.device.type, enabled=False):
            precise = torch.promote_types(queries.dtype, torch.float32)
            queries, references, memory = (t.to(precise) for t in (queries, references, memory))
            values = self.value_proj(memory).view(batch, -1, self.heads, memory.shape[-1] // self.heads)
            offsets = self.sampling_offsets(queries).view(*shape, 2)
            weights = self.attention_weights(queries).view(*shape[:3], -1).softmax(-1).view(shape)
            centre = references[:, :, None, None, None, :2]
            if references.shape[-1] == 2:
                cells = queries.new_tensor([(w, h) for h, w in level_hw]).view(1, 1, 1, -1, 1, 2)
                locations = centre + offsets / cells
            else:
                size = references[:, :, None, None, None, 2:]
                locations = centre + offsets / self.points * size * 0.5
            out: Tensor = self.output_proj(deformable_sample(values, level_hw, locations, weights))
            return out
