"""Stage `sweep`: the main model again and again, with prompts or targets changed a step at a time."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Never

import numpy as np

from unispector.benchmark.conditions import CLEAN, PromptCondition, changed_prompts, counted_prompts
from unispector.benchmark.judge import Trial, advance, judge, read_pair, share_bar
from unispector.benchmark.plan import Evaluation
from unispector.config import Config, EvaluateConfig, SweepConfig
from unispector.data.coco import Annotations
from unispector.data.target_changes import LEVELS, TargetChange, change_annotations, change_image
from unispector.data.transforms import ImageArray
from unispector.evaluation.coco_metrics import SetMetrics, evaluate_overlaps
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.results import FIGURES, MAIN_VARIANT, figure_of
from unispector.evaluation.sweeps import SweepReport, SweepRow
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.ops.files import read_image

if TYPE_CHECKING:
    from tqdm import tqdm


KEPT_AT_ONCE = 100_000
"""Targets times conditions whose detections are kept at a time, 1 to 20 KB each; more take another pass."""


@dataclass(frozen=True)
class SweepPoint:
    """One level of one change, judged."""

    # As of a `SweepRow`.
    sweep: str
    level: float
    trial: int
    metrics: SetMetrics


@dataclass(frozen=True)
class SweepTask:
    """A detector, one draw of prompts and their targets, and how to look at them."""

    detector: UniSpector
    prompts: Annotations
    targets: Annotations
    images: Path  # folder the file names of both are relative to
    seed: int
    config: SweepConfig
    settings: EvaluateConfig


def passes(config: SweepConfig) -> int:
    """Return the passes of a sweep over the targets: two for all prompts, one per changed target."""
    return 2 + len(LEVELS) * len(config.severities)


def sweep_prompts(task: SweepTask, advance: Callable[[float], object]) -> list[SweepPoint]:
    """Judge every change of the prompts; the targets are encoded once for all of them.

    Args:
        advance: gets shares of the work that add up to 1.

    Returns:
        One per level and trial, the prompts as drawn (`CLEAN`) first.

    Raises:
        DataError: an image is unusable.
    """
    conditions = changed_prompts(
        task.detector, task.prompts, task.images, task.seed, task.config, task.settings.batch_size
    )
    return _judged(task, conditions, GroundTruth(task.targets), advance)


def sweep_counts(task: SweepTask, advance: Callable[[float], object]) -> list[SweepPoint]:
    """Judge every number of prompt images; all on the targets that serve as prompts at no number.

    Raises:
        DataError: an image is unusable.
    """
    conditions, taken = counted_prompts(
        task.detector,
        (task.prompts, task.targets),
        task.images,
        task.seed,
        task.config,
        task.settings.batch_size,
    )
    used = taken | {image.file_name for image in task.prompts.images}
    left = [image.id for image in task.targets.images if image.file_name not in used]
    return _judged(task, conditions, GroundTruth(task.targets.keep_images(left)), advance)


def sweep_targets(
    task: SweepTask, bank: PromptBank, kind: TargetChange, severity: int, advance: Callable[[float], object]
) -> SweepPoint:
    """Judge one change of the targets.

    Raises:
        DataError: an image is unusable.
    """
    truth = GroundTruth(change_annotations(task.targets, kind, severity))
    picture = partial(_changed, task.images, kind, severity)
    (found,) = judge(task.detector, [Trial(bank, truth)], picture, task.settings, advance)
    return SweepPoint(f"target_{kind}", severity, 0, evaluate_overlaps(truth, found))


def sweep_pair(task: SweepTask, bar: "tqdm[Never]") -> list[SweepPoint]:
    """All sweeps of one draw of prompts; `bar` moves by `passes`.

    Raises:
        DataError: an image is unusable.
    """
    measured = sweep_prompts(task, advance(bar))
    clean = next(m for m in measured if (m.sweep, m.level) == CLEAN)
    measured += sweep_counts(task, advance(bar))
    bank = task.detector.encode_annotations(task.prompts, task.images, "box", task.settings.batch_size)
    for kind in LEVELS:
        measured.append(SweepPoint(f"target_{kind}", 0, 0, clean.metrics))
        for severity in task.config.severities:
            measured.append(sweep_targets(task, bank, kind, severity, advance(bar)))
    return measured


def sweep_models(todo: Sequence[Evaluation], config: Config) -> SweepReport:
    """Sweep the main model of every split seed on the unseen classes of the sets that `sweep` names.

    Raises:
        CheckpointError: a model is missing or unusable.
        DataError: a file of the splits or an image is unusable.
    """
    todo = [
        evaluation
        for evaluation in todo
        if evaluation.variant == MAIN_VARIANT
        and evaluation.subset == "unseen"
        and evaluation.set_name in config.sweep.of(config.data.sets)
    ]
    rows: list[SweepRow] = []
    with share_bar(len(todo) * len(config.sweep.prompt_seeds) * passes(config.sweep)) as bar:
        for directory in dict.fromkeys(evaluation.model for evaluation in todo):
            own = [evaluation for evaluation in todo if evaluation.model == directory]
            detector = UniSpector.load(directory)
            for evaluation in own:
                bar.set_description(f"seed {evaluation.split_seed}, {evaluation.set_name}")
                rows += _sweep(detector, evaluation, config, bar)
    return SweepReport(tuple(rows))


def _sweep(
    detector: UniSpector, evaluation: Evaluation, config: Config, bar: "tqdm[Never]"
) -> list[SweepRow]:
    rows = []
    for test in evaluation.tests:
        if test.prompt_seed not in config.sweep.prompt_seeds:
            continue
        prompts, targets = read_pair(test.prompt, test.target)
        task = SweepTask(
            detector, prompts, targets, evaluation.images, test.prompt_seed, config.sweep, config.evaluate
        )
        seeds = (evaluation.split_seed, test.prompt_seed)
        rows += [sweep_row(measured, evaluation.set_name, *seeds) for measured in sweep_pair(task, bar)]
    return rows


def sweep_row(measured: SweepPoint, data_set: str, split_seed: int, prompt_seed: int) -> SweepRow:
    """Make a row of the report from measurements; all sweeps are of the main variant and unseen classes."""
    return SweepRow(
        sweep=measured.sweep,
        level=measured.level,
        trial=measured.trial,
        variant=MAIN_VARIANT,
        data_set=data_set,
        subset="unseen",
        split_seed=split_seed,
        prompt_seed=prompt_seed,
        figures={figure: figure_of(measured.metrics, figure) for figure in FIGURES},
        images=measured.metrics.images,
    )


def _judged(
    task: SweepTask,
    conditions: Sequence[PromptCondition],
    truth: GroundTruth,
    advance: Callable[[float], object],
) -> list[SweepPoint]:
    measured: list[SweepPoint] = []
    at_once = max(KEPT_AT_ONCE // len(truth.annotations.images), 1)
    for start in range(0, len(conditions), at_once):
        part = conditions[start : start + at_once]
        trials = [Trial(condition.bank, truth) for condition in part]

        def moved(done: float, share: float = len(part) / len(conditions)) -> None:
            advance(share * done)

        found = judge(task.detector, trials, task.images.joinpath, task.settings, moved)
        for condition, overlaps in zip(part, found, strict=True):
            metrics = evaluate_overlaps(truth, overlaps)
            measured += [SweepPoint(p.sweep, p.level, p.trial, metrics) for p in condition.places]
    if not conditions:
        advance(1)
    return measured


def _changed(images: Path, kind: TargetChange, severity: int, name: str) -> ImageArray:
    """A changed target; its noise depends on its name, the change and the severity only."""
    rng = np.random.default_rng((zlib.crc32(f"{kind}/{name}".encode()), severity))
    return change_image(read_image(images / name), kind, severity, rng)
