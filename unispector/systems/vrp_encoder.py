"""The networks of VRP-SAM (arXiv 2402.17726) beside SAM: a frozen ResNet, and the encoder that is trained.

Layers, widths and order are those of the authors' repository (syp2ysy/VRP-SAM). A prompt marks the cells that
it covers by half; the repository takes the nearest pixel, which loses thin marks. The ResNet is one of timm:
the repository's has a deeper stem, and weights that come pickled.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unispector.data.transforms import ImageArray, resize_image
from unispector.errors import CheckpointError, in_one_line
from unispector.ops.rle import BoolArray
from unispector.systems.hub import check_finite, checkpoint_folder
from unispector.systems.sam import covered, marked_cells, normalised

STRIDE = 8  # pixels of the ResNet's image along a side of a cell
QUERIES, HEADS = 50, 4
EMPHASIS = 10.0  # times that a mask counts among the encoder's inputs


class FrozenResNet(nn.Module):
    """Features of ImageNet, all at stride 8."""

    def __init__(self, checkpoint: str) -> None:
        """Load a ResNet of timm, whose configuration says which.

        Args:
            checkpoint: folder, or name in the local cache of the hub.

        Raises:
            CheckpointError: there is none, it lacks tensors, or is of another network.
        """
        super().__init__()
        import timm
        from timm.models.resnet import ResNet

        folder = checkpoint_folder(checkpoint)
        try:
            network: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, output_stride=8)
        except Exception as error:  # a damaged file makes timm stumble in ways it does not name
            raise CheckpointError(
                f"{folder}: no network that timm reads ({in_one_line(error)}); name another"
            ) from error
        if not isinstance(network, ResNet):
            raise CheckpointError(f"{folder}: no ResNet; VRP-SAM's is resnet50")
        check_finite(network, folder)
        parts: Any = network
        self.stem = nn.Sequential(parts.conv1, parts.bn1, parts.act1, parts.maxpool)
        self.lower = nn.Sequential(parts.layer1, parts.layer2)
        self.middle, self.upper = parts.layer3, parts.layer4
        self.width = sum(int(level["num_chs"]) for level in parts.feature_info[2:4])
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features of layers 2 and 3 together [B, C, r, r], and of layer 3, of images [B, 3, s, s]."""
        lower = self.lower(self.stem(images))
        middle = self.middle(lower)
        return torch.cat([lower, middle], dim=1), middle

    @torch.no_grad()
    def above(self, middle: Tensor) -> Tensor:
        """[B, c, r, r] features of layer 4, of those of layer 3."""
        return self.upper(middle)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Marked:
    """A marked image."""

    features: Tensor  # [1, C, r, r] of layers 2 and 3
    cells: Tensor  # [1, 1, r, r] 1 where it is marked, else 0
    vectors: Tensor  # [k, c] unit vectors of the marked cells, of layer 4


@dataclass(frozen=True)
class Eye:
    """The ResNet and the square of pixels that it sees of an image."""

    resnet: FrozenResNet
    side: int  # pixels, a multiple of `STRIDE`

    def see(self, pixels: ImageArray) -> tuple[Tensor, Tensor]:
        """Features of an image of layers 2 and 3, [1, C, r, r], and of layer 4, [1, c, r, r]."""
        features, middle = self.resnet(self._input(pixels))
        return features, self.resnet.above(middle)

    def read(self, pixels: ImageArray, mask: BoolArray) -> Marked:
        """What is marked by a mask [h, w] of the image; layer 4 sees of it what is marked of layer 3."""
        features, middle = self.resnet(self._input(pixels))
        share = covered(mask, (self.side, self.side), self.side, self.side // STRIDE)
        cells = marked_cells(share).to(features.device)
        vectors = self.resnet.above(middle * cells)[0][:, cells].T
        return Marked(features, cells[None, None].float(), functional.normalize(vectors, dim=1))

    def _input(self, pixels: ImageArray) -> Tensor:
        device = next(self.resnet.parameters()).device
        return normalised(resize_image(pixels, self.side)).to(device)


class VrpEncoder(nn.Module):
    """The encoder of visual reference prompts (section 3.2), the only trained part."""

    def __init__(self, features: int, width: int) -> None:
        """Take `features` channels of a ResNet, give tokens of `width` channels."""
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(features, width, 1, bias=False), nn.ReLU(), nn.Dropout2d(0.5))
        self.merge = nn.Sequential(nn.Conv2d(2 * width + 1, width, 1, bias=False), nn.ReLU())
        self.queries = nn.Embedding(QUERIES, width)
        # To the marked image, to the queries themselves, to the other image, to themselves.
        self.attentions = nn.ModuleList(
            nn.MultiheadAttention(width, HEADS, batch_first=True) for _ in range(4)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        for weight in self.attentions.parameters():
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)

    def read(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of B marked images.

        Args:
            features: [B, C, r, r] of layers 2 and 3.
            mask: [B, 1, r, r] 0 or 1.

        Returns:
            Mean feature of what is marked, [B, width, 1, 1], and all cells, [B, r * r, width].
        """
        seen = self.reduce(features)
        # The repository's guard against an empty mask.
        mean = (seen * mask).sum((2, 3), keepdim=True) / (mask.sum((2, 3), keepdim=True) + 0.0005)
        return mean, self._merged(seen, mean, mask)

    def forward(self, features: Tensor, pseudo: Tensor, mean: Tensor, memory: Tensor) -> Tensor:
        """[B, QUERIES, width] tokens of B images, each with a marked one.

        Args:
            features: [B, C, r, r] of layers 2 and 3.
            pseudo: [B, 1, r, r] how much each cell is like what is marked, in [0, 1].
            mean: as `read` returns it.
            memory: as `read` returns it.
        """
        memories = memory, self._merged(self.reduce(features), mean, pseudo)
        places = sine_places(features.shape[-1], mean.shape[1]).to(features)
        tokens = self.queries.weight.expand(len(features), -1, -1)
        for step, (attention, norm) in enumerate(zip(self.attentions, self.norms, strict=True)):
            value = tokens if step % 2 else memories[step // 2]
            key = tokens if step % 2 else value + places
            tokens = norm(tokens + attention(tokens, key, value, need_weights=False)[0])
        return tokens

    def _merged(self, seen: Tensor, mean: Tensor, mask: Tensor) -> Tensor:
        """[B, r * r, width] cells that know what is marked."""
        merged = self.merge(torch.cat([seen, mean.expand_as(seen), EMPHASIS * mask], dim=1))
        return merged.flatten(2).mT  # type: ignore[no-any-return]


def pseudo_mask(above: Tensor, marked: Tensor) -> Tensor:
    """[1, 1, r, r] best cosine of each cell to what is marked, of layer 4; in [0, 1], as after a ReLU.

    Args:
        above: [1, c, r, r] of an image.
        marked: [k, c] unit vectors of a marked image.
    """
    cells = functional.normalize(above[0].flatten(1), dim=0)
    return (marked @ cells).amax(0).view(1, 1, *above.shape[2:])


def sine_places(side: int, width: int) -> Tensor:
    """[side * side, width] DETR's sine embedding of rows (first half) and columns, scaled to 2 pi."""
    half = width // 2
    place = torch.arange(1, side + 1) / (side + 1e-6) * 2 * torch.pi
    rates = 10000 ** (2 * torch.arange(half).div(2, rounding_mode="floor") / half)
    angles = place[:, None] / rates
    waves = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2).flatten(1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
