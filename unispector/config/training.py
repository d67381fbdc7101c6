"""Parameters of training: losses, augmentation, prompts, optimisation."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from unispector.config.section import Section

RivalName = Literal["dinov", "trex2", "maskdino"]
RIVALS: tuple[RivalName, ...] = get_args(RivalName)
"""Published systems that the same recipe trains, on the same backbone."""
AblationRow = Literal["base", "sspe", "cpe"]
ABLATION: tuple[AblationRow, ...] = get_args(AblationRow)
"""Rows of the paper's ablation before the whole model, each with the parts of those before it."""


Roi = Literal["box", "mask"]
"""What a prompt is of an instance."""


class LossConfig(Section):
    """Weights of eq. (1) and the contrastive loss's constants (paper appendix 3.2, 3.4)."""

    classification: float = Field(4.0, ge=0, description="focal loss of class scores (paper, 3.2: 4)")
    box: float = Field(5.0, ge=0, description="L1 of boxes (paper, 3.2: 5)")
    giou: float = Field(2.0, ge=0, description="generalised IoU of boxes (paper, 3.2: 2)")
    mask: float = Field(5.0, ge=0, description="cross-entropy of mask points (paper, 3.2: 5)")
    dice: float = Field(5.0, ge=0, description="Dice of mask points (paper, 3.2: 5)")
    contrastive: float = Field(
        1.0, ge=0, description="angular-margin loss of prompts, CPE (paper, 3.2: 1); 0 = off (ablation)"
    )
    relevance: float = Field(
        1.0, ge=0, description="focal loss of PQS's token scores; the paper has none (0)"
    )
    prior: float = Field(1.0, ge=0, description="of the similarity prior's masks; the paper has no prior")
    candidates: float = Field(
        1.0,
        ge=0,
        description="of the candidate head, which judges the prior's parts and the queries; the paper "
        "has no such head",
    )
    scale: float = Field(30.0, gt=0, description="s of the angular-margin softmax (paper, 3.4: 30)")
    margin: float = Field(
        0.5, ge=0, lt=3.14, description="m of the angular-margin softmax in radians (paper, 3.4: 0.5)"
    )
    points: int = Field(512, ge=1, description="sampled points per mask")


class AugmentConfig(Section):
    """Training augmentation: flips, the ranges of light changes (paper appendix 3.4), largest zoom."""

    horizontal_flip: float = Field(
        0.5, ge=0, le=1, description="probability of a left-right flip (paper, 3.4)"
    )
    vertical_flip: float = Field(
        0.5, ge=0, le=1, description="probability of an upside-down flip (not in the paper)"
    )
    quarter_turns: bool = Field(
        True, description="turn by a random multiple of 90 degrees (not in the paper)"
    )
    brightness: tuple[float, float] = Field(
        (0.5, 1.3), description="range of the factor (paper, 3.4: 0.5 to 1.3)"
    )
    contrast: tuple[float, float] = Field(
        (0.8, 1.1), description="range of the factor (paper, 3.4: 0.8 to 1.1)"
    )
    zoom: float = Field(
        1.0, ge=1, description="largest random zoom onto a defect, per axis; 1 = none (as in the paper)"
    )


class PromptConfig(Section):
    """Sampling of prompts in training, and their form at test time."""

    max_classes: int | None = Field(
        2,
        ge=1,
        description="while training, most classes of a batch that are prompted, the commonest; instances "
        "of others are left out; null = all (as in the paper)",
    )
    max_images: int = Field(
        5,
        ge=1,
        description="while training, a class is prompted by all its instances on at most so many images",
    )
    box_share: float = Field(
        0.7, ge=0, le=1, description="share of training prompts that are the filled box, not the mask"
    )
    box_slack: float = Field(
        0.2, ge=0, le=1, description="half of those boxes grow in width and height by up to this share of it"
    )
    cross_image: float = Field(
        0.9, ge=0, le=1, description="share of class prompts taken only from other images than the target's"
    )
    test_roi: Roi = Field(
        "box", description="a test prompt is the `box` (as in the paper, 4.1) or the `mask`"
    )


class TrainConfig(Section):
    """Optimisation (paper appendix 3.4)."""

    start: Path | None = Field(
        None,
        description="a saved model's directory (same `model` section, or fewer backbones) or a file of "
        "weights (docs/weights.md) to start from; null = no more than the backbone's weights",
    )
    steps: int = Field(160, ge=1, description="optimiser steps (paper, 3.4: 20,000)")
    batch_size: int = Field(
        8,
        ge=1,
        description="images per step, over all processes of a model, those without a defect among them "
        "(paper, 3.4: 48)",
    )
    images_per_class: int = Field(4, ge=1, description="images of one class that go into a batch together")
    defect_free: int = Field(1, ge=0, description="images of a batch that show no defect, below `batch_size`")
    views: int = Field(
        1,
        ge=0,
        description="augmented views of each image whose maps of a frozen backbone are kept on disk; 0 = "
        "augment anew, keep none",
    )
    learning_rate: float = Field(0.001, gt=0, description="base rate of AdamW (paper, 3.4: 1e-4)")
    backbone_rate: float = Field(0.1, ge=0, description="factor on it for the backbone")
    weight_decay: float = Field(
        0.05, ge=0, description="of AdamW, not for norms and embeddings (paper, 3.4: 0.05)"
    )
    warmup_steps: int = Field(
        20, ge=0, description="steps of linear rise, then linear fall to 0 (paper, 3.4: 10)"
    )
    clip_norm: float = Field(0.1, gt=0, description="largest global L2 norm of the gradient")
    precision: Literal["fp32", "bf16"] = Field(
        "bf16", description="`bf16` autocasts where the device multiplies in bfloat16, `fp32` never"
    )
    activation_checkpointing: bool = Field(
        False,
        description="keep fewer activations and compute them again: the same gradients in less memory "
        "and more time",
    )
    processes: int = Field(
        1, ge=1, description="training processes of one model, each on its slice of the batch"
    )
    workers: int = Field(0, ge=0, description="data loading processes per training process")
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints")
    log_every: int = Field(20, ge=1, description="steps between logged losses")
    seeds: tuple[int, ...] = Field(
        (42,),
        min_length=1,
        description="split seeds on which a model is trained, among `split.seeds`; [42, 82, 777] for the "
        "whole protocol",
    )
    ablation: tuple[AblationRow | RivalName, ...] = Field(
        ("base",),
        description="rows of the ablation that train too: base (no SSPE spectrum, CPE, PQS), sspe, cpe "
        "(with those before); or published systems by the same recipe: dinov, trex2, maskdino",
    )
    ablation_seeds: tuple[int, ...] = Field(
        (), description="those among `seeds` on which they do; each model takes about as long as the main one"
    )
    threads: int = Field(1, ge=0, description="CPU threads of a training process; 0 = torch's choice")
    side_by_side: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="most models that train at a time; auto = as many as the machines have room for"
    )
    retries: int = Field(
        1, ge=0, description="how often a training whose processes died goes on from its checkpoint by itself"
    )
    timeout_hours: float | None = Field(
        None, gt=0, description="hours after which a training is stopped; null = never"
    )

    @field_validator("start", mode="before")
    @classmethod
    def _nothing_is_null(cls, value: Any) -> Any:
        # As a path, the empty text is the whole project.
        return None if value == "" else value

    @model_validator(mode="after")
    def _shows_a_defect(self) -> Self:
        if self.defect_free >= self.batch_size:
            raise ValueError(
                f"defect_free {self.defect_free} must be below batch_size {self.batch_size}, "
                "which counts them too"
            )
        return self
