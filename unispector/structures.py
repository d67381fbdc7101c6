"""The nouns of the detector: typed, frozen, shapes stated once.

Letters: B images, K instances of one image, N instances of a batch, C prompted classes, Q queries,
T vision tokens, D channels, J radial bins, G denoising queries, S network input side,
P padded side (S rounded up to a multiple of 32).
Boxes are normalised `cxcywh` in the padded frame unless a name says otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Movable:
    """A dataclass of tensors (and nested ones) that moves between devices as a whole."""

    def to(self, device: torch.device | str) -> Self:
        """Copy with every tensor on `device`; nothing waits for a tensor that comes from pinned memory."""
        moved: Self = _changed(self, lambda tensor: tensor.to(device, non_blocking=tensor.is_pinned()))
        return moved

    def pin_memory(self) -> Self:
        """Copy in pinned memory, from which a GPU fetches by itself; a data loader calls this."""
        pinned: Self = _changed(self, Tensor.pin_memory)
        return pinned


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """`value` with every tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Movable):
        return type(value)(**{f.name: _changed(getattr(value, f.name), change) for f in fields(value)})
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor | Movable):
        return tuple(_changed(item, change) for item in value)
    return value


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
class PriorFeatures(Movable):
    """What the similarity prior knows of B images; independent of prompts.

    Attributes:
        levels: unit vectors that are compared, the finest first: [B, D_l, h_l, w_l].
        detail: [B, E, P/4, P/4] local contrast of the grey image's pixels, in patches of 4 x 4, and the
            backbone's finest features.
    """

    levels: tuple[Tensor, ...]
    detail: Tensor


@dataclass(frozen=True)
class ImageFeatures(Movable):
    """What the image encoder knows of B images; independent of prompts, so it can be reused.

    Attributes:
        memory: [B, T, D] tokens, levels concatenated coarse to fine (strides 64, 32, 16, 8).
        level_hw: (height, width) of the four levels in that order.
        mask_features: [B, D, P/4, P/4].
        prior: what the similarity prior compares prompts with; None without it.
    """

    memory: Tensor
    level_hw: tuple[tuple[int, int], ...]
    mask_features: Tensor
    prior: PriorFeatures | None = None


@dataclass(frozen=True)
class PromptMemory(Movable):
    """Frozen features in and around N marked regions, or the marks of one class on N images.

    Attributes:
        inside: unit vectors of each level: [N, m_l, D_l].
        outside: the same of the surroundings: [N, n_l, D_l]; zeros where there are none.
        plainness: [N, m_l] best cosine of an inside cell to the surroundings.
        image: [N] int64 number of the image that each lies in.
        sizes: [N, 2] log of width and height of the bounding box, in shares of the frame; of several
            marks their mean.
    """

    inside: tuple[Tensor, ...]
    outside: tuple[Tensor, ...]
    plainness: tuple[Tensor, ...]
    image: Tensor
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
        moved: Self = _changed(self, lambda tensor: tensor[index])
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
class PriorPrompts(Movable):
    """R alternative sets of prompts of C classes, as the similarity prior sees them.

    Attributes:
        memory: of N marked images.
        members: [R, C, N] bool, which images show class c in set r; each class has one at least.
        typical: [R, C, L, 2] what marked and other cells score, see `SimilarityPrior.calibrate`.
    """

    memory: PromptMemory
    members: Tensor
    typical: Tensor

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
class PriorMaps(Movable):
    """What the similarity prior sees of C classes in R images.

    Attributes:
        logits: [R, C, P/2, P/2] that a pixel shows the class.
        presence: [R, C] logits that the image shows the class anywhere.
        likeness: [R, C, P/2, P/2] the untrained comparison: about 0 on other pixels, 1 on marked ones.
        coarse: [R, C, W, P/8, P/8] and
        fine: [R, C, F, P/4, P/4] what the prior's network knows of the match.
        shared: [B, A, P/8, P/8] what it reads of the B images themselves; R is a multiple of B.
    """

    logits: Tensor
    presence: Tensor
    likeness: Tensor
    coarse: Tensor
    fine: Tensor
    shared: Tensor


@dataclass(frozen=True)
class Candidates(Movable):
    """n possible detections in R images, each of one of C classes.

    Attributes:
        map: [n] int64 in 0 .. R * C - 1: image and class, classes of the first image first.
        canvas: [n] int64 which map of logits it was cut from.
        boxes: [n, 4] cxcywh in [0, 1] of the padded frame.
        cuts: [n] logit at which the canvas was cut.
        own: [n, G, G] share of each cell of its window that it covers.
        facts: [n, F] what is known of it before the head looks.
    """

    map: Tensor
    canvas: Tensor
    boxes: Tensor
    cuts: Tensor
    own: Tensor
    facts: Tensor

    def __len__(self) -> int:
        return len(self.map)

    @classmethod
    def joined(cls, parts: Sequence["Candidates"]) -> Self:
        """All of several lists (one at least), in their order."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class JudgedCandidates(Movable):
    """n candidates as the candidate head sees them.

    Attributes:
        candidates: as they were cut.
        canvases: [K, P/2, P/2] logits that they were cut from.
        scores: [n, 2] logits that box and mask reach an IoU of one half with an instance.
        boxes: [n, 4] cxcywh, moved to where the instance ends.
        base: [n, G, G] logits of the mask as it was cut, in the candidate's window.
        change: [n, G, G] what to add to them.
    """

    candidates: Candidates
    canvases: Tensor
    scores: Tensor
    boxes: Tensor
    base: Tensor
    change: Tensor

    @property
    def masks(self) -> Tensor:
        """[n, G, G] mask logits in the candidates' windows."""
        return self.base + self.change

    def __len__(self) -> int:
        return len(self.candidates)


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
