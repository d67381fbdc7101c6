"""Parameters of the detector."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from unispector.config.section import Section


class BackboneConfig(Section):
    """One network that images are read with."""

    name: str = Field(
        "tf_efficientnet_lite0",
        description="a timm model with features of strides 4, 8, 16, 32, or a plain vision transformer "
        "such as vit_small_patch14_dinov2 (paper, 3.1: swin_tiny_patch4_window7_224)",
    )
    weights: str = Field(
        "packaged",
        description="those of an installed package (`packaged`), timm's pretrained from the `hub` (needs "
        "a network), random (`none`), or a file (docs/weights.md)",
    )
    frozen: bool = Field(
        True, description="keep the weights as they are; batch norms use their stored statistics"
    )
    drop_path: float = Field(0.0, ge=0, lt=1, description="stochastic depth rate while training")
    blocks: tuple[int, ...] = Field(
        (5, 8),
        description="of a vision transformer alone: blocks whose tokens are used, counted from 0, rising",
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="of a vision transformer alone: `bf16` where the processor has it, so that features "
        "differ in the third digit between machines, or `fp32` everywhere",
    )

    @property
    def weights_file(self) -> Path | None:
        """The file of `weights`, if it is one."""
        return None if self.weights in ("packaged", "hub", "none") else Path(self.weights)

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
    """The spectral branch of SSPE (paper appendix 2, Algorithm 1)."""

    enabled: bool = Field(True, description="off = spatial prompt only (ablation)")
    bins: int = Field(256, ge=2, description="radial frequency bins J (paper, 3.4: 256)")
    empty: Literal["zero", "interp"] = Field(
        "interp", description="a bin without a coefficient is `interp`olated or `zero`"
    )
    log: bool = Field(True, description="compress the bins by log before the encoder")
    min_side: int = Field(16, ge=1, description="a smaller crop is grown to this many pixels")


class QuerySelectionConfig(Section):
    """Prompt-guided query selection (PQS)."""

    enabled: bool = Field(True, description="off = learned queries (ablation, DINOv)")
    temperature: float = Field(1.0, gt=0, description="tau of the Gumbel softmax (paper, 3.4: 1)")
    noise: float = Field(0.2, ge=0, description="factor on the Gumbel noise while training")
    scale: float = Field(10.0, gt=0, description="factor on the cosine before the softmax")


class SimilarityPriorConfig(Section):
    """The similarity prior: nearest-neighbour matching of frozen features, which the paper does not have."""

    enabled: bool = Field(
        True,
        description="off = the paper's detector; of a backbone that trains the prior takes features "
        "without gradients",
    )
    width: int = Field(
        48,
        ge=6,
        multiple_of=6,
        description="channels of its network; those of the candidate head follow from it",
    )
    grown: int = Field(
        0,
        ge=0,
        description="best candidates of a class that are also tried with what resembles them in the image",
    )


class DenoisingConfig(Section):
    """Denoising queries (MaskDINO): `queries` per image at most, boxes jittered by `box_noise`."""

    queries: int = Field(20, ge=0, description="denoising queries per image at most; 0 = off")
    box_noise: float = Field(
        0.4, ge=0, le=1, description="jitter of their boxes, as a share of width and height"
    )


class ModelConfig(Section):
    """Sizes and switches of the detector; all the ablation's rows are settings of this section."""

    image_size: int = Field(
        448,
        ge=64,
        description="side S of the square network input in pixels; the aspect ratio is not kept (paper, "
        "3.4: 720)",
    )
    width: int = Field(
        64, ge=32, description="channels of tokens, queries and prompts; a multiple of heads and of 32"
    )
    heads: int = Field(4, ge=1, description="attention heads (paper, 3.1: 8)")
    points: int = Field(2, ge=1, description="sampling points per head and level of deformable attention")
    encoder_layers: int = Field(1, ge=1, description="deformable encoder layers")
    decoder_layers: int = Field(2, ge=1, description="deformable decoder layers (paper, 3.1: 9)")
    feedforward: int = Field(128, ge=1, description="hidden width of the feed-forward blocks")
    queries: int = Field(30, ge=1, description="object queries N_q (paper, 3.4: 300)")
    prompt_encoder: Literal["sspe", "boxes", "classes"] = Field(
        "sspe",
        description="`sspe` (paper, 3.1), `boxes` (T-Rex2's visual prompts), or `classes`: a learned "
        "embedding per class of a closed set (MaskDINO)",
    )
    classes: tuple[str, ...] = Field((), description="of a closed set, its classes; training fills them in")
    prompt_reference: Literal["centre", "corner"] = Field(
        "centre",
        description="where a prompt token starts from in the decoder: `centre` = the box of the whole frame, "
        "`corner` = (0, 0, 1, 1), as the weights of DINOv expect",
    )
    prompt_visible: bool = Field(True, description="object queries attend to the prompts in the decoder")
    visual_aligner: bool = Field(True, description="MLP that aligns the spatial prompt to vision tokens")
    class_bias: bool = Field(True, description="learned bias on class logits, for training from scratch")
    boxes: Literal["mask", "head"] = Field(
        "mask",
        description="a detection's box is tight around its `mask`, or the box `head`'s (as in the paper)",
    )
    confine_masks: bool = Field(
        True, description="a detection's mask ends at its box, grown by a fifth (not in the paper)"
    )
    nms_iou: float = Field(
        0.4,
        gt=0,
        le=1,
        description="of two detections of a class whose boxes overlap more, the better one is kept; 1 = "
        "both (as in the paper)",
    )
    magnify: float = Field(
        1.0,
        ge=1,
        le=2,
        description="most times that images are looked at larger for a class with small marks: 2 finds "
        "more, in up to three times the time; 1 = never (as in the paper)",
    )
    backbone: Annotated[
        Annotated[BackboneConfig, Tag(UNION_TAGS[0])]
        | Annotated[tuple[BackboneConfig, ...], Tag(UNION_TAGS[1]), Field(min_length=1)],
        Discriminator(_backbone_kind),
    ] = Field(
        BackboneConfig(),
        description="network that images are read with, or a list of several whose features are joined",
    )
    spectral: SpectralConfig = Field(
        SpectralConfig(), description="frequency branch of the prompt encoder, SSPE (paper, appendix 2)"
    )
    query_selection: QuerySelectionConfig = Field(
        QuerySelectionConfig(), description="prompt-guided query selection, PQS"
    )
    denoising: DenoisingConfig = Field(
        DenoisingConfig(), description="denoising queries while training (MaskDINO)"
    )
    similarity_prior: SimilarityPriorConfig = Field(
        SimilarityPriorConfig(),
        description="matching of the frozen backbone's features with the prompts' (not in the paper)",
    )

    @property
    def backbones(self) -> tuple[BackboneConfig, ...]:
        """The networks that images are read with, one or several."""
        return (self.backbone,) if isinstance(self.backbone, BackboneConfig) else self.backbone

    def below(self, root: Path) -> "ModelConfig":
        """The same with files of weights below `root`, where they are relative."""
        networks = [
            network.model_copy(update={"weights": str(root / network.weights_file)})
            if network.weights_file
            else network
            for network in self.backbones
        ]
        one = isinstance(self.backbone, BackboneConfig)
        return self.model_copy(update={"backbone": networks[0] if one else tuple(networks)})

    def extends(self, other: "ModelConfig") -> bool:
        """Return whether it is the other model, with more backbones after those that it has, or none."""
        given = self.backbones[: len(other.backbones)]
        return self.model_copy(update={"backbone": None}) == other.model_copy(update={"backbone": None}) and (
            given == other.backbones
        )

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

    def as_rival(self, name: str) -> "ModelConfig":
        """The same sizes as a published system's: its prompts, its queries, and nothing that is ours.

        Args:
            name: one of `RIVALS`.
        """
        known = {
            # The released base: learned queries that do not see the prompts.
            "dinov": {"prompt_encoder": "sspe", "pqs": False, "prompt_visible": False},
            "trex2": {"prompt_encoder": "boxes", "pqs": True, "prompt_visible": False},
            # Its two-stage selection takes the tokens that its classifier scores highest, as PQS does.
            "maskdino": {"prompt_encoder": "classes", "pqs": True, "prompt_visible": False},
        }[name]
        selection = {"enabled": known.pop("pqs"), "noise": 0.0}
        return self.model_copy(
            update={
                **known,
                "spectral": self.spectral.model_copy(update={"enabled": False}),
                "visual_aligner": False,
                "query_selection": self.query_selection.model_copy(update=selection),
                "similarity_prior": self.similarity_prior.model_copy(update={"enabled": False}),
                "boxes": "head",
                "confine_masks": False,
                "nms_iou": 1.0,
                "magnify": 1.0,
            }
        )
