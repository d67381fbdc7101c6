"""The nouns of the similarity prior and of its candidates; the letters are those of `structures.py`.

M further are an image's marks of one class, L levels of features, G cells along a side of a window.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import pad

from unispector.movable import Movable, changed


@dataclass(frozen=True)
class PriorFeatures(Movable):
    """Features that the similarity prior compares, of B images; independent of prompts."""

    levels: tuple[Tensor, ...]  # unit vectors that are compared, the finest first: [B, D_l, h_l, w_l]
    # [B, E, P/4, P/4] local contrast of the grey image's pixels, in patches of 4 x 4, and the backbone's
    # finest features.
    detail: Tensor


@dataclass(frozen=True)
class PromptMemory(Movable):
    """Frozen features in and around N marked regions, or the marks of one class on N images."""

    inside: tuple[Tensor, ...]  # unit vectors of each level: [N, m_l, D_l]
    outside: tuple[Tensor, ...]  # the same of the surroundings: [N, n_l, D_l]; zeros where there are none
    plainness: tuple[Tensor, ...]  # [N, m_l] best cosine of an inside cell to the surroundings
    image: Tensor  # [N] int64 number of the image that each lies in
    # [N, 2] log of width and height of the bounding box, in shares of the frame; of several marks their mean.
    sizes: Tensor

    @property
    def levels(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """(inside, outside) of every level."""
        return tuple(zip(self.inside, self.outside, strict=True))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All it holds."""
        return (*self.inside, *self.outside, *self.plainness, self.image, self.sizes)

    def __len__(self) -> int:
        return len(self.image)

    def half(self) -> Self:
        """Copy with features in float16."""
        return self._features(Tensor.half)

    def float(self) -> Self:
        """Copy with features in float32."""
        return self._features(Tensor.float)

    def rows(self, index: Tensor) -> Self:
        """Some of the N, by number [n] int64."""
        moved: Self = changed(self, lambda tensor: tensor[index])
        return moved

    def by_image(self, labels: Tensor) -> tuple[Self, Tensor]:
        """Put the marks of one class on one image together.

        Of their inside cells as many are kept as one mark has, evenly of all.

        Args:
            labels: [N] int64 class of each mark.

        Returns:
            The memory of M (image, class) pairs, in rising order of image and class, and the pair [N] of
            each mark.
        """
        pairs, owner, counts = torch.stack((self.image, labels), dim=1).unique(
            dim=0, return_inverse=True, return_counts=True
        )
        order, starts = owner.argsort(stable=True), counts.cumsum(0) - counts
        first = order[starts]

        def together(side: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            out = []
            for cells in side:
                place = torch.arange(cells.shape[1], device=cells.device)
                flat = ((place + 0.5) * counts[:, None]).long()  # of all cells of the pair's marks
                mark = order[starts[:, None] + flat // cells.shape[1]]
                out.append(cells[mark, flat % cells.shape[1]])
            return tuple(out)

        sizes = self.sizes.new_zeros(len(pairs), 2).index_add(0, owner, self.sizes) / counts[:, None]
        outside = tuple(cells[first] for cells in self.outside)
        return type(self)(together(self.inside), outside, together(self.plainness), pairs[:, 0], sizes), owner

    def _features(self, change: Callable[[Tensor], Tensor]) -> Self:
        inside, outside, plainness = (
            tuple(map(change, side)) for side in (self.inside, self.outside, self.plainness)
        )
        return type(self)(inside, outside, plainness, self.image, self.sizes)

    @classmethod
    def joined(cls, parts: Sequence["PromptMemory"]) -> Self:
        """All of several memories (one at least), in their order; their images are different ones."""
        inside, outside, plainness = (
            tuple(torch.cat(level) for level in zip(*(getattr(part, side) for part in parts), strict=True))
            for side in ("inside", "outside", "plainness")
        )
        images, start = [], 0
        for part in parts:
            images.append(part.image + start)
            start += int(part.image.max()) + 1 if len(part) else 0
        sizes = torch.cat([part.sizes for part in parts])
        return cls(inside, outside, plainness, torch.cat(images), sizes)


@dataclass(frozen=True)
class PriorPrompts(Movable):
    """R alternative sets of prompts of C classes, as the similarity prior sees them."""

    memory: PromptMemory  # of N marked images
    members: Tensor  # [R, C, N] bool, which images show class c in set r; each class has one at least
    typical: Tensor  # [R, C, L, 2] what marked and other cells score, see `SimilarityPrior.calibrate`

    @property
    def sizes(self) -> Tensor:
        """[R, C, 2] mean log of width and height of a class's marks."""
        share = self.members.float() / self.members.sum(2, keepdim=True)
        return share @ self.memory.sizes

    @classmethod
    def joined(cls, parts: Sequence["PriorPrompts"]) -> Self:
        """The sets of all parts (one at least, of the same classes), in their order."""
        memory = PromptMemory.joined([part.memory for part in parts])
        ends = torch.tensor([len(part.memory) for part in parts]).cumsum(0).tolist()
        members = [
            pad(part.members, (end - len(part.memory), len(memory) - end))
            for part, end in zip(parts, ends, strict=True)
        ]
        return cls(memory, torch.cat(members), torch.cat([part.typical for part in parts]))


@dataclass(frozen=True)
class PriorMaps(Movable):
    """Maps of the similarity prior of C classes in R images."""

    logits: Tensor  # [R, C, P/2, P/2] that a pixel shows the class
    presence: Tensor  # [R, C] logits that the image shows the class anywhere
    likeness: Tensor  # [R, C, P/2, P/2] the untrained comparison: about 0 on other pixels, 1 on marked ones
    coarse: Tensor  # [R, C, W, P/8, P/8] what the prior's network knows of the match
    fine: Tensor  # [R, C, F, P/4, P/4] the same, finer
    shared: Tensor  # [B, A, P/8, P/8] what it reads of the B images themselves; R is a multiple of B


@dataclass(frozen=True)
class Candidates(Movable):
    """n possible detections in R images, each of one of C classes."""

    map: Tensor  # [n] int64 in 0 .. R * C - 1: image and class, classes of the first image first.
    canvas: Tensor  # [n] int64 which map of logits it was cut from
    boxes: Tensor  # [n, 4] cxcywh in [0, 1] of the padded frame
    cuts: Tensor  # [n] logit at which the canvas was cut
    own: Tensor  # [n, G, G] share of each cell of its window that it covers
    facts: Tensor  # [n, F] what is known of it before the head looks

    def __len__(self) -> int:
        return len(self.map)

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> Self:
        """All of several lists (one at least), in their order."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class JudgedCandidates(Movable):
    """n candidates as the candidate head sees them."""

    candidates: Candidates  # as they were cut
    canvases: Tensor  # [K, P/2, P/2] logits that they were cut from
    scores: Tensor  # [n, 2] logits that box and mask reach an IoU of one half with an instance
    boxes: Tensor  # [n, 4] cxcywh, moved to where the instance ends
    base: Tensor  # [n, G, G] logits of the mask as it was cut, in the candidate's window
    change: Tensor  # [n, G, G] what to add to them

    @property
    def masks(self) -> Tensor:
        """[n, G, G] mask logits in the candidates' windows."""
        return self.base + self.change

    def __len__(self) -> int:
        return len(self.candidates)
