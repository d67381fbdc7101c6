"""The similarity prior: where a picture's frozen features resemble a prompt, before anything is learnt.

ImageNet features alone find many defects by nearest-neighbour matching, which a detector trained on little
data forgets. The prior compares the frozen backbone's features of a target with those inside and outside
of the marked regions (few-shot segmentation calls such a map a prior mask) and turns the comparison into one
mask per class with a small convolutional network that starts as the comparison itself. The paper has
no such part.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.modeling.backbone import STRIDES
from unispector.modeling.layers import MLP
from unispector.structures import PriorFeatures, PriorMaps, PriorPrompts, PromptMemory, VisualPrompts

LEVELS = 2  # strides 8 and 16, each with the next coarser one beside it
INSIDE, OUTSIDE = (64, 32), (256, 128)  # cells kept of a region and of its surroundings, per level
CALIBRATED = 32  # cells of an instance that stand for all when prompts are compared with one another
PATCH = 4  # side of the pixel patches that thin defects are seen by
CHANNELS = 7
NORMALISED = 5  # the channel that the untrained mask is read from
AT_ONCE = 2**24
"""Similarities that are held at a time (64 MiB)."""

TYPICAL = (0.2, -0.1)
"""Difference of the two similarities on marked and on other cells, for a prompt that stands alone."""
LEAST_GAP = 0.1
NEIGHBOURHOOD = 31  # pixels of the local mean that contrast is relative to


class SimilarityPrior(nn.Module):
    """Class masks from the similarity of frozen features to prompts."""

    def __init__(self, width: int) -> None:
        """Build the network of `width` channels at strides 4 to 64."""
        super().__init__()
        self.stems = nn.ModuleList(_convolution(CHANNELS, width) for _ in range(LEVELS))
        self.down = nn.ModuleList(_Block(width) for _ in range(2))
        self.up = nn.ModuleList(_Block(width) for _ in range(LEVELS + 1))
        self.detail = _convolution(PATCH**2, width)
        self.refine = _Block(width)
        self.mask = nn.Conv2d(width, 4, 3, padding=1)
        self.presence = MLP((3 * width, width, 1), zero=True)
        self.steepness = nn.Parameter(torch.tensor(4.0))
        self.offset = nn.Parameter(torch.tensor(0.85))
        nn.init.zeros_(self.mask.weight)
        nn.init.zeros_(self.mask.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def describe(self, images: Tensor, levels: Sequence[Tensor]) -> PriorFeatures:
        """Frozen features of a batch of images.

        Args:
            images: [B, 3, S, S] RGB in 0..255.
            levels: unit vectors of the padded frame's cells, as the backbone's `matching` gives them.
        """
        below, right = (-side % STRIDES[-1] for side in images.shape[-2:])
        grey = images.float().mean(1, keepdim=True) / 255
        grey = F.pad(grey, (0, right, 0, below), mode="replicate")
        contrast = grey - _local_mean(grey)
        contrast = contrast / (contrast.std(dim=(1, 2, 3), keepdim=True) + 0.01)
        return PriorFeatures(levels=tuple(levels), detail=F.pixel_unshuffle(contrast, PATCH))

    @torch.no_grad()
    def remember(self, features: PriorFeatures, prompts: VisualPrompts) -> PromptMemory:
        """Cells in and around each marked region.

        A region's surroundings are what lies outside of all regions of its image.

        Args:
            features: of the images that the regions lie in.
            prompts: N regions.
        """
        image, rois = prompts.image_index, prompts.roi_masks[:, None].float()
        marked = rois.new_zeros(len(features.detail), *rois.shape[1:]).index_add(0, image, rois)
        inside, outside = [], []
        for level, most_inside, most_outside in zip(features.levels, INSIDE, OUTSIDE, strict=True):
            cells = level.flatten(2).transpose(1, 2)[image]
            hw = (level.shape[-2], level.shape[-1])
            share = F.adaptive_avg_pool2d(rois, hw).flatten(1)
            taken = F.adaptive_max_pool2d(marked, hw).flatten(1)[image]
            around = _spread(cells, taken == 0, most_outside)
            # Half covered or more; of a region too small for that, the cell it covers most.
            covered = share >= share.amax(1, keepdim=True).clamp(max=0.5)
            inside.append(_spread(cells, _distinctive(cells, covered, around), most_inside))
            outside.append(around)
        return PromptMemory(inside=tuple(inside), outside=tuple(outside))

    @torch.no_grad()
    def calibrate(self, memory: PromptMemory, members: Tensor) -> Tensor:
        """What the difference of similarities is on marked and on other cells, each prompt left out once.

        Args:
            memory: of N prompts.
            members: [R, C, N] bool, which prompts show class c in row r.

        Returns:
            [R, C, 2, 2] mean difference on marked and on other cells, per level; `TYPICAL` where a class
            has one prompt only.
        """
        rows, classes, _ = members.shape
        out = members.new_tensor(TYPICAL, dtype=torch.float32).expand(rows, classes, LEVELS, 2).clone()
        for column in range(classes):
            chosen = members[:, column].any(0).nonzero().flatten()
            mine = members[:, column, chosen]
            many = mine.sum(1) > 1
            for number, (inside, outside) in enumerate(memory.levels):
                known = inside[chosen].float(), outside[chosen].float()
                for kind, cells in enumerate(known):
                    some = cells[:, :: max(cells.shape[1] // CALIBRATED, 1)]
                    out[many, column, number, kind] = _left_out_mean(some, *known, mine)[many].float()
        return out

    def forward(self, features: PriorFeatures, prompts: PriorPrompts) -> PriorMaps:
        """One mask and one presence per image and class.

        Args:
            features: of B images.
            prompts: R sets of C classes, R a multiple of B: those of the first image first.
        """
        rows, classes, _ = prompts.members.shape
        memory = prompts.memory.float()  # a bank keeps half precision
        channels = [
            compare(level, *known, prompts.members, prompts.typical[:, :, number])
            for number, (level, known) in enumerate(zip(features.levels, memory.levels, strict=True))
        ]
        skips = [F.relu(stem(c)) for stem, c in zip(self.stems, channels, strict=True)]
        x = skips[-1]
        for block in self.down:
            x = block(F.avg_pool2d(x, 2, ceil_mode=True))
            skips.append(x)
        pooled = [x.amax((2, 3)), x.mean((2, 3))]
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(skip + _resized(x, skip.shape[-2:]))
        pooled.append(x.amax((2, 3)))
        detail = self.detail(features.detail).repeat_interleave(rows // len(features.detail) * classes, dim=0)
        x = self.refine(F.relu(detail + _resized(x, detail.shape[-2:])))
        logits = F.pixel_shuffle(self.mask(x), 2)
        hw = logits.shape[-2:]
        alike = [_resized(c[:, NORMALISED, None], hw) for c in channels]
        logits = logits + self.steepness * (torch.stack(alike).mean(0) - self.offset)
        return PriorMaps(
            logits=logits.view(rows, classes, *hw),
            presence=self.presence(torch.cat(pooled, dim=1)).view(rows, classes),
        )


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each cell: no cell's norm depends on another image or cell."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _convolution(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), _ChannelNorm(after))


class _Block(nn.Module):
    """Two convolutions added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = _convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(x + self.second(F.relu(self.first(x))))
        return out


