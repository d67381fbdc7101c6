"""Parameters of the evaluation and of the robustness sweeps."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field

from unispector.config.section import Section


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
        failures: pictures of the worst false alarms, and as many of misses, drawn per data set, of
            unseen classes only.
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


class SweepConfig(Section):
    """Robustness sweeps of the main model on unseen classes (paper section 4.1 and beyond).

    Attributes:
        sets: names of the sets to sweep, among `data.sets`; empty = no sweep.
        prompt_seeds: draws of prompts to change, among `split.prompt_seeds`.
        blur: standard deviations in pixels of the Gaussian blur of prompt images, multiples of 0.5.
        box_iou: overlaps that perturbed prompt boxes have with the drawn ones, tenths.
        box_trials: random perturbations per overlap.
        counts: numbers of prompt images per class.
        count_trials: random orders in which a class's prompt images come.
        severities: of every change of the target images, 1 (mild) to 5.
    """

    sets: tuple[str, ...] = ()
    prompt_seeds: tuple[int, ...] = Field(default=(42,), min_length=1)
    blur: Levels[Annotated[float, Field(ge=0, multiple_of=0.5)]] = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
    box_iou: Levels[Share] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    box_trials: int = Field(default=10, ge=1)
    counts: Levels[Annotated[int, Field(ge=1)]] = Field(default=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10), min_length=1)
    count_trials: int = Field(default=3, ge=1)
    severities: Levels[Annotated[int, Field(ge=1, le=5)]] = (1, 2, 3, 4, 5)
