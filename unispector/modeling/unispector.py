"""The detector as the paper's figure: encode images, encode prompts, detect."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from unispector.modeling.backbones.backbone import Backbone
from unispector.modeling.box_prompts import BoxPromptEncoder
from unispector.modeling.denoising import DenoisingQueries, attention_mask, denoising_queries
from unispector.modeling.heads import PredictionHeads
from unispector.modeling.pixel_decoder import PixelDecoder
from unispector.modeling.prior.evidence import token_evidence
from unispector.modeling.prior.similarity import Similarity
from unispector.modeling.prompt_encoder import ClassEmbeddings, PromptEncoder
from unispector.modeling.query_selection import LearnedQueries, PromptGuidedSelection
from unispector.modeling.transformer_decoder import TransformerDecoder
from unispector.ops.boxes import inverse_sigmoid
from unispector.ops.collectives import gather_rows, world
from unispector.prior_structures import PriorPrompts, PromptMemory
from unispector.structures import (
    ClassPrompts,
    EncodedPrompts,
    ImageFeatures,
    LayerPrediction,
    ModelOutput,
    Targets,
    VisualPrompts,
    padded_side,
)

PROMPT_REFERENCES = {"centre": (0.5, 0.5, 1.0, 1.0), "corner": (0.0, 0.0, 1.0, 1.0)}
"""Boxes (cxcywh) a prompt token starts from in the decoder: the whole frame, and that of DINOv's training."""


@dataclass(frozen=True)
class TrainingOutput:
    """One training forward pass."""

    output: ModelOutput  # predictions of all layers, denoising included
    embeddings: Tensor  # [N, D] of every prompt instance, those of all ranks
    level_hw: tuple[tuple[int, int], ...]  # (height, width) of the token levels, coarse to fine


