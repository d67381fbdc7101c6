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
    """Ground truth of one image.

    Attributes:
        labels: [K] int64, data-set class index (or prompt column, once mapped).
        boxes: [K, 4] float32 cxcywh in [0, 1] of the padded frame.
        masks: [K, P, P] bool in the padded frame; never empty (a mask that vanishes in resizing
            falls back to its box, then to one pixel).
    """

    labels: Tensor
    boxes: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class VisualPrompts(Movable):
    """Marked regions of a batch of images.

    Attributes:
        roi_masks: [N, P, P] bool, the marked region (instance mask or filled box); never empty.
        image_index: [N] int64, which image of the batch the region lies in.
        labels: [N] int64 class index of each region.
        spectra: [N, J] float32 radial spectrum of each region (Algorithm 1), L2-normalised.
    """

    roi_masks: Tensor
    image_index: Tensor
    labels: Tensor
    spectra: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Sample(Movable):
    """One image as the data set hands it out.

    Attributes:
        image: [3, S, S] uint8 RGB, resized (aspect not kept) and augmented.
        targets: ground truth, K instances.
        roi_masks: [K, P, P] bool, prompt region of each instance.
        spectra: [K, J] float32, radial spectrum of each prompt region's box crop.
        image_id: id in the annotation file.
        original_hw: height and width of the file in pixels.
    """

    image: Tensor
    targets: Targets
    roi_masks: Tensor
    spectra: Tensor
    image_id: int
    original_hw: tuple[int, int]


@dataclass(frozen=True)
class Batch(Movable):
    """A collated batch.

    Attributes:
        images: [B, 3, S, S] uint8 RGB.
        targets: B ground truths.
        prompts: every instance of the batch as a prompt, in image order.
        image_ids: B ids.
        original_hw: B (height, width) of the files.
        maps: float16 [B, channels, height, width] each, what the backbone makes of the images; None = not
            known yet.
    """

    images: Tensor
    targets: tuple[Targets, ...]
    prompts: VisualPrompts
    image_ids: tuple[int, ...]
    original_hw: tuple[tuple[int, int], ...]
    maps: tuple[Tensor, ...] | None = None


@dataclass(frozen=True)
class ImageFeatures(Movable):
    """Encoder output of B images; independent of prompts, so it can be reused.

    Attributes:
        memory: [B, T, D] tokens, levels concatenated coarse to fine (strides 64, 32, 16, 8).
        level_hw: (height, width) of the four levels in that order.
        mask_features: [B, D, P/4, P/4].
        valid: share of the padded frame's side that holds image, S / P.
        prior: what the similarity prior compares prompts with; None without it.
    """

    memory: Tensor
    level_hw: tuple[tuple[int, int], ...]
    mask_features: Tensor
    valid: float = 1.0
    prior: PriorFeatures | None = None


@dataclass(frozen=True)
class EncodedPrompts(Movable):
    """N encoded prompt regions.

    Attributes:
        embeddings: [N, D] of SSPE.
        memory: what the similarity prior keeps of them; None without it.
    """

    embeddings: Tensor
    memory: PromptMemory | None

    def rows(self, index: Tensor) -> Self:
        """Some of the regions, by number [n] int64."""
        memory = self.memory.rows(index) if self.memory is not None else None
        return type(self)(self.embeddings[index], memory)


@dataclass(frozen=True)
class ClassPrompts(Movable):
    """R alternative sets of prompts of C classes.

    Attributes:
        embeddings: [R, C, D] mean embedding of each class.
        prior: the same for the similarity prior; None without it.
    """

    embeddings: Tensor
    prior: PriorPrompts | None

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
    """The object queries a decoder starts from.

    Attributes:
        content: [B, Q, D].
        reference: [B, Q, 4] box logits (inverse sigmoid of cxcywh).
        relevance: [B, T, C] logits that token t shows class c (scaled cosines), or None with
            learned queries.
        indices: [B, Q] selected tokens, or None with learned queries.
    """

    content: Tensor
    reference: Tensor
    relevance: Tensor | None
    indices: Tensor | None


@dataclass(frozen=True)
class LayerPrediction(Movable):
    """Predictions of one decoder layer.

    Attributes:
        logits: [B, Q, C] similarity of query and class prompt, before the sigmoid.
        boxes: [B, Q, 4] cxcywh in [0, 1] of the padded frame.
        kernels: [B, Q, D]; a mask logit is the inner product of a query's kernel and a cell's mask features.
        mask_features: [B, D, P/4, P/4], or of fewer images, each with equally many rows of `kernels`.
    """

    logits: Tensor
    boxes: Tensor
    kernels: Tensor
    mask_features: Tensor

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
    """Everything the criterion or the post-processing needs.

    Attributes:
        layers: predictions per decoder layer (only the last one outside of training).
        denoising: the denoising queries' predictions per layer; empty when there are none.
        selection: the queries the decoder started from.
        prior: class masks of the similarity prior; None without it.
        candidates: what the candidate head makes of the prior's parts and the queries; None without a prior.
    """

    layers: tuple[LayerPrediction, ...]
    denoising: tuple[LayerPrediction, ...]
    selection: QuerySelection
    prior: PriorMaps | None = None
    candidates: JudgedCandidates | None = None


@dataclass(frozen=True)
class Detections:
    """Detections in one image, in its original pixels, best first.

    Attributes:
        boxes_xyxy: [n, 4] float32 pixels, clipped to the image.
        scores: [n] float32 in [0, 1], class score times mask quality.
        labels: [n] int64 index into `class_names`.
        masks_rle: n COCO RLEs (`{"size": [h, w], "counts": str}`).
        class_names: names of the prompted classes.
        image_hw: height and width of the image in pixels.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor
    masks_rle: tuple[dict[str, object], ...]
    class_names: tuple[str, ...]
    image_hw: tuple[int, int]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score: float) -> "Detections":
        """Only the detections whose score is at least `score`."""
        keep = (self.scores >= score).nonzero().flatten()
        return Detections(
            boxes_xyxy=self.boxes_xyxy[keep],
            scores=self.scores[keep],
            labels=self.labels[keep],
            masks_rle=tuple(self.masks_rle[i] for i in keep.tolist()),
            class_names=self.class_names,
            image_hw=self.image_hw,
        )
