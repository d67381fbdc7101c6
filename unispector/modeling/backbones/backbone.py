"""The interface of every backbone, and the one around a timm network.

What a frozen network puts out depends on the image alone, so `forward` ends there and can be cached; what
is trained on top of it lies in `pyramid`.
"""

import itertools
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)

Pyramid = tuple[Tensor, Tensor, Tensor, Tensor]
"""Maps of strides 4, 8, 16, 32 of the padded frame, [B, channels[i], P/stride, P/stride]."""


class Backbone(nn.Module):
    """From images to maps, and from maps to what the detector and its similarity prior read."""

    # (channels, height, width) of what `forward` returns for the model's own image size.
    map_shapes: tuple[tuple[int, int, int], ...]
    channels: tuple[int, int, int, int]  # of `pyramid`'s four maps
    matching_channels: tuple[int, ...]  # of each of `matching`'s levels
    frozen: bool  # no network in it is ever trained

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute what the networks put out.

        Args:
            images: [B, 3, S, S] RGB in 0..255, any dtype.

        Returns:
            Maps [B, *map_shapes[i]], the same for an image whatever else is trained if `frozen`.
        """

    @abstractmethod
    def pyramid(self, maps: tuple[Tensor, ...]) -> Pyramid:
        """Turn `forward`'s maps into those that the pixel decoder reads."""

    @abstractmethod
    def matching(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Turn `forward`'s maps into levels whose cells are compared: unit vectors, without gradient.

        Returns:
            Levels [B, matching_channels[i], h, w], the finest of each network first.
        """

    @property
    def detail_channels(self) -> int:
        """The number of channels of stride 4, the first ones, that the prior draws outlines from."""
        return self.channels[0]

    @abstractmethod
    def checkpoint_activations(self) -> None:
        """Let networks that train keep their stages' inputs only and compute the rest again for gradients."""


class NetworkBackbone(Backbone):
    """One timm network, and what each needs: normalising, padding, and keeping frozen weights as they are."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], *, frozen: bool
    ) -> None:
        """Wrap a network.

        Args:
            network: of timm.
            mean, std: RGB normalisation on the 0..255 scale.
            frozen: never train the weights and keep batch norms in evaluation mode.
        """
        super().__init__()
        self.network = network
        self.frozen = frozen
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.network.requires_grad_(False)
        self.register_load_state_dict_post_hook(_forget_cached)  # type: ignore[no-untyped-call]
        self.train(self.training)

    def train(self, mode: bool = True) -> "NetworkBackbone":
        """Switch modes; a frozen network stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.network.eval()
        return self

    def checkpoint_activations(self) -> None:
        """Compute stages again for gradients; a frozen network keeps no activations anyway."""
        if not self.frozen:
            network: Any = self.network
            network.set_grad_checkpointing()

    def frame(self, images: Tensor) -> Tensor:
        """Normalise images [B, 3, S, S] and pad them right and below with the mean: [B, 3, P, P]."""
        x = (images.float() - self.mean) / self.std
        return F.pad(x, (0, (-x.shape[-1]) % STRIDES[-1], 0, (-x.shape[-2]) % STRIDES[-1]))

    def gradients(self) -> torch.set_grad_enabled:
        """The context the network runs in: without gradients if it is frozen."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)


class StridedBackbone(NetworkBackbone):
    """A timm feature network that offers strides 4, 8, 16 and 32; they are the pyramid as they are."""

    def __init__(
        self,
        network: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        frozen: bool,
        padded_size: int,
    ) -> None:
        """Wrap a network.

        Args:
            network: timm model made with `features_only`; channels-last ones (Swin) leave their
                outputs without a norm, so each gets a LayerNorm of its own (MaskDINO).
            mean, std, frozen: as `NetworkBackbone`.
            padded_size: side P of the model's padded frame, for `map_shapes`.
        """
        # Depthwise convolutions run markedly faster channels-last on CPU and GPU alike.
        super().__init__(network.to(memory_format=torch.channels_last), mean, std, frozen=frozen)
        info: Any = network.feature_info
        reductions = info.reduction()
        self.levels = tuple(reductions.index(stride) for stride in STRIDES)
        stride4, stride8, stride16, stride32 = (int(info.channels()[level]) for level in self.levels)
        self.channels = stride4, stride8, stride16, stride32
        self.matching_channels = stride8 + stride16, stride16 + stride32
        sides = (padded_size // stride for stride in STRIDES)
        self.map_shapes = tuple((c, side, side) for c, side in zip(self.channels, sides, strict=True))
        self.channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        self.out_norms = nn.ModuleList(nn.LayerNorm(c) for c in self.channels) if self.channels_last else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps of strides 4, 8, 16, 32 of the padded frame, before a Swin's norms."""
        x = self.frame(images).contiguous(memory_format=torch.channels_last)
        with self.gradients():
            features = self.network(x)
        maps = (features[level] for level in self.levels)
        return tuple(m.permute(0, 3, 1, 2) if self.channels_last else m for m in maps)

    def pyramid(self, maps: tuple[Tensor, ...]) -> Pyramid:
        """The maps themselves; a Swin's normed."""
        if self.out_norms is not None:
            normed = zip(self.out_norms, maps, strict=True)
            maps = tuple(norm(m.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) for norm, m in normed)
        stride4, stride8, stride16, stride32 = maps
        return stride4, stride8, stride16, stride32

    @torch.no_grad()
    def matching(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Strides 8 and 16, each with the next coarser one beside it."""
        units = [F.normalize(m.float(), dim=1) for m in self.pyramid(maps)[1:]]
        return tuple(
            F.normalize(torch.cat((fine, _resized(coarse, fine)), dim=1), dim=1)
            for fine, coarse in itertools.pairwise(units)
        )


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def _forget_cached(module: nn.Module, incompatible: object) -> None:
    """Drop what networks derive from their weights in evaluation mode (TinyViT's attention biases)."""
    del incompatible
    module.train(module.training)
