"""The nouns of the detector: typed, frozen, shapes stated once.

Letters: B images, K instances of one image, N instances of a batch, C prompted classes, Q queries,
T vision tokens, D channels, J radial bins, G denoising queries, S network input side,
P padded side (S rounded up to a multiple of 32).
Boxes are normalised `cxcywh` in the padded frame unless a name says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from unispector.movable import Movable
from unispector.prior_structures import (
    JudgedCandidates,
    PriorFeatures,
    PriorMaps,
    PriorPrompts,
    PromptMemory,
)


def padded_side(image_size: int) -> int:
    """Side P of the padded frame of an input of side S."""
    return -(-image_size // 32) * 32


@dataclass(frozen=True)
class Targets(Movable):
    """Ground truth of one image."""

    labels: Tensor  # [K] int64, data-set class index (or prompt column, once mapped)
    boxes: Tensor  # [K, 4] float32 cxcywh in [0, 1] of the padded frame
    # [K, P, P] bool in the padded frame; never empty (a mask that vanishes in resizing falls back to its box,
    # then to one pixel).
    masks: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class VisualPrompts(Movable):
    """Marked regions of a batch of images."""

    roi_masks: Tensor  # [N, P, P] bool, the marked region (instance mask or filled box); never empty
    image_index: Tensor  # [N] int64, which image of the batch the region lies in
    labels: Tensor  # [N] int64 class index of each region
    spectra: Tensor  # [N, J] float32 radial spectrum of each region (Algorithm 1), L2-normalised

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Sample(Movable):
    """One image as the data set hands it out."""

    image: Tensor  # [3, S, S] uint8 RGB, resized (aspect not kept) and augmented
    targets: Targets  # ground truth, K instances
    roi_masks: Tensor  # [K, P, P] bool, prompt region of each instance
    spectra: Tensor  # [K, J] float32, radial spectrum of each prompt region's box crop
    image_id: int  # id in the annotation file
    original_hw: tuple[int, int]  # height and width of the file in pixels


@dataclass(frozen=True)
class Batch(Movable):
    """A collated batch."""

    images: Tensor  # [B, 3, S, S] uint8 RGB
    targets: tuple[Targets, ...]  # B ground truths
    prompts: VisualPrompts  # every instance of the batch as a prompt, in image order
    image_ids: tuple[int, ...]  # B ids
    original_hw: tuple[tuple[int, int], ...]  # B (height, width) of the files
    # Float16 [B, channels, height, width] each, what the backbone makes of the images; None = not known yet.
    maps: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class ImageFeatures(Movable):
    """Encoder output of B images; independent of prompts, so it can be reused."""

    memory: Tensor  # [B, T, D] tokens, levels concatenated coarse to fine (strides 64, 32, 16, 8)
    level_hw: tuple[tuple[int, int], ...]  # (height, width) of the four levels in that order
    mask_features: Tensor  # [B, D, P/4, P/4]
    valid: float = 1.0  # share of the padded frame's side that holds image, S / P
    prior: PriorFeatures | None = None  # what the similarity prior compares prompts with; None without it


@dataclass(frozen=True)
class EncodedPrompts(Movable):
    """N encoded prompt regions."""

    embeddings: Tensor  # [N, D] of SSPE
    memory: PromptMemory | None  # what the similarity prior keeps of them; None without it

    def rows(self, index: Tensor) -> Self:
        """Some of the regions, by number [n] int64."""
        memory = self.memory.rows(index) if self.memory is not None else None
        return type(self)(self.embeddings[index], memory)


@dataclass(frozen=True)
class ClassPrompts(Movable):
    """R alternative sets of prompts of C classes."""

    embeddings: Tensor  # [R, C, D] mean embedding of each class
    prior: PriorPrompts | None  # the same for the similarity prior; None without it

    @classmethod
    def joined(cls, parts: Sequence["ClassPrompts"]) -> Self:
        """The sets of all parts (one at least, of the same classes and model), in their order."""
        priors = [part.prior for part in parts if part.prior is not None]
        embeddings = torch.cat([part.embeddings for part in parts])
        return cls(embeddings, PriorPrompts.joined(priors) if priors else None)

    def repeat(self, times: int) -> "ClassPrompts":
        """All sets `times` times, one after the other."""
        prior = self.prior
        if prior is not None:
            members, typical = prior.members.repeat(times, 1, 1), prior.typical.repeat(times, 1, 1, 1)
            prior = PriorPrompts(prior.memory, members, typical)
        return ClassPrompts(self.embeddings.repeat(times, 1, 1), prior)


@dataclass(frozen=True)
class QuerySelection(Movable):
    """The object queries a decoder starts from."""

    content: Tensor  # [B, Q, D]
    reference: Tensor  # [B, Q, 4] box logits (inverse sigmoid of cxcywh)
    # [B, T, C] logits that token t shows class c (scaled cosines), or None with learned queries.
    relevance: Tensor | None
    indices: Tensor | None  # [B, Q] selected tokens, or None with learned queries


@dataclass(frozen=True)
class LayerPrediction(Movable):
    """Predictions of one decoder layer."""

    logits: Tensor  # [B, Q, C] similarity of query and class prompt, before the sigmoid
    boxes: Tensor  # [B, Q, 4] cxcywh in [0, 1] of the padded frame
    # [B, Q, D]; a mask logit is the inner product of a query's kernel and a cell's mask features.
    kernels: Tensor
    mask_features: Tensor  # [B, D, P/4, P/4], or of fewer images, each with equally many rows of `kernels`

    @property
    def masks(self) -> Tensor:
        """[B, Q, P/4, P/4] float32 logits, computed at every access."""
        features = self.mask_features.float()
        kernels = self.kernels.float().reshape(len(features), -1, features.shape[1])
        return (kernels @ features.flatten(2)).view(*self.kernels.shape[:2], *features.shape[2:])

    def masks_of(self, queries: Tensor) -> Tensor:
        """Masks of a few queries at a fraction of the cost of all.

        Args:
            queries: [M] int64 index into the B * Q queries, those of an image after the former image's.

        Returns:
            [M, P/4, P/4] float32 logits.
        """
        features = self.mask_features.float()
        image = queries // (self.kernels.shape[:2].numel() // len(features))
        counts = torch.bincount(image, minlength=len(features))
        place = torch.arange(len(queries), device=queries.device) - (counts.cumsum(0) - counts)[image]
        # A product for every image, with as many rows as the image that needs most.
        kernels = self.kernels.new_zeros(len(features), int(counts.max()), features.shape[1]).float()
        chosen = self.kernels.flatten(0, 1).index_select(0, queries).float()
        maps: Tensor = kernels.index_put((image, place), chosen) @ features.flatten(2)
        return maps[image, place].view(-1, *features.shape[2:])


@dataclass(frozen=True)
class ModelOutput(Movable):
    """Everything the criterion or the post-processing needs."""

    # Predictions per decoder layer (only the last one outside of training).
    layers: tuple[LayerPrediction, ...]
    # The denoising queries' predictions per layer; empty when there are none.
    denoising: tuple[LayerPrediction, ...]
    selection: QuerySelection  # the queries the decoder started from
    prior: PriorMaps | None = None  # class masks of the similarity prior; None without it
    # What the candidate head makes of the prior's parts and the queries; None without a prior.
    candidates: JudgedCandidates | None = None
