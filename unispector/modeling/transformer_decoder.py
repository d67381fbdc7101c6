"""Deformable transformer decoder over denoising queries, object queries and prompts."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unispector.modeling.deformable_attention import DeformableAttention
from unispector.modeling.layers import MLP, FeedForward, xavier_uniform
from unispector.modeling.pixel_decoder import LEVELS
from unispector.modeling.position_encoding import encode_boxes
from unispector.ops.boxes import inverse_sigmoid
from unispector.structures import ImageFeatures


@dataclass(frozen=True)
class DecoderState:
    """One decoder layer's result."""

    tokens: Tensor  # [N, L, D], normalised once
    boxes: Tensor  # [N, L, 4] cxcywh in [0, 1]


class DecoderLayer(nn.Module):
    """Self-attention, deformable cross-attention to the image, feed-forward; post-norm."""

    def __init__(self, width: int, heads: int, points: int, feedforward: int) -> None:
        """Build one layer; see `TransformerDecoder` for the sizes."""
        super().__init__()
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.self_norm = nn.LayerNorm(width)
        self.cross_attention = DeformableAttention(width, heads, LEVELS, points)
        self.cross_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, feedforward)

    def forward(
        self, tokens: Tensor, positions: Tensor, boxes: Tensor, blocked: Tensor, features: ImageFeatures
    ) -> Tensor:
        """[N, L, D] tokens with positions [N, L, D], boxes [N, L, 4] and mask [N, L, L] to [N, L, D]."""
        keys = tokens + positions
        mask = blocked.repeat_interleave(self.self_attention.num_heads, dim=0)
        attended, _ = self.self_attention(keys, keys, tokens, attn_mask=mask, need_weights=False)
        tokens = self.self_norm(tokens + attended)
        # To the image all tokens are alike: rows of one image go together, its values are projected once.
        rows = (len(features.memory), -1)
        attended = self.cross_attention(
            (tokens + positions).view(*rows, tokens.shape[-1]),
            boxes.view(*rows, 4),
            features.memory,
            features.level_hw,
        ).view_as(tokens)
        out: Tensor = self.feedforward(self.cross_norm(tokens + attended))
        return out


class TransformerDecoder(nn.Module):
    """Layers with iterative box refinement, all refined by one shared box head."""

    def __init__(self, width: int, *, heads: int, points: int, layers: int, feedforward: int) -> None:
        """Build the decoder.

        Args:
            width: channels D.
            heads: attention heads.
            points: sampling points per head and level.
            layers: decoder layers.
            feedforward: hidden width of the feed-forward blocks.
        """
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(width, heads, points, feedforward) for _ in range(layers))
        for layer in self.layers:
            xavier_uniform(layer)
            layer.cross_attention.reset_parameters()  # type: ignore[union-attr, operator]
        self.position = MLP((4 * (width // 2), width, width))
        self.box = MLP((width, width, width, 4), zero=True)
        self.norm = nn.LayerNorm(width)
        self.width = width

    def forward(
        self, tokens: Tensor, reference: Tensor, blocked: Tensor, features: ImageFeatures
    ) -> list[DecoderState]:
        """Decode.

        Args:
            tokens: [N, L, D] contents; N rows are the B images' in order, equally many of each.
            reference: [N, L, 4] box logits.
            blocked: [N, L, L] bool, True = may not attend.
            features: of the B images.

        Returns:
            One state per layer. A layer's box keeps the gradient of the reference it refines, the
            next layer's reference does not (look forward twice, DINO).
        """
        boxes = reference.sigmoid()
        states = []
        for layer in self.layers:
            fixed = boxes.detach()
            positions = self.position(encode_boxes(fixed, self.width // 2))
            tokens = layer(tokens, positions, fixed, blocked, features)
            normed = self.norm(tokens)
            states.append(DecoderState(normed, self._moved(boxes, normed)))
            boxes = self._moved(fixed, tokens)
        return states

    def _moved(self, boxes: Tensor, tokens: Tensor) -> Tensor:
        """Boxes [N, L, 4] moved by the box head."""
        # Not in bf16, where a step of a box's logit is half a pixel at 736.
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
            out: Tensor = (self.box(tokens) + inverse_sigmoid(boxes)).sigmoid()
            return out
