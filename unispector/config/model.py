"""Parameters of the detector."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from unispector.config.section import Section


class BackboneConfig(Section):
    """One network that images are read with.

    Attributes:
        name: any timm model that supports `features_only` with strides 4, 8, 16 and 32, or a plain vision
            transformer (`vit_small_patch14_dinov2`).
        weights: `packaged` = those of an installed package (EfficientNet-Lite0, 1 and 2, the first comes
            with the project; `vit_small_patch14_dinov2`, the extra `accurate`), `hub` = timm's pretrained
            ones (needs a network), `none` = random, else the path of a safetensors file, such as
            `unispector weights convert` writes, or of a published checkpoint that it reads
            (`mobile_sam.pt` for `tiny_vit_5m_224`).
        frozen: keep the weights as they are (batch norms use their stored statistics).
        drop_path: stochastic depth rate while training.
        blocks: of a vision transformer alone: blocks whose tokens are used, counted from 0, rising.
        precision: of a vision transformer alone: `bf16` = bf16 products where the processor has them, so
            that features differ in the third digit from machine to machine; `fp32` = the same everywhere.
    """

    name: str = "tf_efficientnet_lite0"
    weights: str = "packaged"
    frozen: bool = True
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    blocks: tuple[int, ...] = (5, 8)
    precision: Literal["fp32", "bf16"] = "fp32"

    @field_validator("blocks")
    @classmethod
    def _check_blocks(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if not blocks or blocks[0] < 0 or list(blocks) != sorted(set(blocks)):
            raise ValueError(f"{list(blocks)} must be block numbers from 0 on that rise, such as [5, 8]")
        return blocks


UNION_TAGS = ("<one>", "<several>")
"""What pydantic puts into the place of an error inside of `model.backbone`; people need not read it."""


def _backbone_kind(value: Any) -> str:
    return UNION_TAGS[isinstance(value, list | tuple)]


class SpectralConfig(Section):
    """The spectral branch of SSPE (paper appendix 2, Algorithm 1).

    Attributes:
        enabled: off = spatial prompt only (ablation).
        bins: number of radial frequency bins J.
        empty: a bin no coefficient falls into is `zero` (literal) or `interp`olated.
        log: compress the bins by log before the encoder.
        min_side: a smaller crop is grown to this many pixels.
    """

    enabled: bool = True
    bins: int = Field(default=256, ge=2)
    empty: Literal["zero", "interp"] = "interp"
    log: bool = True
    min_side: int = Field(default=16, ge=1)


class QuerySelectionConfig(Section):
    """Prompt-guided query selection (PQS).

    Attributes:
        enabled: off = learned queries (ablation, DINOv).
        temperature: Gumbel-Softmax temperature tau.
        noise: factor on the Gumbel noise while training.
        scale: factor on the cosine before the softmax.
    """

    enabled: bool = True
    temperature: float = Field(default=1.0, gt=0)
    noise: float = Field(default=0.2, ge=0)
    scale: float = Field(default=10.0, gt=0)


class SimilarityPriorConfig(Section):
    """The similarity prior: nearest-neighbour matching of frozen features, which the paper does not have.

    Attributes:
        enabled: off = the paper's detector. The prior is meant for a frozen backbone: of one that trains it
            takes the features as they are at each step, and none of its gradients.
        width: channels of its network; those of the candidate head follow from it.
        grown: candidates of a class in an image, at most, that are also tried with what resembles them.
    """

    enabled: bool = True
    width: int = Field(default=48, ge=6, multiple_of=6)
    grown: int = Field(default=0, ge=0)


class DenoisingConfig(Section):
    """Denoising queries (MaskDINO): `queries` per image at most, boxes jittered by `box_noise`."""

    queries: int = Field(default=100, ge=0)
    box_noise: float = Field(default=0.4, ge=0, le=1)


class ModelConfig(Section):
    """Sizes and switches of the detector; all the ablation's rows are settings of this section.

    Attributes:
        backbone: the network that images are read with, or a list of several whose features are joined.
        image_size: side S of the square network input in pixels; aspect ratio is not kept.
        width: channels of tokens, queries and prompts.
        heads: attention heads; divides `width`.
        points: sampling points per head and level of deformable attention.
        encoder_layers, decoder_layers: deformable encoder and decoder layers.
        feedforward: hidden width of the feed-forward blocks.
        queries: object queries N_q.
        prompt_visible: object queries attend to the prompts in the decoder.
        visual_aligner: MLP that aligns the spatial prompt to vision tokens.
        class_bias: learned bias on class logits (training from scratch).
        boxes: a detection's box is tight around its `mask`, as the boxes of data with masks are, or the
            box `head`'s (the paper).
        confine_masks: a detection's mask ends at its box, grown by a fifth; after short training a
            mask still has stray parts elsewhere (the paper does not confine).
        nms_iou: of two detections of a class whose boxes overlap more, the better one is kept; after
            short training the decoder still finds things twice (1 = keep both, as the paper does).
        magnify: most times that prompts and targets of a class with small marks are looked at larger than
            `image_size` (1 = never, as in the paper); training is not touched.
    """

    image_size: int = Field(default=256, ge=64)
    width: int = Field(default=128, ge=32)
    heads: int = Field(default=8, ge=1)
    points: int = Field(default=4, ge=1)
    encoder_layers: int = Field(default=2, ge=1)
    decoder_layers: int = Field(default=3, ge=1)
    feedforward: int = Field(default=512, ge=1)
    queries: int = Field(default=60, ge=1)
    prompt_visible: bool = True
    visual_aligner: bool = True
    class_bias: bool = True
    boxes: Literal["mask", "head"] = "mask"
    confine_masks: bool = True
    nms_iou: float = Field(default=0.7, gt=0, le=1)
    magnify: float = Field(default=1.0, ge=1, le=2)
    backbone: Annotated[
        Annotated[BackboneConfig, Tag(UNION_TAGS[0])]
        | Annotated[tuple[BackboneConfig, ...], Tag(UNION_TAGS[1]), Field(min_length=1)],
        Discriminator(_backbone_kind),
    ] = BackboneConfig()
    spectral: SpectralConfig = SpectralConfig()
    query_selection: QuerySelectionConfig = QuerySelectionConfig()
    denoising: DenoisingConfig = DenoisingConfig()
    similarity_prior: SimilarityPriorConfig = SimilarityPriorConfig()

    @property
    def backbones(self) -> tuple[BackboneConfig, ...]:
        """The networks that images are read with, one or several."""
        return (self.backbone,) if isinstance(self.backbone, BackboneConfig) else self.backbone

    def extends(self, other: "ModelConfig") -> bool:
        """Whether it is the other model, with more backbones after those that it has, or none."""
        given = self.backbones[: len(other.backbones)]
        return self.model_copy(update={"backbone": None}) == other.model_copy(update={"backbone": None}) and (
            given == other.backbones
        )

    @property
    def padded_size(self) -> int:
        """Side P of the frame the network works in: `image_size` padded to a multiple of 32."""
        return -(-self.image_size // 32) * 32

    @model_validator(mode="after")
    def _check_width(self) -> "ModelConfig":
        if self.width % self.heads or self.width % 32:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads} and of 32")
        return self

    def with_parts(self, *, sspe: bool, pqs: bool) -> "ModelConfig":
        """The same with only some of the paper's parts; with none it is the DINOv-style base.

        The similarity prior, which is not the paper's, stays as it is: an axis of its own.

        Args:
            sspe: the spectrum and the visual aligner of the prompt encoder.
            pqs: queries selected by the prompts, which they then see in the decoder.
        """
        spectral, selection = self.spectral, self.query_selection
        return self.model_copy(
            update={
                "spectral": spectral.model_copy(update={"enabled": sspe and spectral.enabled}),
                "visual_aligner": sspe and self.visual_aligner,
                "query_selection": selection.model_copy(update={"enabled": pqs and selection.enabled}),
                "prompt_visible": pqs and self.prompt_visible,
            }
        )
