"""Parameters of training: losses, augmentation, prompts, optimisation."""

from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from unispector.config.section import Section

AblationRow = Literal["base", "sspe", "cpe"]
ABLATION: tuple[AblationRow, ...] = get_args(AblationRow)
"""Rows of the paper's ablation before the whole model, each with the parts of those before it."""


class LossConfig(Section):
    """Weights of eq. (1) and the contrastive loss's constants (paper appendix 3.2, 3.4).

    Attributes:
        classification, box, giou, mask, dice: weights of the terms, in matching costs too.
        contrastive: weight of CPE; 0 = off (ablation).
        relevance: weight of a focal loss on PQS's token scores; the paper has none (0).
        prior: weight of the similarity prior's loss; the paper has no prior.
        candidates: weight of the candidate head's loss; the paper has no such head.
        scale, margin: s and m of the angular-margin softmax.
        points: sampled points per mask.
    """

    classification: float = Field(default=4.0, ge=0)
    box: float = Field(default=5.0, ge=0)
    giou: float = Field(default=2.0, ge=0)
    mask: float = Field(default=5.0, ge=0)
    dice: float = Field(default=5.0, ge=0)
    contrastive: float = Field(default=1.0, ge=0)
    relevance: float = Field(default=1.0, ge=0)
    prior: float = Field(default=1.0, ge=0)
    candidates: float = Field(default=1.0, ge=0)
    scale: float = Field(default=30.0, gt=0)
    margin: float = Field(default=0.5, ge=0, lt=3.14)
    points: int = Field(default=1024, ge=1)


class AugmentConfig(Section):
    """Training augmentation: flips, the ranges of light changes (paper appendix 3.4), largest zoom."""

    horizontal_flip: float = Field(default=0.5, ge=0, le=1)
    vertical_flip: float = Field(default=0.0, ge=0, le=1)
    quarter_turns: bool = False
    brightness: tuple[float, float] = (0.5, 1.3)
    contrast: tuple[float, float] = (0.8, 1.1)
    zoom: float = Field(default=1.0, ge=1)


class PromptConfig(Section):
    """How prompts are drawn from the training batch and read at test time.

    Attributes:
        max_classes: while training, only so many classes of a batch are prompted, the commonest; the
            instances of others are left out. None = all (the paper).
        max_images: while training, a class is prompted by all its instances on at most so many images.
        box_share: while training, share of instances whose RoI is the filled box, not the mask.
        box_slack: while training, half of the boxes grow in width and height by up to this share of it.
        cross_image: share of class prompts taken only from other images than the target's.
        test_roi: RoI of a test prompt, `box` (paper's protocol) or `mask`.
    """

    max_classes: int | None = Field(default=None, ge=1)
    max_images: int = Field(default=5, ge=1)
    box_share: float = Field(default=0.5, ge=0, le=1)
    box_slack: float = Field(default=0.2, ge=0, le=1)
    cross_image: float = Field(default=1.0, ge=0, le=1)
    test_roi: Literal["box", "mask"] = "box"


class TrainConfig(Section):
    """Optimisation (paper appendix 3.4).

    Attributes:
        start: directory of a saved model of the same sizes, or with fewer backbones, whose weights training
            starts from, or a safetensors file or published checkpoint, which gives what fits; None = no more
            than the backbone's weights.
        steps: optimiser steps.
        batch_size: images per step over all workers.
        images_per_class: images of one class that go into a batch together.
        defect_free: images of a batch that show no defect, below `batch_size`.
        views: augmented views of each image, so that a frozen backbone's maps of them are computed once and
            kept on disk; 0 = every sample is augmented anew and the backbone runs in every step.
        learning_rate: base rate of AdamW.
        backbone_rate: factor on the base rate for the backbone.
        weight_decay: AdamW's, not for norms and embeddings.
        warmup_steps: linear warm-up, then linear decay to 0.
        clip_norm: largest global L2 norm of the gradient.
        precision: `bf16` autocasts where the device gains, `fp32` never.
        activation_checkpointing: compute the activations of the backbone and the encoder a second time
            instead of keeping them: the same gradients in less memory and more time.
        processes: training processes of one model (Ray Train workers), each on its slice of the batch.
        workers: data loading processes per training process.
        checkpoint_every: steps between checkpoints.
        log_every: steps between reports.
        seeds: split seeds on which a model is trained, among `split.seeds`.
        ablation: rows of the paper's ablation that train too, each with the parts of those before it: `base`
            (no SSPE spectrum, CPE, PQS), `sspe`, `cpe`; the last row is the model itself.
        ablation_seeds: those among `seeds` on which they do.
        threads: CPU threads of one training process; 0 = torch's choice.
        side_by_side: most models that train at a time; `auto` = as many as the machines have room for.
        retries: how often a training whose processes died goes on from its checkpoint by itself.
        timeout_hours: a training that takes longer is stopped; None = never.
    """

    start: Path | None = None
    steps: int = Field(default=1500, ge=1)
    batch_size: int = Field(default=8, ge=1)
    images_per_class: int = Field(default=2, ge=1)
    defect_free: int = Field(default=0, ge=0)
    views: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=5e-4, gt=0)
    backbone_rate: float = Field(default=0.1, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_steps: int = Field(default=50, ge=0)
    clip_norm: float = Field(default=0.1, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    processes: int = Field(default=1, ge=1)
    workers: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    seeds: tuple[int, ...] = Field(default=(42,), min_length=1)
    ablation: tuple[AblationRow, ...] = ("base",)
    ablation_seeds: tuple[int, ...] = (42,)
    threads: int = Field(default=1, ge=0)
    side_by_side: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    retries: int = Field(default=1, ge=0)
    timeout_hours: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _shows_a_defect(self) -> Self:
        if self.defect_free >= self.batch_size:
            raise ValueError(
                f"defect_free {self.defect_free} must be below batch_size {self.batch_size}, "
                "which counts them too"
            )
        return self