class UniSpectorModel(nn.Module):
    """Visual-prompted open-set detector (UniSpector, CVPR 2026)."""

    def __init__(
        self,
        backbone: Backbone,
        pixel_decoder: PixelDecoder,
        prompt_encoder: PromptEncoder | BoxPromptEncoder | ClassEmbeddings,
        query_selection: PromptGuidedSelection | LearnedQueries,
        decoder: TransformerDecoder,
        heads: PredictionHeads,
        similarity: Similarity | None,
        *,
        prompt_visible: bool,
        denoising: int,
        box_noise: float,
        prompt_reference: Literal["centre", "corner"],
    ) -> None:
        """Wire ready modules of one width.

        Args:
            backbone, pixel_decoder, prompt_encoder, query_selection, decoder, heads: the parts.
            similarity: the similarity prior and what goes with it, or None to do without (the paper).
            prompt_visible: object queries attend to prompts in the decoder.
            denoising: denoising queries an image at most; 0 = none.
            box_noise: how far denoising boxes are jittered.
            prompt_reference: a key of `PROMPT_REFERENCES`.
        """
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.prompt_encoder = prompt_encoder
        self.query_selection = query_selection
        self.decoder = decoder
        self.heads = heads
        self.similarity = similarity
        self.width = decoder.width
        # Rows: content of denoising queries, what marks a token as a prompt.
        self.token_types = nn.Parameter(torch.randn(2, self.width))
        self.prompt_visible = prompt_visible
        self.denoising, self.box_noise = denoising, box_noise
        self.prompt_reference = PROMPT_REFERENCES[prompt_reference]

    def checkpoint_activations(self) -> None:
        """Let encoder layers and backbone stages keep their inputs only and be computed again for gradients.

        The gradients stay the same. Nothing changes for a frozen backbone. Batch norms of a backbone that
        trains (Swin has none) count each batch twice.
        """
        self.pixel_decoder.checkpointing = True
        self.backbone.checkpoint_activations()

    def encode_images(self, images: Tensor, maps: tuple[Tensor, ...] | None = None) -> ImageFeatures:
        """Encode images, independently of any prompt.

        Args:
            images: [B, 3, S, S] RGB in 0..255.
            maps: what the backbone puts out for them, where it is known already; None = compute it.
        """
        if maps is None:
            maps = self.backbone(images)
        pyramid = self.backbone.pyramid(maps)
        valid = images.shape[-1] / padded_side(images.shape[-1])
        features: ImageFeatures = replace(self.pixel_decoder(pyramid), valid=valid)
        if self.similarity is None:
            return features
        finest = pyramid[0][:, : self.backbone.detail_channels]
        compared = self.similarity.prior.describe(images, self.backbone.matching(maps), finest)
        return replace(features, prior=compared)

    def encode_prompts(self, features: ImageFeatures, prompts: VisualPrompts) -> EncodedPrompts:
        """Encode marked regions of encoded images, one row per region."""
        memory = None
        if self.similarity is not None and features.prior is not None:
            memory = self.similarity.prior.remember(features.prior, prompts)
        return EncodedPrompts(self.prompt_encoder(features, prompts), memory)

    def class_prompts(self, embeddings: Tensor, memory: PromptMemory | None, members: Tensor) -> ClassPrompts:
        """Make encoded regions the prompts of classes.

        Args:
            embeddings: [R, C, D] mean embedding of each class, in R alternative sets.
            memory: what the similarity prior keeps of N marked images; None without it.
            members: [R, C, N] bool, which images show class c in set r; each class has one at least.
        """
        if self.similarity is None or memory is None:
            return ClassPrompts(embeddings, None)
        typical = self.similarity.prior.calibrate(memory, members)
        return ClassPrompts(embeddings, PriorPrompts(memory, members, typical))

    def detect(self, features: ImageFeatures, prompts: ClassPrompts) -> ModelOutput:
        """Find every prompted class in encoded images.

        Args:
            features: of B images.
            prompts: K alternative sets of C class prompts. What depends on the image alone is computed
                once for all of them.

        Returns:
            The last layer's predictions: B * K rows, the K of the first image first.
        """
        return self._decode(features, prompts.repeat(len(features.memory)), None, last_only=True)

    def forward(
        self,
        images: Tensor,
        prompts: VisualPrompts,
        mixing: Tensor,
        targets: Sequence[Targets],
        maps: tuple[Tensor, ...] | None = None,
    ) -> TrainingOutput:
        """Train on images that prompt one another.

        Args:
            images: [B, 3, S, S] RGB in 0..255.
            prompts: the instances of the B images; with those of the other ranks they are N.
            mixing: [B, C, N], rows sum to 1: which instances make class c's prompt for image b.
            targets: ground truth of the B images, for the denoising queries.
            maps: what the backbone puts out for them, where it is known already.
        """
        features = self.encode_images(images, maps)
        encoded = self.encode_prompts(features, prompts)
        embeddings = gather_rows(encoded.embeddings)
        members, memory = mixing > 0, encoded.memory
        if memory is not None:
            memory, owner = _of_all_ranks(memory, len(images)).by_image(gather_rows(prompts.labels))
            members = group_members(members, owner, len(memory))
        noisy = denoising_queries(targets, limit=self.denoising, box_noise=self.box_noise)
        known = self.class_prompts(mixing.to(embeddings) @ embeddings, memory, members)
        output = self._decode(features, known, noisy, last_only=False)
        return TrainingOutput(output=output, embeddings=embeddings, level_hw=features.level_hw)

    def _decode(
        self, features: ImageFeatures, known: ClassPrompts, noisy: DenoisingQueries | None, *, last_only: bool
    ) -> ModelOutput:
        """Decode `[denoising | object queries | prompts]` and read the heads."""
        prompts = known.embeddings
        batch, classes, _ = prompts.shape
        prior = evidence = None
        if self.similarity is not None and features.prior is not None and known.prior is not None:
            prior = self.similarity.prior(features.prior, known.prior)
            evidence = token_evidence(prior, features.level_hw)
        selection = self.query_selection(features, prompts, evidence)
        whole_frame = inverse_sigmoid(prompts.new_tensor(self.prompt_reference)).expand(batch, classes, 4)
        contents = [selection.content, prompts + self.token_types[1]]
        references = [selection.reference, whole_frame]
        count = 0
        if noisy is not None:
            count = noisy.reference.shape[1]
            contents.insert(0, self.token_types[0].expand(batch, count, -1))
            references.insert(0, noisy.reference)
        queries = selection.content.shape[1]
        blocked = attention_mask(
            noisy, queries, classes, prompt_visible=self.prompt_visible, batch=batch, device=prompts.device
        )
        states = self.decoder(torch.cat(contents, dim=1), torch.cat(references, dim=1), blocked, features)
        end = count + queries
        layers = []
        for state in states[-1:] if last_only else states:
            tokens, shown = state.tokens[:, :end], state.tokens[:, end:]
            layer = self.heads(self.decoder.norm, tokens, shown, state.boxes[:, :end], features.mask_features)
            if prior is not None and self.similarity is not None:
                layer = self.similarity.evidence(layer, tokens, prior)
            layers.append(layer)
        decoded = tuple(_rows(layer, count, end) for layer in layers)
        candidates = None
        if (
            prior is not None
            and features.prior is not None
            and known.prior is not None
            and self.similarity is not None
        ):
            candidates = self.similarity.judge(features.prior, prior, decoded[-1], known.prior.sizes)
        return ModelOutput(
            layers=decoded,
            denoising=tuple(_rows(layer, 0, count) for layer in layers) if noisy is not None else (),
            selection=selection,
            prior=prior,
            candidates=candidates,
        )


def group_members(members: Tensor, owner: Tensor, groups: int) -> Tensor:
    """Find the groups [R, C, M] with a member: `members` [R, C, N] bool, `owner` [N] the group of each."""
    counts = members.new_zeros(*members.shape[:2], groups, dtype=torch.int64)
    return counts.index_add(2, owner, members.long()) > 0


def _of_all_ranks(memory: PromptMemory, images: int) -> PromptMemory:
    """The regions of all ranks' images, each rank having as many."""
    return PromptMemory(
        inside=tuple(map(gather_rows, memory.inside)),
        outside=tuple(map(gather_rows, memory.outside)),
        plainness=tuple(map(gather_rows, memory.plainness)),
        image=gather_rows(memory.image + world()[0] * images),
        sizes=gather_rows(memory.sizes),
    )


def _rows(prediction: LayerPrediction, start: int, end: int) -> LayerPrediction:
    return LayerPrediction(
        logits=prediction.logits[:, start:end],
        boxes=prediction.boxes[:, start:end],
        kernels=prediction.kernels[:, start:end],
        mask_features=prediction.mask_features,
    )
