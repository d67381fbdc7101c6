"""Spatial-Spectral Prompt Encoder (SSPE): one embedding per marked region."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.modeling.layers import MLP
from unispector.structures import ImageFeatures, VisualPrompts


def roi_pyramid(roi_masks: Tensor, level_hw: tuple[tuple[int, int], ...]) -> tuple[Tensor, ...]:
    """Cells each region covers on every level; a region never loses its last cell.

    A cell is kept when any pixel of it is. Where a level does not divide the next finer one (an odd
    last level), it is kept when the bilinear resize of that level is positive.

    Args:
        roi_masks: [N, P, P] bool.
        level_hw: (height, width) of the levels, coarse to fine.

    Returns:
        [N, h * w] bool per level, in the order of `level_hw`.
    """
    current = roi_masks[:, None].float()
    cells = []
    for hw in reversed(level_hw):
        if current.shape[-2] % hw[0] == 0 and current.shape[-1] % hw[1] == 0:
            current = F.adaptive_max_pool2d(current, hw)
        else:
            current = (F.interpolate(current, hw, mode="bilinear", align_corners=False) > 0).float()
        cells.append(current.flatten(1) > 0)
    return tuple(reversed(cells))


class RoiCrossAttention(nn.Module):
    """RoI-aware cross-attention of one level: a query attends only to the cells of its region."""

    def __init__(self, width: int, heads: int) -> None:
        """Build the layer: `width` channels, `heads` attention heads."""
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, position: Tensor, tokens: Tensor, blocked: Tensor) -> Tensor:
        """Attend, add, normalise.

        Args:
            queries: [B, R, D], R regions of each image.
            position: [D], added to the queries only.
            tokens: [B, h * w, D] of the level.
            blocked: [B, R, h * w] bool, True = not visible; no row may be all True.
        """
        mask = blocked.repeat_interleave(self.attention.num_heads, dim=0)
        attended, _ = self.attention(queries + position, tokens, tokens, attn_mask=mask, need_weights=False)
        out: Tensor = self.norm(queries + attended)
        return out


class PromptEncoder(nn.Module):
    """SSPE: `V-aligner(spatial) + F-aligner(frequency)` for every marked region.

    The spatial branch is RoI-aware cross-attention, coarse to fine; the spectral branch encodes the
    radial spectrum of Algorithm 1 (paper appendix 2). Both aligners begin as "no change", so that
    training starts from the spatial prompt alone.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        levels: int,
        bins: int,
        spectral: bool,
        visual_aligner: bool,
        log: bool,
    ) -> None:
        """Build the encoder.

        Args:
            width: channels D.
            heads: attention heads.
            levels: feature levels.
            bins: radial bins J of the spectra.
            spectral: use the spectral branch.
            visual_aligner: align the spatial prompt with a residual MLP.
            log: feed log(f + 1e-4); nearly all of an L2-normalised spectrum is its DC bin.
        """
        super().__init__()
        self.content = nn.Parameter(torch.randn(width))
        self.position = nn.Parameter(torch.randn(width))
        self.cross_attention = nn.ModuleList(RoiCrossAttention(width, heads) for _ in range(levels))
        aligner = (width, width, width)
        self.visual_aligner = MLP(aligner, activation=nn.GELU, zero=True) if visual_aligner else None
        self.log = log
        self.frequency_encoder = (
            nn.Sequential(nn.LayerNorm(bins), MLP((bins, width, width), activation=nn.GELU), nn.GELU())
            if spectral
            else None
        )
        self.frequency_aligner = MLP(aligner, activation=nn.GELU, zero=True) if spectral else None

    def forward(self, features: ImageFeatures, prompts: VisualPrompts) -> Tensor:
        """Embed every marked region.

        Args:
            features: of the B images the regions lie in.
            prompts: N regions.

        Returns:
            [N, D] embeddings; zero rows for no prompts.
        """
        embeddings = self._spatial(features, prompts)
        if self.visual_aligner is not None:
            embeddings = embeddings + self.visual_aligner(embeddings)
        if self.frequency_encoder is not None and self.frequency_aligner is not None:
            spectra = prompts.spectra.to(embeddings.dtype)
            frequency = self.frequency_encoder((spectra + 1e-4).log() if self.log else spectra)
            embeddings = embeddings + self.frequency_aligner(frequency)
        return embeddings

    def _spatial(self, features: ImageFeatures, prompts: VisualPrompts) -> Tensor:
        """Cross-attend level by level, the regions of an image as its padded row of queries."""
        batch, width = len(features.memory), features.memory.shape[-1]
        counts = torch.bincount(prompts.image_index, minlength=batch)
        order = prompts.image_index.argsort(stable=True)
        image = prompts.image_index[order]
        starts = counts.cumsum(0) - counts
        slot = torch.arange(len(order), device=image.device) - starts[image]
        rows = max(int(counts.max()), 1)
        queries = self.content.expand(batch, rows, width)
        memory = features.memory.split([h * w for h, w in features.level_hw], dim=1)
        pyramid = roi_pyramid(prompts.roi_masks[order], features.level_hw)
        for layer, tokens, cells in zip(self.cross_attention, memory, pyramid, strict=True):
            blocked = torch.zeros(batch, rows, tokens.shape[1], dtype=torch.bool, device=tokens.device)
            # A row without any cell would give NaN: it sees the whole image instead.
            blocked[image, slot] = ~cells & cells.any(1, keepdim=True)
            queries = layer(queries, self.position, tokens, blocked)
        return queries[image, slot][order.argsort()]


class ClassEmbeddings(nn.Module):
    """A learned embedding per training class in a prompt's place: a closed set, as MaskDINO's."""

    def __init__(self, width: int, classes: int) -> None:
        """Build the table: `classes` rows of `width` channels."""
        super().__init__()
        self.table = nn.Embedding(classes, width)

    def forward(self, features: ImageFeatures, prompts: VisualPrompts) -> Tensor:
        """[N, D] rows of the regions' classes, whatever the image shows."""
        embeddings: Tensor = self.table(prompts.labels).to(features.memory)
        return embeddings
