"""Swin blocks in the order of the published detectors: pad, roll, attend, roll back, crop."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from timm.models.swin_transformer import SwinTransformerBlock, window_partition, window_reverse
from torch import Tensor, nn


class PadFirstBlock(SwinTransformerBlock):
    """A block that pads its map to whole windows before it rolls it.

    timm rolls first, which puts the padding between the two edges that meet; DINOv's and MaskDINO's
    weights expect it behind them. Where a map is a multiple of the window the two are equal.
    """

    _mask: Tensor | None = None
    _mask_of: tuple[object, ...] = ()  # the size it was made for

    def _attn(self, x: Tensor) -> Tensor:
        """Windowed attention of a map [B, h, w, C]."""
        height, width = x.shape[1:3]
        window: tuple[int, int] = self.window_size
        x = F.pad(x, (0, 0, 0, -width % window[1], 0, -height % window[0]))
        padded = x.shape[1:3]
        down, right = self.shift_size
        x = torch.roll(x, (-down, -right), (1, 2))
        windows = window_partition(x, window).flatten(1, 2)
        attended = self.attn(windows, mask=self._shift_mask(x))
        x = torch.roll(window_reverse(attended, window, *padded), (down, right), (1, 2))
        return x[:, :height, :width].contiguous()

    def _shift_mask(self, x: Tensor) -> Tensor | None:
        """Return the mask between the parts of a rolled window, [windows, cells, cells] of 0 and -100."""
        size = (*x.shape[1:3], x.dtype, x.device)
        if size != self._mask_of:
            self._mask, self._mask_of = self.get_attn_mask(x), size
        return self._mask


def pad_first(network: nn.Module) -> None:
    """Turn every Swin block (version 1) of a timm network into a `PadFirstBlock`, weights and all."""
    for module in network.modules():
        if type(module) is SwinTransformerBlock:
            block: Any = module
            block.__class__ = PadFirstBlock
