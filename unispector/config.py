"""Every knob, as frozen typed sections that mirror `params.yaml`; `load_config` is the only edge.

Unknown keys and values out of range are refused with one line that names the file and the field.
Inner code receives the section it needs and never reads YAML.
"""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unispector.errors import ConfigError


class Section(BaseModel):
    """Base of every section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MiniConfig(Section):
    """The embedded default data, `insa-mini` (procedural, deterministic).

    Attributes:
        seed: seed of the whole generation.
        images_per_class: images of each class of the in-domain sets; cross-domain sets have half of that.
        defect_free_images: images without any defect, in each set whose release has such images.
        size: nominal height of an image in pixels; heights vary by 12 %, widths are 0.6 to 1.6 times that.
    """

    seed: int = 42
    images_per_class: int = Field(default=24, ge=1)
    defect_free_images: int = Field(default=8, ge=0)
    size: int = Field(default=256, ge=64)


class SetConfig(Section):
    """One data set of the benchmark.

    Attributes:
        source: which reader understands the raw layout (a key of `unispector.data.sources.SOURCES`).
        path: raw folder of the set, relative to `data.root`.
        domain: `in` takes part in training with its seen classes, `cross` is only tested on.
    """

    source: Literal[
        "gc10",
        "magnetic_tile",
        "real_iad",
        "mvtec_ad",
        "three_cad",
        "vision",
        "visa",
        "coco",
        "voc",
        "yolo",
        "labelme",
        "masks",
    ]
    path: str
    domain: Literal["in", "cross"] = "in"


class DataConfig(Section):
    """Where raw data lie and which sets make the benchmark.

    Attributes:
        root: folder of all raw sets.
        sets: set name -> its source, path and domain.
        min_side: a component is dropped when its width or its height is under this share of the
            image's (paper appendix 1.1).
        workers: processes that read images; 0 = one per core.
    """

    root: Path = Path("data/raw")
    sets: dict[str, SetConfig]
    min_side: float = Field(default=0.01, ge=0, lt=1)
    workers: int = Field(default=0, ge=0)


class SplitConfig(Section):
    """Seen/unseen split, prompts and targets (paper appendix 1 and 1.2).

    Attributes:
        seeds: split seeds; one model is trained per seed.
        prompt_seeds: seeds of the prompt draw, per split seed.
        unseen_fraction: share of each in-domain set's categories held out (at least one).
        prompts_per_class: prompt images per class.
        tail_images: a class with at most this many images gets one prompt image.
        seen_test_fraction: share of each seen class's images kept from training, to test on.
        training_rule: `clean` = an image that shows an unseen class never trains; `naive` = it trains
            with its seen instances, its unseen ones unlabelled.
        official: folder of the official annotation release (the one with `in-domain` and `out-domain`)
            to take the splits from, or None to make them. All but the seeds and `training_rule`, which
            the files are checked against, is then without effect, and `data.sets` must bear InsA's names.
    """

    seeds: tuple[int, ...] = Field(default=(42, 82, 777), min_length=1)
    prompt_seeds: tuple[int, ...] = Field(default=(42, 82, 777), min_length=1)
    unseen_fraction: float = Field(default=0.25, gt=0, lt=1)
    prompts_per_class: int = Field(default=5, ge=1)
    tail_images: int = Field(default=10, ge=0)
    seen_test_fraction: float = Field(default=0.15, ge=0, lt=1)
    training_rule: Literal["clean", "naive"] = "clean"
    official: Path | None = None


class BackboneConfig(Section):
    """The image backbone.

    Attributes:
        name: any timm model that supports `features_only` with strides 4, 8, 16 and 32.
        weights: `packaged` = ImageNet weights of the installed package (EfficientNet-Lite0 only),
            `none` = random, else the path of a safetensors file.
        frozen: keep the weights as they are (batch norms use their stored statistics).
        drop_path: stochastic depth rate while training.
    """

    name: str = "tf_efficientnet_lite0"
    weights: str = "packaged"
    frozen: bool = True
    drop_path: float = Field(default=0.0, ge=0, lt=1)


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


class DenoisingConfig(Section):
    """Denoising queries (MaskDINO): `queries` per image at most, boxes jittered by `box_noise`."""

    queries: int = Field(default=100, ge=0)
    box_noise: float = Field(default=0.4, ge=0, le=1)


class ModelConfig(Section):
    """Sizes and switches of the detector; all the ablation's rows are settings of this section.

    Attributes:
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
    backbone: BackboneConfig = BackboneConfig()
    spectral: SpectralConfig = SpectralConfig()
    query_selection: QuerySelectionConfig = QuerySelectionConfig()
    denoising: DenoisingConfig = DenoisingConfig()

    @property
    def padded_size(self) -> int:
        """Side P of the frame the network works in: `image_size` padded to a multiple of 32."""
        return -(-self.image_size // 32) * 32

    @model_validator(mode="after")
    def _check_width(self) -> "ModelConfig":
        if self.width % self.heads or self.width % 32:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads} and of 32")
        return self

    def without_contributions(self) -> "ModelConfig":
        """The DINOv-style base: no spectral branch, aligner, PQS, nor prompts visible to queries."""
        return self.model_copy(
            update={
                "spectral": self.spectral.model_copy(update={"enabled": False}),
                "query_selection": self.query_selection.model_copy(update={"enabled": False}),
                "visual_aligner": False,
                "prompt_visible": False,
            }
        )


