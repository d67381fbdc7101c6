"""The detector as the paper's figure: encode images, encode prompts, detect."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unispector.modeling.backbone import Backbone
from unispector.modeling.denoising import DenoisingQueries, attention_mask, denoising_queries
from unispector.modeling.heads import PredictionHeads
from unispector.modeling.pixel_decoder import PixelDecoder
from unispector.modeling.prompt_encoder import PromptEncoder
from unispector.modeling.query_selection import LearnedQueries, PromptGuidedSelection
from unispector.modeling.transformer_decoder import TransformerDecoder
from unispector.ops.boxes import inverse_sigmoid
from unispector.structures import ImageFeatures, LayerPrediction, ModelOutput, Targets, VisualPrompts

WHOLE_FRAME = (0.5, 0.5, 1.0, 1.0)  # cxcywh a prompt token starts from in the decoder


@dataclass(frozen=True)
class TrainingOutput:
    """One training forward pass.

    Attributes:
        output: predictions of all layers, denoising included.
        embeddings: [N, D] of every prompt instance.
        level_hw: (height, width) of the token levels, coarse to fine.
    """

    output: ModelOutput
    embeddings: Tensor
    level_hw: tuple[tuple[int, int], ...]


class UniSpectorModel(nn.Module):
    """Visual-prompted open-set detector (UniSpector, CVPR 2026)."""

    def __init__(
        self,
        backbone: Backbone,
        pixel_decoder: PixelDecoder,
        prompt_encoder: PromptEncoder,
        query_selection: PromptGuidedSelection | LearnedQueries,
        decoder: TransformerDecoder,
        heads: PredictionHeads,
        *,
        image_size: int,
        prompt_visible: bool,
        denoising: int,
        box_noise: float,
    ) -> None:
        """Wire ready modules of one width.

        Args:
            backbone, pixel_decoder, prompt_encoder, query_selection, decoder, heads: the parts.
            image_size: side S of the input images in pixels.
            prompt_visible: object queries attend to prompts in the decoder.
            denoising: denoising queries an image at most; 0 = none.
            box_noise: how far denoising boxes are jittered.
        """
        super().__init__()
        self.backbone = backbone
        self.pixel_decoder = pixel_decoder
        self.prompt_encoder = prompt_encoder
        self.query_selection = query_selection
        self.decoder = decoder
        self.heads = heads
        self.width = decoder.width
        # Rows: content of denoising queries, what marks a token as a prompt.
        self.token_types = nn.Parameter(torch.randn(2, self.width))
        self.image_size = image_size
        self.padded_size = -(-image_size // 32) * 32
        self.prompt_visible = prompt_visible
        self.denoising, self.box_noise = denoising, box_noise

    def encode_images(self, images: Tensor) -> ImageFeatures:
        """Encode images, independently of any prompt.

        Args:
            images: [B, 3, S, S] RGB in 0..255.
        """
        features: ImageFeatures = self.pixel_decoder(self.backbone(images))
        return features

    def encode_prompts(self, features: ImageFeatures, prompts: VisualPrompts) -> Tensor:
        """Embed marked regions of encoded images: [N, D], one row per region."""
        embeddings: Tensor = self.prompt_encoder(features, prompts)
        return embeddings

    def detect(self, features: ImageFeatures, prompts: Tensor) -> ModelOutput:
        """Find every prompted class in encoded images.

        Args:
            features: of B images.
            prompts: [K, C, D]: K alternative sets of C class prompts (mean embedding of each class). What
                depends on the image alone is computed once for all of them.

        Returns:
            The last layer's predictions: B * K rows, the K of the first image first.
        """
        prompts = prompts.to(features.memory).repeat(len(features.memory), 1, 1)
        return self._decode(features, prompts, None, last_only=True)

    def forward(
        self, images: Tensor, prompts: VisualPrompts, mixing: Tensor, targets: Sequence[Targets]
    ) -> TrainingOutput:
        """Train on images that prompt one another.

        Args:
            images: [B, 3, S, S] RGB in 0..255.
            prompts: N instances of the batch.
            mixing: [B, C, N], rows sum to 1: which instances make class c's prompt for image b.
            targets: ground truth of the B images, for the denoising queries.
        """
        features = self.encode_images(images)
        embeddings = self.encode_prompts(features, prompts)
        noisy = denoising_queries(targets, limit=self.denoising, box_noise=self.box_noise)
        output = self._decode(features, mixing.to(embeddings) @ embeddings, noisy, last_only=False)
        return TrainingOutput(output=output, embeddings=embeddings, level_hw=features.level_hw)

    def _decode(
        self, features: ImageFeatures, prompts: Tensor, noisy: DenoisingQueries | None, *, last_only: bool
    ) -> ModelOutput:
        """Decode `[denoising | object queries | prompts]` and read the heads."""
        batch, classes, _ = prompts.shape
        selection = self.query_selection(features, prompts, self.image_size / self.padded_size)
        whole_frame = inverse_sigmoid(prompts.new_tensor(WHOLE_FRAME)).expand(batch, classes, 4)
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
        layers = [
            self.heads(
                self.decoder.norm,
                state.tokens[:, :end],
                state.tokens[:, end:],
                state.boxes[:, :end],
                features.mask_features,
            )
            for state in (states[-1:] if last_only else states)
        ]
        return ModelOutput(
            layers=tuple(_rows(layer, count, end) for layer in layers),
            denoising=tuple(_rows(layer, 0, count) for layer in layers) if noisy is not None else (),
            selection=selection,
        )


def _rows(prediction: LayerPrediction, start: int, end: int) -> LayerPrediction:
    return LayerPrediction(
        logits=prediction.logits[:, start:end],
        boxes=prediction.boxes[:, start:end],
        masks=prediction.masks[:, start:end],
    )
