"""EfficientNet-Lite0 as a pyramid of features, under timm's names of tensors.

timm has this network, too; importing timm takes two seconds of processor time, longer than a detection.
Source: Tan and Le, EfficientNet (ICML 2019), and its Lite variants: ReLU6, no squeeze-and-excitation.
"""

import math

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NAME = "tf_efficientnet_lite0"

# Of each stage: kernel, stride, expansion, output channels, blocks.
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
_LEVELS = {1: 4, 2: 8, 4: 16, 6: 32}  # stages whose outputs are features, and their strides
_STEM = 32


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow does: an odd cell of padding lies right and below."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, c, h, w] into [B, d, ceil(h / stride), ceil(w / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        covered = ((math.ceil(side / stride) - 1) * stride + kernel for side in x.shape[2:])
        down, right = (max(need - side, 0) for need, side in zip(covered, x.shape[2:], strict=True))
        x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return F.conv2d(x, self.weight, None, stride, 0, 1, self.groups)


def _conv(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride > 1:
        conv: nn.Conv2d = SameConv(channels, out, kernel, stride, groups=groups, bias=False)
    else:
        conv = nn.Conv2d(channels, out, kernel, padding=kernel // 2, groups=groups, bias=False)
    nn.init.normal_(conv.weight, std=math.sqrt(2 / (kernel * kernel * out // groups)))
    return conv


class Norm(nn.BatchNorm2d):
    """A batch norm, with ReLU6 behind it unless `linear`."""

    def __init__(self, channels: int, *, linear: bool = False) -> None:
        super().__init__(channels, eps=1e-3)  # as the published weights were trained
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, c, h, w]."""
        x = super().forward(x)
        return x if self.linear else F.relu6(x, inplace=True)


class FirstBlock(nn.Module):
    """A depthwise and a pointwise convolution."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__()
        self.conv_dw, self.bn1 = _conv(channels, channels, kernel, groups=channels), Norm(channels)
        self.conv_pw, self.bn2 = _conv(channels, out), Norm(out, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] to [B, out, h, w]."""
        x = self.bn1(self.conv_dw(x))
        out: Tensor = self.bn2(self.conv_pw(x))
        return out


class Block(nn.Module):
    """An inverted residual: expand, convolve each channel, project; added to its input where shapes allow."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.conv_pw, self.bn1 = _conv(channels, inner), Norm(inner)
        self.conv_dw, self.bn2 = _conv(inner, inner, kernel, stride, groups=inner), Norm(inner)
        self.conv_pwl, self.bn3 = _conv(inner, out), Norm(out, linear=True)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] to [B, out, h / stride, w / stride]."""
        y: Tensor = self.bn1(self.conv_pw(x))
        y = self.bn2(self.conv_dw(y))
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.residual else y


class FeatureInfo:
    """Strides and channels of a network's features, asked for as timm's."""

    @staticmethod
    def reduction() -> list[int]:
        """Strides, in the order of the features."""
        return list(_LEVELS.values())

    @staticmethod
    def channels() -> list[int]:
        """Channels, in the order of the features."""
        return [_STAGES[stage][3] for stage in _LEVELS]


class EfficientNetLite0(nn.Module):
    """Features of strides 4, 8, 16 and 32."""

    def __init__(self) -> None:
        """Random weights."""
        super().__init__()
        self.feature_info, self._checkpointing = FeatureInfo(), False
        self.conv_stem, self.bn1 = _conv(3, _STEM, 3, 2), Norm(_STEM)
        channels, stages = _STEM, []
        for kernel, stride, expansion, out, count in _STAGES:
            if expansion == 1:
                blocks: list[nn.Module] = [FirstBlock(channels, out, kernel)]
            else:
                blocks = [Block(channels, out, kernel, stride, expansion)]
                blocks += [Block(out, out, kernel, 1, expansion) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = out
        self.blocks = nn.Sequential(*stages)

    def set_grad_checkpointing(self) -> None:
        """Keep the inputs of stages only, and compute the rest again for gradients."""
        self._checkpointing = True

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images [B, 3, h, w] to features [B, c, h / stride, w / stride]."""
        x = self.bn1(self.conv_stem(x))
        features = []
        for number, stage in enumerate(self.blocks):
            again = self._checkpointing and self.training and x.requires_grad
            x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
            if number in _LEVELS:
                features.append(x)
        return features
