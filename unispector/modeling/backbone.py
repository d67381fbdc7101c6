"""Multi-scale image features from any timm network that offers strides 4, 8, 16 and 32."""

from typing import Any

import torch
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class Backbone(nn.Module):
    """A timm feature network that normalises and pads its input itself."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], *, frozen: bool
    ) -> None:
        """Wrap a network.

        Args:
            network: timm model made with `features_only`; channels-last ones (Swin) leave their
                outputs without a norm, so each gets a LayerNorm of its own (MaskDINO).
            mean, std: RGB normalisation on the 0..255 scale.
            frozen: never train the weights and keep batch norms in evaluation mode.
        """
        super().__init__()
        # Depthwise convolutions run markedly faster channels-last on CPU and GPU alike.
        self.network = network.to(memory_format=torch.channels_last)
        info: Any = network.feature_info
        reductions = info.reduction()
        self.levels = tuple(reductions.index(stride) for stride in STRIDES)
        self.channels = tuple(info.channels()[level] for level in self.levels)
        self.frozen = frozen
        self.channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        self.out_norms = nn.ModuleList(nn.LayerNorm(c) for c in self.channels) if self.channels_last else None
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.network.requires_grad_(False)
        self.register_load_state_dict_post_hook(_forget_cached)  # type: ignore[no-untyped-call]
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Switch modes; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute features.

        Args:
            images: [B, 3, S, S] RGB in 0..255, any dtype.

        Returns:
            Maps of strides 4, 8, 16, 32 of the padded frame: [B, channels[i], P/stride, P/stride].
        """
        x = (images.float() - self.mean) / self.std
        pad_h, pad_w = (-x.shape[-2]) % 32, (-x.shape[-1]) % 32
        x = nn.functional.pad(x, (0, pad_w, 0, pad_h)).contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.network(x)
        maps = [features[level] for level in self.levels]
        if self.out_norms is not None:
            maps = [norm(m).permute(0, 3, 1, 2) for norm, m in zip(self.out_norms, maps, strict=True)]
        return maps[0], maps[1], maps[2], maps[3]


def _forget_cached(module: nn.Module, incompatible: object) -> None:
    """Drop what networks derive from their weights in evaluation mode (TinyViT's attention biases)."""
    del incompatible
    module.train(module.training)
