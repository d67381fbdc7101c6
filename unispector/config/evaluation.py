"""Parameters of the evaluation and of the robustness sweeps."""

from collections.abc import Iterable
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field

from unispector.config.section import Section
from unispector.scores import DEFAULT_SCORE

KEPT_PAIRS = 300
"""(query, class) pairs that the detector keeps per image by default, as in the paper's protocol."""


class EvaluateConfig(Section):
    """Evaluation."""

    detections: int = Field(KEPT_PAIRS, ge=1, description="(query, class) pairs kept per image")
    batch_size: int = Field(8, ge=1, description="images per forward pass")
    include_prompts: bool = Field(
        False, description="prompt images are targets too (not in the paper's protocol)"
    )
    good_images: int = Field(
        100, ge=0, description="randomly sampled defect-free images per set on which false alarms are counted"
    )
    alarm_score: float = Field(
        DEFAULT_SCORE, ge=0, le=1, description="lowest score that counts as an alarm there"
    )
    alarm_rate: float = Field(
        0.1, gt=0, description="false alarms per defect-free image at which recall is reported"
    )
    resamples: int = Field(
        500,
        ge=0,
        description="bootstrap resamples of the images behind a confidence interval; 0 = no intervals",
    )
    pictures: int = Field(
        3,
        ge=0,
        description="images drawn per data set, with prompt, ground truth and prediction side by side",
    )
    failures: int = Field(
        2,
        ge=0,
        description="images of the worst false alarms, and as many of misses, drawn per data set (unseen "
        "classes)",
    )
    picture_score: float = Field(
        DEFAULT_SCORE, ge=0, le=1, description="lowest score of a detection that is drawn"
    )


Level = TypeVar("Level")


def _each_once(levels: tuple[Level, ...]) -> tuple[Level, ...]:
    if len(set(levels)) < len(levels):
        raise ValueError("a level is given twice; give each once")
    return levels


def _tenth(value: float) -> float:
    if abs(10 * value - round(10 * value)) > 1e-9:
        raise ValueError(f"{value} is not a tenth such as 0.3")
    return value


Levels = Annotated[tuple[Level, ...], AfterValidator(_each_once)]
Share = Annotated[float, Field(gt=0, lt=1), AfterValidator(_tenth)]


Sets = Literal["all"] | tuple[str, ...]
"""Some of `data.sets`, or all."""


def _named(sets: Sets, known: Iterable[str]) -> tuple[str, ...]:
    return tuple(known) if sets == "all" else sets


class SweepConfig(Section):
    """Robustness sweeps of the main model on unseen classes (paper section 4.1 and beyond)."""

    sets: Sets = Field(
        ("mini-MVTec",), description="sets to sweep, among `data.sets`, or `all` of them; [] = none"
    )
    prompt_seeds: tuple[int, ...] = Field(
        (42,), min_length=1, description="draws of prompts to change, among `split.prompt_seeds`"
    )
    blur: Levels[Annotated[float, Field(ge=0, multiple_of=0.5)]] = Field(
        (0.0, 1.0, 2.0, 3.0),
        description="Gaussian blur of the prompt images, sigma in pixels, multiples of 0.5 (paper, 4.1: "
        "0 to 3)",
    )
    box_iou: Levels[Share] = Field(
        (0.1, 0.3, 0.5, 0.7, 0.9),
        description="overlap (IoU) of perturbed prompt boxes with the drawn ones, tenths (paper, 4.1: "
        "0.1 to 0.9)",
    )
    box_trials: int = Field(1, ge=1, description="random perturbations per overlap; 10 in the paper")
    counts: Levels[Annotated[int, Field(ge=1)]] = Field(
        (1, 3, 5, 10), min_length=1, description="prompt images per class"
    )
    count_trials: int = Field(1, ge=1, description="random orders in which a class's prompt images come")
    severities: Levels[Annotated[int, Field(ge=1, le=5)]] = Field(
        (3,),
        description="of blur, noise, JPEG, light, rotation and scale of the target images; 1 (mild) to 5",
    )

    def of(self, known: Iterable[str]) -> tuple[str, ...]:
        """The sets to sweep, by name; `known` are all of `data.sets`."""
        return _named(self.sets, known)


class SystemsConfig(Section):
    """The comparison of systems by the benchmark's protocol."""

    measure: tuple[Annotated[str, Field(pattern="^[a-z0-9-]+(/(box|mask))?$")], ...] = Field(
        ("unispector", "prototypes", "prototypes/mask", "insid3", "insid3/mask"),
        description="systems that `make repro` measures (`unispector benchmark --list`), with `/mask` "
        "prompted by masks; `unispector benchmark` measures those that need weights of others",
    )
    sets: Sets = Field(
        ("mini-MagneticTile",),
        description="sets to measure them on, among `data.sets`, or `all` of them; [] = none",
    )

    def of(self, known: Iterable[str]) -> tuple[str, ...]:
        """The sets to measure on, by name; `known` are all of `data.sets`."""
        return _named(self.sets, known)
