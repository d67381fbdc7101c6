"""The similarity prior: where an image's frozen features resemble a prompt's.

ImageNet features alone find many defects by nearest-neighbour matching, which a detector trained on little
data forgets. The prior compares the frozen features of a target with those inside and outside of the
marked regions: by fixed measures of similarity, and by attention heads that learn which directions of the
features count (few-shot segmentation compares so, e.g. DCAMA, Shi et al., ECCV 2022). A small U-Net turns
the comparison into one mask per class; untrained, the mask is the comparison. The paper has no such part.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unispector.modeling.layers import MLP, convolution, resized
from unispector.modeling.prior.comparison import CALIBRATED_MEASURE, LevelComparison, nearest
from unispector.prior_structures import PriorFeatures, PriorMaps, PriorPrompts, PromptMemory
from unispector.structures import VisualPrompts

INSIDE, OUTSIDE = 32, 64  # cells kept of an image's marks and of their surroundings, per level
FINEST = 3 / 2  # factor on both for the finest level, whose cells are many
CALIBRATED = 16  # cells of an image that stand for all when prompts are compared with one another
PATCH = 4  # side of the pixel patches that thin defects are seen by
SHARED = 32  # channels that the U-Net reads of the features themselves
TYPICAL = (0.2, -0.1)
"""Difference of the two similarities on marked and on other cells, for a prompt that stands alone."""
NEIGHBOURHOOD = 31  # pixels of the local mean that contrast is relative to


class SimilarityPrior(nn.Module):
    """Class masks from the similarity of frozen features to prompts."""

    def __init__(self, channels: Sequence[int], finest: int, width: int) -> None:
        """Build the network.

        Args:
            channels: of each level of unit vectors that is compared.
            finest: of the backbone's stride 4 that outlines are drawn from.
            width: of the U-Net at strides 8 to 64; two thirds of it at stride 4.
        """
        super().__init__()
        self.fine_width = 2 * width // 3
        comparisons = [LevelComparison(c) for c in channels]
        self.comparisons = nn.ModuleList(comparisons)
        self.shared = nn.ModuleList(nn.Conv2d(c, SHARED, 1) for c in channels)
        given = sum(comparison.channels for comparison in comparisons) + SHARED
        self.stems = nn.ModuleList(convolution(given, width) for _ in range(2))
        self.down = nn.ModuleList(_Block(width) for _ in range(2))
        self.up = nn.ModuleList(_Block(width) for _ in range(3))
        self.detail = convolution(PATCH**2 + finest, self.fine_width)
        self.lateral = nn.Conv2d(width, self.fine_width, 1)
        self.refine = _Block(self.fine_width)
        self.mask = nn.Conv2d(self.fine_width, 4, 3, padding=1)
        self.presence = MLP((3 * width, width, 1), zero=True)
        self.steepness = nn.Parameter(torch.tensor(4.0))
        self.offset = nn.Parameter(torch.tensor(0.85))
        nn.init.zeros_(self.mask.weight)
        nn.init.zeros_(self.mask.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def describe(self, images: Tensor, levels: tuple[Tensor, ...], finest: Tensor) -> PriorFeatures:
        """Return the features of a batch of images that are compared, and those its outlines are drawn from.

        Args:
            images: [B, 3, S, S] RGB in 0..255.
            levels: unit vectors [B, D_l, h_l, w_l], the finest level first.
            finest: [B, D, P/4, P/4] the backbone's stride 4.
        """
        side = PATCH * finest.shape[-1]
        grey = images.float().mean(1, keepdim=True) / 255
        grey = F.pad(grey, (0, side - grey.shape[-1], 0, side - grey.shape[-2]), mode="replicate")
        contrast = grey - _local_mean(grey)
        contrast = contrast / (contrast.std(dim=(1, 2, 3), keepdim=True) + 0.01)
        looks = 3 * F.normalize(finest.float(), dim=1)
        return PriorFeatures(levels, torch.cat((F.pixel_unshuffle(contrast, PATCH), looks), dim=1))

    @torch.no_grad()
    def remember(self, features: PriorFeatures, prompts: VisualPrompts) -> PromptMemory:
        """Cells in and around each marked region.

        A region's surroundings are what lies outside of all regions of its image. A region that fills its
        bounding box is taken for a box, which holds more than the defect: the half of its cells that is
        least like the surroundings is kept. Of a mask all cells are.

        Args:
            features: of the images that the regions lie in.
            prompts: N regions.
        """
        image, rois = prompts.image_index, prompts.roi_masks[:, None].float()
        marked = rois.new_zeros(len(features.detail), *rois.shape[1:]).index_add(0, image, rois)
        boxes = _fills_its_box(prompts.roi_masks)
        inside, outside, plainness = [], [], []
        for number, level in enumerate(features.levels):
            factor = FINEST if number == 0 else 1
            cells = level.flatten(2).transpose(1, 2)[image]
            hw = (level.shape[-2], level.shape[-1])
            share = F.adaptive_avg_pool2d(rois, hw).flatten(1)
            taken = F.adaptive_max_pool2d(marked, hw).flatten(1)[image]
            around = _spread(taken == 0, int(factor * OUTSIDE)).of(cells)
            # Half covered or more; of a region too small for that, the cell it covers most.
            covered = share >= share.amax(1, keepdim=True).clamp(max=0.5)
            alike = (cells @ around.transpose(1, 2)).amax(2)
            kept = torch.where(boxes[:, None], _lower_half(alike, covered), covered)
            chosen = _spread(kept, int(factor * INSIDE))
            inside.append(chosen.of(cells))
            plainness.append(chosen.of(alike[..., None])[..., 0])
            outside.append(around)
        return PromptMemory(
            inside=tuple(inside),
            outside=tuple(outside),
            plainness=tuple(plainness),
            image=image,
            sizes=_log_sizes(prompts.roi_masks),
        )

    @torch.no_grad()
    def calibrate(self, memory: PromptMemory, members: Tensor) -> Tensor:
        """Measure the difference of similarities on marked and on other cells, each image left out once.

        Args:
            memory: of N marked images.
            members: [R, C, N] bool, which of them show class c in row r.

        Returns:
            [R, C, L, 2] mean difference on marked and on other cells, per level; `TYPICAL` where a class
            has one image only.
        """
        rows, classes, _ = members.shape
        levels = memory.levels
        out = members.new_tensor(TYPICAL, dtype=torch.float32).expand(rows, classes, len(levels), 2).clone()
        for column in range(classes):
            chosen = members[:, column].any(0).nonzero().flatten()
            mine = members[:, column, chosen]
            many = mine.sum(1) > 1
            for number, (inside, outside) in enumerate(levels):
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
        images = len(features.detail)
        memory = prompts.memory.float()  # a bank keeps half precision
        compared = [
            comparison(level, memory, number, prompts.members, prompts.typical[:, :, number])
            for number, (comparison, level) in enumerate(zip(self.comparisons, features.levels, strict=True))
        ]
        fine_hw = features.detail.shape[-2:]
        hw = (fine_hw[0] // 2, fine_hw[1] // 2)
        shared = F.relu(
            torch.stack(
                [resized(own(level), hw) for own, level in zip(self.shared, features.levels, strict=True)]
            ).sum(0)
        )
        everything = _repeated(shared, rows // images * classes)
        x = torch.cat([everything, *(resized(c, hw) for c in compared)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        skips = [F.relu(self.stems[0](x)), F.relu(self.stems[1](F.avg_pool2d(x, 2, ceil_mode=True)))]
        x = skips[-1]
        for block in self.down:
            x = block(F.avg_pool2d(x, 2, ceil_mode=True))
            skips.append(x)
        pooled = [x.amax((2, 3)), x.mean((2, 3))]
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = block(skip + resized(x, skip.shape[-2:]))
        pooled.append(x.amax((2, 3)))
        detail = self.detail(features.detail.contiguous(memory_format=torch.channels_last))
        fine = _repeated(detail, rows // images * classes) + resized(self.lateral(x), fine_hw)
        fine = self.refine(F.relu(fine))
        logits = F.pixel_shuffle(self.mask(fine).float(), 2)
        size = (logits.shape[-2], logits.shape[-1])
        alike = torch.stack([resized(c[:, CALIBRATED_MEASURE, None], size) for c in compared]).mean(0)
        logits = logits + self.steepness * (alike - self.offset)
        return PriorMaps(
            logits=logits.view(rows, classes, *size),
            presence=self.presence(torch.cat(pooled, dim=1)).view(rows, classes).float(),
            likeness=alike.view(rows, classes, *size),
            coarse=x.unflatten(0, (rows, classes)),
            fine=fine.unflatten(0, (rows, classes)),
            shared=shared,
        )


class _Block(nn.Module):
    """Two convolutions added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = convolution(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.relu(x + self.second(F.relu(self.first(x))))
        return out


def _left_out_mean(cells: Tensor, inside: Tensor, outside: Tensor, members: Tensor) -> Tensor:
    """[R] mean difference on the images' own cells [n, m, D], each compared with the row's other images."""
    count, per_image, _ = cells.shape
    others = ~torch.eye(count, dtype=torch.bool, device=cells.device)
    usable = (members[:, :, None] & members[:, None] & others)[:, :, None]  # [R, n, 1, n]
    near = [
        nearest(cells.flatten(0, 1)[None], k)[0].T.view(count, per_image, count) for k in (inside, outside)
    ]
    best_in, best_out = (n[None].masked_fill(~usable, -torch.inf).amax(-1) for n in near)
    difference = torch.where(members[:, :, None], best_in - best_out, 0.0).nan_to_num(0.0)
    return difference.mean(2).sum(1) / members.sum(1)


def _local_mean(x: Tensor) -> Tensor:
    side, margin = NEIGHBOURHOOD, NEIGHBOURHOOD // 2
    rows = F.avg_pool2d(x, (1, side), 1, (0, margin), count_include_pad=False)
    return F.avg_pool2d(rows, (side, 1), 1, (margin, 0), count_include_pad=False)


def _repeated(x: Tensor, times: int) -> Tensor:
    return x.repeat_interleave(times, dim=0)


def _extents(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Height and width [N] of the bounding boxes of masks [N, P, P], in cells."""
    sides = []
    for across in (2, 1):
        hit = masks.any(across)
        place = torch.arange(hit.shape[1], device=masks.device)
        last = torch.where(hit, place, -1).amax(1)
        first = torch.where(hit, place, hit.shape[1]).amin(1)
        sides.append(last + 1 - first)
    return sides[0], sides[1]


def _fills_its_box(masks: Tensor) -> Tensor:
    """Find the masks of [N, P, P] that are filled rectangles: [N] bool."""
    high, wide = _extents(masks)
    return masks.sum((1, 2)) == high * wide


def _log_sizes(masks: Tensor) -> Tensor:
    """Log of width and height of the bounding boxes of masks [N, P, P], in shares of the frame: [N, 2]."""
    high, wide = _extents(masks)
    return (torch.stack((wide, high), dim=1).float() / masks.shape[-1]).log()


def _lower_half(values: Tensor, wanted: Tensor) -> Tensor:
    """Of the wanted entries of each row [N, T] the half, rounded up, of least value."""
    rank = values.masked_fill(~wanted, torch.inf).argsort(dim=1, stable=True).argsort(dim=1)
    return wanted & (2 * rank < wanted.sum(1, keepdim=True))


class _Spread:
    """Entries chosen from each row."""

    def __init__(self, index: Tensor, any_wanted: Tensor) -> None:
        self._index, self._any = index, any_wanted

    def of(self, values: Tensor) -> Tensor:
        """Those of [N, T, D]: [N, count, D]; zeros in a row without any."""
        taken = values.gather(1, self._index[..., None].expand(-1, -1, values.shape[2]))
        return taken * self._any[..., None]


def _spread(wanted: Tensor, count: int) -> _Spread:
    """`count` of the wanted entries of each row [N, T], evenly through it, repeated where there are fewer."""
    order = wanted.int().argsort(dim=1, descending=True, stable=True)
    total = wanted.sum(1, keepdim=True)
    place = ((torch.arange(count, device=wanted.device) + 0.5) / count * total).long()
    return _Spread(order.gather(1, place.clamp(max=order.shape[1] - 1)), total > 0)
