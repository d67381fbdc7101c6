"""Deformable pixel decoder (MaskDINO): backbone maps to vision tokens and mask features."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unispector.modeling.deformable_attention import DeformableAttention
from unispector.modeling.layers import FeedForward, xavier_uniform
from unispector.modeling.position_encoding import encode_map
from unispector.structures import ImageFeatures

LEVELS = 4
GROUPS = 32


def _projection(channels: int, width: int, *, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, width))


class EncoderLayer(nn.Module):
    """Deformable self-attention over all levels, then a feed-forward block; post-norm."""

    def __init__(self, width: int, heads: int, points: int, feedforward: int) -> None:
        """Build one layer; see `PixelDecoder` for the sizes."""
        super().__init__()
        self.attention = DeformableAttention(width, heads, LEVELS, points)
        self.norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, feedforward)

    def forward(
        self, tokens: Tensor, positions: Tensor, references: Tensor, level_hw: tuple[tuple[int, int], ...]
    ) -> Tensor:
        """[B, T, D] tokens with [T, D] positions and [1, T, 2] references to [B, T, D]."""
        attended = self.attention(tokens + positions, references, tokens, level_hw)
        out: Tensor = self.feedforward(self.norm(tokens + attended))
        return out


class PixelDecoder(nn.Module):
    """Deformable encoder over strides 8, 16, 32, 64 and one FPN step to stride 4."""

    def __init__(
        self, channels: tuple[int, ...], width: int, *, heads: int, points: int, layers: int, feedforward: int
    ) -> None:
        """Build the decoder.

        Args:
            channels: backbone channels at strides 4, 8, 16, 32.
            width: channels D of tokens and mask features, a multiple of 32 and of `heads`.
            heads: attention heads.
            points: sampling points per head and level.
            layers: encoder layers.
            feedforward: hidden width of the feed-forward blocks.
        """
        super().__init__()
        stride4, *rest = channels
        self.projections = nn.ModuleList(_projection(c, width) for c in rest)
        self.projections.append(_projection(rest[-1], width, kernel=3, stride=2))
        self.layers = nn.ModuleList(EncoderLayer(width, heads, points, feedforward) for _ in range(layers))
        self.checkpointing = False  # keep a layer's input only and compute the layer again for its gradient
        self.level_embed = nn.Parameter(torch.empty(LEVELS, width))
        self.lateral = nn.Sequential(nn.Conv2d(stride4, width, 1, bias=False), nn.GroupNorm(GROUPS, width))
        self.output = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU()
        )
        self.mask_features = nn.Conv2d(width, width, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier for the transformer, then the deformable attention's own start, Kaiming for the FPN."""
        for layer in self.layers:
            xavier_uniform(layer)
            layer.attention.reset_parameters()  # type: ignore[union-attr, operator]
        nn.init.normal_(self.level_embed)
        for module in (self.lateral, self.output, self.mask_features):
            for part in module.modules():
                if isinstance(part, nn.Conv2d):
                    nn.init.kaiming_uniform_(part.weight, a=1)
        nn.init.zeros_(self.mask_features.bias)  # type: ignore[arg-type]

    def forward(self, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> ImageFeatures:
        """Encode backbone maps.

        Args:
            maps: strides 4, 8, 16, 32 of the padded frame, [B, channels[i], P/stride, P/stride].

        Returns:
            Tokens of strides 64, 32, 16, 8 and mask features of stride 4.
        """
        stride4, *rest = maps
        levels = [project(m) for project, m in zip(self.projections, [*rest, rest[-1]], strict=True)]
        level_hw = tuple((m.shape[-2], m.shape[-1]) for m in levels)
        tokens = torch.cat([m.flatten(2).transpose(1, 2) for m in levels], dim=1)
        width, device = tokens.shape[-1], tokens.device
        positions = torch.cat(
            [encode_map(h, w, width, device) + self.level_embed[i] for i, (h, w) in enumerate(level_hw)]
        )
        references = token_centres(level_hw, device)[None]
        again = self.checkpointing and torch.is_grad_enabled()
        for layer in self.layers:
            given = (tokens, positions, references, level_hw)
            tokens = checkpoint(layer, *given, use_reentrant=False) if again else layer(*given)
        per_level = tokens.split([h * w for h, w in level_hw], dim=1)
        fine = per_level[0].transpose(1, 2).unflatten(2, level_hw[0])
        lateral = self.lateral(stride4)
        merged = lateral + F.interpolate(fine, lateral.shape[-2:], mode="bilinear", align_corners=False)
        return ImageFeatures(
            memory=torch.cat(per_level[::-1], dim=1),
            level_hw=level_hw[::-1],
            mask_features=self.mask_features(self.output(merged)),
        )


def token_centres(level_hw: tuple[tuple[int, int], ...], device: torch.device) -> Tensor:
    """Centres (x, y) in [0, 1] of all tokens, levels in the given order: [T, 2]."""
    centres = []
    for height, width in level_hw:
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        centres.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1))
    return torch.cat(centres)
