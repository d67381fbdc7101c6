"""T-Rex2's visual prompts: boxes by their positions and deformable cross-attention.

After the paper's description (Jiang et al., ECCV 2024, 3.1); no code of it is released. All boxes of
a class in an image go together with a class token that has the whole frame as its box; what the token has
gathered is the class's embedding in that image.
"""

import torch
from torch import Tensor, nn

from unispector.modeling.deformable_attention import DeformableAttention
from unispector.modeling.layers import FeedForward
from unispector.modeling.pixel_decoder import LEVELS
from unispector.modeling.position_encoding import encode_boxes
from unispector.ops.boxes import xyxy_to_cxcywh
from unispector.structures import ImageFeatures, VisualPrompts

LAYERS = 3
_FRAME = (0.5, 0.5, 1.0, 1.0)  # cxcywh of the class token


class _BoxLayer(nn.Module):
    """Deformable cross-attention to the image, self-attention within a class, feed-forward; post-norm."""

    def __init__(self, width: int, heads: int, points: int, feedforward: int) -> None:
        """Build one layer; see `BoxPromptEncoder` for the sizes."""
        super().__init__()
        self.cross_attention = DeformableAttention(width, heads, LEVELS, points)
        self.cross_norm = nn.LayerNorm(width)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.self_norm = nn.LayerNorm(width)
        self.feedforward = FeedForward(width, feedforward)

    def forward(self, tokens: Tensor, boxes: Tensor, blocked: Tensor, features: ImageFeatures) -> Tensor:
        """[B, L, D] tokens with boxes [B, L, 4] and mask [B, L, L] to [B, L, D]."""
        seen = self.cross_attention(tokens, boxes, features.memory, features.level_hw)
        tokens = self.cross_norm(tokens + seen)
        mask = blocked.repeat_interleave(self.self_attention.num_heads, dim=0)
        attended, _ = self.self_attention(tokens, tokens, tokens, attn_mask=mask, need_weights=False)
        out: Tensor = self.feedforward(self.self_norm(tokens + attended))
        return out


class BoxPromptEncoder(nn.Module):
    """One embedding per class and image, that every marked region of the class in the image gets."""

    def __init__(self, width: int, heads: int, *, points: int, feedforward: int) -> None:
        """Build the encoder.

        Args:
            width: channels D.
            heads: attention heads.
            points: sampling points per head and level.
            feedforward: hidden width of the feed-forward blocks.
        """
        super().__init__()
        self.content = nn.Parameter(torch.randn(2, width))  # of a box, and of the class token
        self.position = nn.Linear(4 * (width // 2), width)
        self.join = nn.Linear(2 * width, width)
        self.layers = nn.ModuleList(_BoxLayer(width, heads, points, feedforward) for _ in range(LAYERS))
        self.width = width

    def forward(self, features: ImageFeatures, prompts: VisualPrompts) -> Tensor:
        """Embed every marked region by the bounding boxes of its class in its image.

        Args:
            features: of the B images the regions lie in.
            prompts: N regions.

        Returns:
            [N, D] embeddings, equal for regions of one class in one image; zero rows for no prompts.
        """
        if not len(prompts):
            return self.content.new_zeros(0, self.width)
        keys = torch.stack((prompts.image_index, prompts.labels), dim=1)
        groups, group = keys.unique(dim=0, return_inverse=True)
        frame = self.content.new_tensor(_FRAME).expand(len(groups), 4)
        boxes = torch.cat((frame, mask_boxes(prompts.roi_masks).to(frame)))
        kind = torch.cat((torch.ones_like(groups[:, 0]), torch.zeros_like(group)))
        members = torch.cat((torch.arange(len(groups), device=group.device), group))
        image = groups[members, 0]
        batch = len(features.memory)
        slot = _slots(image, batch)
        rows = int(slot.max()) + 1
        position = self.position(encode_boxes(boxes, self.width // 2))
        tokens = boxes.new_zeros(batch, rows, self.width)
        tokens[image, slot] = self.join(torch.cat((self.content[kind], position), dim=-1)).to(tokens)
        references = boxes.new_zeros(batch, rows, 4)
        references[image, slot] = boxes
        owner = torch.full(
            (batch, rows), -1, device=group.device
        )  # of a row without a token: itself and its like
        owner[image, slot] = members
        blocked = owner[:, :, None] != owner[:, None, :]
        for layer in self.layers:
            tokens = layer(tokens, references, blocked, features)
        classes: Tensor = tokens[image[: len(groups)], slot[: len(groups)]]
        return classes[group]


def mask_boxes(masks: Tensor) -> Tensor:
    """Bounding boxes [N, 4] cxcywh in [0, 1] of masks [N, P, P] bool, none of them empty."""
    side = masks.shape[-1]
    ends = []
    for shown in (masks.any(1), masks.any(2)):  # columns, rows
        first = shown.int().argmax(1)
        last = side - shown.flip(1).int().argmax(1)
        ends.append(torch.stack((first, last), dim=1))
    (left, right), (top, bottom) = (end.unbind(1) for end in ends)
    return xyxy_to_cxcywh(torch.stack((left, top, right, bottom), dim=1).float() / side)


def _slots(image: Tensor, batch: int) -> Tensor:
    """Number each token [T] among those of its image."""
    order = image.argsort(stable=True)
    counts = torch.bincount(image, minlength=batch)
    starts = counts.cumsum(0) - counts
    slot = torch.empty_like(order)
    slot[order] = torch.arange(len(order), device=image.device) - starts[image[order]]
    return slot
