"""A plain vision transformer as backbone: tokens of some of its blocks, and a light pyramid over them."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.modeling.backbones.backbone import STRIDES, NetworkBackbone, Pyramid

WIDTH = 64
"""Channels of each level of the pyramid."""


class VitBackbone(NetworkBackbone):
    """A timm `VisionTransformer` whose tokens of several blocks are compared and made into a pyramid.

    The padded frame is resized to whole patches, so a token covers the same share of the frame everywhere.
    Blocks after the last wanted one are dropped.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        blocks: tuple[int, ...],
        frozen: bool,
        bf16: bool,
        padded_size: int,
    ) -> None:
        """Wrap a network.

        Args:
            network: made with `dynamic_img_size`; changed in place.
            mean, std, frozen: as `NetworkBackbone`.
            blocks: those whose tokens are taken, counted from 0, rising.
            bf16: multiply in bf16 where the processor has such instructions.
            padded_size: side P of the model's padded frame, for `map_shapes`.
        """
        timm_network: Any = network
        timm_network.prune_intermediate_layers(list(blocks), prune_norm=True)
        super().__init__(network, mean, std, frozen=frozen)
        self.blocks, self.bf16 = blocks, bf16
        self.patch: int = timm_network.patch_embed.patch_size[0]
        tokens: int = timm_network.embed_dim
        side = -(-padded_size // self.patch)
        self.map_shapes = ((tokens, side, side),) * len(blocks)
        self.matching_channels = (tokens * len(blocks),)
        self.channels = WIDTH, WIDTH, WIDTH, WIDTH
        self.norms = nn.ModuleList(nn.LayerNorm(tokens) for _ in blocks)
        self.mixes = nn.ModuleList(nn.Conv2d(tokens * len(blocks), WIDTH, 1) for _ in STRIDES)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Tokens of each block without the network's last norm: [B, D, P/patch, P/patch], rounded up."""
        x = self.frame(images)
        sides = [-(-side // self.patch) * self.patch for side in x.shape[-2:]]
        x = F.interpolate(x, sides, mode="bilinear", align_corners=False)
        network: Any = self.network
        with self.gradients(), self._precision(x.device):
            tokens: list[Tensor] = network.forward_intermediates(
                x, indices=list(self.blocks), norm=False, intermediates_only=True
            )
        return tuple(t.float() for t in tokens)

    def pyramid(self, maps: tuple[Tensor, ...]) -> Pyramid:
        """Each block's tokens normed, all blocks mixed for each level, and resized to its stride."""
        normed = zip(self.norms, maps, strict=True)
        joined = torch.cat([norm(m.permute(0, 2, 3, 1)) for norm, m in normed], dim=-1).permute(0, 3, 1, 2)
        # Less than a patch more than the frame, and no patch is wider than the coarsest stride.
        frame = [side * self.patch // STRIDES[-1] * STRIDES[-1] for side in joined.shape[-2:]]
        stride4, stride8, stride16, stride32 = (
            F.interpolate(mix(joined), [side // stride for side in frame], mode="bilinear")
            for mix, stride in zip(self.mixes, STRIDES, strict=True)
        )
        return stride4, stride8, stride16, stride32

    @torch.no_grad()
    def matching(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """One level: every block centred and scaled by itself, all side by side."""
        units = [F.normalize(_standardised(m.float()), dim=1) for m in maps]
        return (F.normalize(torch.cat(units, dim=1), dim=1),)

    def _precision(self, device: torch.device) -> AbstractContextManager[object]:
        """Bf16 if the model says so and the device has it; else as it is around (training may autocast)."""
        if self.bf16 and _multiplies_bf16(device):
            return torch.autocast(device.type, dtype=torch.bfloat16)
        return nullcontext()


def _standardised(tokens: Tensor) -> Tensor:
    """[B, D, h, w] with mean 0 and variance 1 over the channels of each cell."""
    cells = tokens.permute(0, 2, 3, 1)
    return F.layer_norm(cells, cells.shape[-1:]).permute(0, 3, 1, 2)


def _multiplies_bf16(device: torch.device) -> bool:
    """Return whether the device has bf16 instructions; emulated products are slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