@torch.no_grad()
def compare(level: Tensor, inside: Tensor, outside: Tensor, members: Tensor, typical: Tensor) -> Tensor:
    """Compare every cell of B images with the prompts of every class.

    Args:
        level: [B, D, h, w] unit vectors.
        inside, outside: [N, m, D] unit vectors in and around the prompts.
        members: [R, C, N] bool, R a multiple of B.
        typical: [R, C, 2] difference of similarities on marked and on other cells.

    Returns:
        [R * C, 7, h, w]: nearest inside, nearest outside, their difference, similarity to the mean inside,
        nearest inside averaged over the prompts, the difference scaled so that other cells are 0 and
        marked ones 1, and how unlike the image's mean the cell is.
    """
    rows, classes, _ = members.shape
    cells = level.flatten(2).transpose(1, 2)
    image = torch.arange(len(cells), device=level.device).repeat_interleave(rows // len(cells))
    near_in, near_out = _nearest(cells, inside), _nearest(cells, outside)
    means = inside.mean(1)
    unlike = 1 - torch.einsum("btd,bd->bt", cells, F.normalize(cells.mean(1), dim=-1))[image]
    out = level.new_empty(rows, classes, CHANNELS, cells.shape[1])
    for column in range(classes):
        chosen, valid = _chosen(members[:, column])
        of_in, of_out = (near[image[:, None], chosen] for near in (near_in, near_out))
        difference = of_in.amax(1) - of_out.amax(1)
        share = valid.float() / valid.sum(1, keepdim=True)
        centre = F.normalize((share[..., None] * means[chosen]).sum(1), dim=-1)
        marked, other = typical[:, column].unsqueeze(-1).unbind(1)
        channels = (
            of_in.amax(1),
            of_out.amax(1),
            difference,
            torch.einsum("rtd,rd->rt", cells[image], centre),
            (share[..., None] * of_in).sum(1),
            ((difference - other) / (marked - other).clamp(min=LEAST_GAP)).clamp(-2, 3),
            unlike,
        )
        out[:, column] = torch.stack([c.float() for c in channels], dim=1)
    return out.view(rows * classes, CHANNELS, *level.shape[-2:])


def _chosen(members: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [R, n] of the members of each row [R, N], the first one repeated; and which are no repeats."""
    count = members.sum(1)
    order = members.int().argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
    valid = torch.arange(order.shape[1], device=members.device) < count[:, None]
    return torch.where(valid, order, order[:, :1]), valid


def _nearest(cells: Tensor, known: Tensor) -> Tensor:
    """[B, N, T] best cosine of cells [B, T, D] to each prompt's [N, m, D]."""
    at_once = max(AT_ONCE // (cells.shape[0] * cells.shape[1] * known.shape[1]), 1)
    return torch.cat(
        [
            (part.flatten(0, 1) @ cells.transpose(1, 2)).unflatten(1, part.shape[:2]).amax(2)
            for part in known.split(at_once)
        ],
        dim=1,
    )


def _left_out_mean(cells: Tensor, inside: Tensor, outside: Tensor, members: Tensor) -> Tensor:
    """[R] mean difference on the prompts' own cells [n, m, D], each compared with the row's other prompts."""
    count, per_prompt, _ = cells.shape
    others = ~torch.eye(count, dtype=torch.bool, device=cells.device)
    usable = (members[:, :, None] & members[:, None] & others)[:, :, None]  # [R, n, 1, n]
    near = [
        _nearest(cells.flatten(0, 1)[None], k)[0].T.view(count, per_prompt, count) for k in (inside, outside)
    ]
    best_in, best_out = (n[None].masked_fill(~usable, -torch.inf).amax(-1) for n in near)
    difference = torch.where(members[:, :, None], best_in - best_out, 0.0).nan_to_num(0.0)
    return difference.mean(2).sum(1) / members.sum(1)


def _local_mean(x: Tensor) -> Tensor:
    side, margin = NEIGHBOURHOOD, NEIGHBOURHOOD // 2
    rows = F.avg_pool2d(x, (1, side), 1, (0, margin), count_include_pad=False)
    return F.avg_pool2d(rows, (side, 1), 1, (margin, 0), count_include_pad=False)


def _resized(x: Tensor, hw: Sequence[int]) -> Tensor:
    return F.interpolate(x, tuple(hw), mode="bilinear", align_corners=False)


def _distinctive(cells: Tensor, covered: Tensor, around: Tensor) -> Tensor:
    """The half of each region's cells that is least like its surroundings: a box holds more than the defect.

    Args:
        cells: [N, T, D].
        covered: [N, T] bool, at least one a row.
        around: [N, m, D].
    """
    alike = (cells @ around.transpose(1, 2)).amax(2)
    rank = alike.masked_fill(~covered, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return covered & (2 * rank < covered.sum(1, keepdim=True))


def _spread(cells: Tensor, wanted: Tensor, count: int) -> Tensor:
    """`count` of the wanted cells of each row, evenly through the picture, repeated where there are fewer.

    Args:
        cells: [N, T, D].
        wanted: [N, T] bool.
        count: cells per row.

    Returns:
        [N, count, D]; zeros for a row without any.
    """
    order = wanted.int().argsort(dim=1, descending=True, stable=True)
    total = wanted.sum(1, keepdim=True)
    place = ((torch.arange(count, device=cells.device) + 0.5) / count * total).long()
    chosen = order.gather(1, place.clamp(max=order.shape[1] - 1))
    return cells.gather(1, chosen[..., None].expand(-1, -1, cells.shape[2])) * (total > 0)[..., None]
