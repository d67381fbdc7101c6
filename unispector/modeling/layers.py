"""Small blocks shared by encoder, decoder and prompt encoder."""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with an activation between them."""

    def __init__(
        self, widths: tuple[int, ...], *, activation: type[nn.Module] = nn.ReLU, zero: bool = False
    ) -> None:
        """Build the layers.

        Args:
            widths: input, hidden ... and output channels; at least two.
            activation: applied after every layer but the last.
            zero: start the last layer at zero, so that the block begins as the constant 0.
        """
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.activation = activation()
        if zero:
            last = self.layers[-1]
            nn.init.zeros_(last.weight)  # type: ignore[arg-type]
            nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., widths[0]] to [..., widths[-1]]."""
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        out: Tensor = last(x)
        return out


class FeedForward(nn.Module):
    """Residual two-layer block with a LayerNorm after it (post-norm)."""

    def __init__(self, width: int, hidden: int) -> None:
        """Build the block: `width` channels in and out, `hidden` between."""
        super().__init__()
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to [..., width]."""
        out: Tensor = self.norm(x + self.linear2(self.linear1(x).relu_()))
        return out


def xavier_uniform(module: nn.Module) -> None:
    """Xavier-uniform every matrix of `module`, as the DETR family initialises its transformers."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell: no cell's norm depends on another image or cell."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] to the same."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def convolution(before: int, after: int, *, kernel: int = 3) -> nn.Sequential:
    """A convolution of `before` to `after` channels that keeps the size, and a norm over its channels."""
    return nn.Sequential(nn.Conv2d(before, after, kernel, padding=kernel // 2), ChannelNorm(after))


def resized(x: Tensor, hw: Sequence[int]) -> Tensor:
    """[B, D, h, w] at another height and width, bilinear; averaged first where it shrinks to half or less."""
    if x.shape[-2] >= 2 * hw[0] and x.shape[-1] >= 2 * hw[1]:
        return F.adaptive_avg_pool2d(x, (hw[0], hw[1]))
    return F.interpolate(x, (hw[0], hw[1]), mode="bilinear", align_corners=False)