class LossConfig(Section):
    """Weights of eq. (1) and the contrastive loss's constants (paper appendix 3.2, 3.4).

    Attributes:
        classification, box, giou, mask, dice: weights of the terms, in matching costs too.
        contrastive: weight of CPE; 0 = off (ablation).
        relevance: weight of a focal loss on PQS's token scores; the paper has none (0).
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
        max_examples: at most this many instances are averaged into a class prompt while training.
        box_share: while training, share of instances whose RoI is the filled box, not the mask.
        cross_image: share of class prompts taken only from other images than the target's.
        test_roi: RoI of a test prompt, `box` (paper's protocol) or `mask`.
    """

    max_examples: int = Field(default=4, ge=1)
    box_share: float = Field(default=0.5, ge=0, le=1)
    cross_image: float = Field(default=0.5, ge=0, le=1)
    test_roi: Literal["box", "mask"] = "box"


class TrainConfig(Section):
    """Optimisation (paper appendix 3.4).

    Attributes:
        start: directory of a saved model of the same sizes whose weights training starts from;
            None = the packaged backbone and random weights.
        steps: optimiser steps.
        batch_size: images per step over all workers.
        images_per_class: images of one class that go into a batch together.
        learning_rate: base rate of AdamW.
        backbone_rate: factor on the base rate for the backbone.
        weight_decay: AdamW's, not for norms and embeddings.
        warmup_steps: linear warm-up, then linear decay to 0.
        clip_norm: largest global L2 norm of the gradient.
        precision: `bf16` autocasts where the device gains, `fp32` never.
        processes: training processes of one model (Ray Train workers), each on its slice of the batch.
        workers: data loading processes per training process.
        checkpoint_every: steps between checkpoints.
        log_every: steps between reports.
        seeds: split seeds on which a model is trained, among `split.seeds`.
        ablation_seeds: those among `seeds` on which the base (no SSPE spectrum, CPE, PQS) trains too.
        threads: CPU threads of one training process; 0 = torch's choice.
    """

    start: Path | None = None
    steps: int = Field(default=1500, ge=1)
    batch_size: int = Field(default=8, ge=1)
    images_per_class: int = Field(default=2, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    backbone_rate: float = Field(default=0.1, ge=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup_steps: int = Field(default=50, ge=0)
    clip_norm: float = Field(default=0.1, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    processes: int = Field(default=1, ge=1)
    workers: int = Field(default=0, ge=0)
    checkpoint_every: int = Field(default=500, ge=1)
    log_every: int = Field(default=20, ge=1)
    seeds: tuple[int, ...] = Field(default=(42,), min_length=1)
    ablation_seeds: tuple[int, ...] = (42,)
    threads: int = Field(default=1, ge=0)


class EvaluateConfig(Section):
    """Evaluation.

    Attributes:
        detections: (query, class) pairs kept per image.
        batch_size: images per forward pass.
        include_prompts: prompt images are targets too (off in the paper's protocol).
        good_images: defect-free images per set, drawn by lot, on which false alarms are counted.
        alarm_score: lowest score of a detection that counts as an alarm there.
        alarm_rate: false alarms per defect-free image at which recall is told.
        resamples: bootstrap resamples of the images behind a confidence interval; 0 = no intervals.
        pictures: pictures drawn per data set (prompt, ground truth, prediction side by side).
        failures: pictures of the worst false alarms, and as many of misses, drawn per data set.
        picture_score: lowest score of a detection that is drawn.
    """

    detections: int = Field(default=300, ge=1)
    batch_size: int = Field(default=8, ge=1)
    include_prompts: bool = False
    good_images: int = Field(default=100, ge=0)
    alarm_score: float = Field(default=0.15, ge=0, le=1)
    alarm_rate: float = Field(default=0.1, gt=0)
    resamples: int = Field(default=500, ge=0)
    pictures: int = Field(default=6, ge=0)
    failures: int = Field(default=2, ge=0)
    picture_score: float = Field(default=0.15, ge=0, le=1)


class SweepConfig(Section):
    """Robustness sweeps of the main model on unseen classes (paper section 4.1 and beyond).

    Attributes:
        sets: names of the sets to sweep, among `data.sets`; empty = no sweep.
        prompt_seeds: draws of prompts to change, among `split.prompt_seeds`.
        blur: standard deviations in pixels of the Gaussian blur of prompt images.
        box_iou: overlaps that perturbed prompt boxes have with the drawn ones.
        box_trials: random perturbations per overlap.
        counts: numbers of prompt images per class.
        count_trials: random orders in which a class's prompt images come.
        severities: of every change of the target images, 1 (mild) to 5.
    """

    sets: tuple[str, ...] = ()
    prompt_seeds: tuple[int, ...] = Field(default=(42,), min_length=1)
    blur: tuple[Annotated[float, Field(ge=0)], ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    box_iou: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    box_trials: int = Field(default=10, ge=1)
    counts: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    count_trials: int = Field(default=3, ge=1)
    severities: tuple[Annotated[int, Field(ge=1, le=5)], ...] = (1, 2, 3, 4, 5)


class Config(Section):
    """All of `params.yaml`."""

    mini: MiniConfig = MiniConfig()
    data: DataConfig
    split: SplitConfig = SplitConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    prompt: PromptConfig = PromptConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    sweep: SweepConfig = SweepConfig()

    def ablation_base(self) -> "Config":
        """The ablation's base row: the same recipe without SSPE's spectrum, CPE and PQS."""
        return self.model_copy(
            update={
                "model": self.model.without_contributions(),
                "loss": self.loss.model_copy(update={"contrastive": 0.0, "relevance": 0.0}),
                "train": self.train.model_copy(update={"start": None}),
            }
        )


def load_config(path: Path = Path("params.yaml")) -> Config:
    """Read and validate `params.yaml`.

    Args:
        path: YAML file whose top-level keys are the fields of `Config`.

    Raises:
        ConfigError: the file is absent or no YAML, a key is unknown or a value is out of range.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); run from the project's root"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    try:
        return Config.model_validate(raw or {})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    """One line for the first field at fault, with how many more there are."""
    first, *others = error.errors()
    field = ".".join(str(part) for part in first["loc"]) or "(top level)"
    message = "unknown parameter; check its spelling" if first["type"] == "extra_forbidden" else first["msg"]
    more = f" (and {len(others)} more)" if others else ""
    return f"{field}: {message}{more}"
