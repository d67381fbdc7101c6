"""Two models measured on the same prompts and targets, one after the other."""

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unispector.benchmark.conditions import PromptCondition, changed_prompts
from unispector.benchmark.judge import Trial, advance, judge, read_pair, scores_on, share_bar
from unispector.benchmark.plan import Evaluation
from unispector.config import Config
from unispector.data.coco import Annotations
from unispector.data.combine import with_prompts
from unispector.data.defect_free import defect_free_for_tests
from unispector.evaluation.ground_truth import GroundTruth, Kind, Overlaps
from unispector.evaluation.intervals import Interval
from unispector.evaluation.matching import match
from unispector.evaluation.paired import JudgedDraw, paired_interval, plain_figure, resampled_figures
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.registry.rules import Comparison, Pair, SetComparison


@dataclass(frozen=True)
class SetDraw:
    """One draw of prompts of a set, and its targets."""

    seed: int
    # Of classes that neither model was trained on.
    prompts: Annotations
    targets: Annotations


@dataclass(frozen=True)
class ComparisonSet:
    """One set on which both models are measured."""

    name: str
    images: Path
    draws: tuple[SetDraw, ...]  # at least one
    classes: tuple[str, ...]  # that are prompted and looked for
    trained: tuple[str, ...]  # unseen classes of the set that a model was trained on, left out
    changed: bool  # whether prompts are changed here too
    good: tuple[Path, ...]


@dataclass(frozen=True)
class ModelFigures:
    """A model's figures on a set, without its detections."""

    # AP50 in percent, the mean over draws.
    boxes: float
    masks: float
    resampled: npt.NDArray[np.float64]  # `boxes` on resampled images, [R]
    # AP50 of boxes with changed prompts; None where they are not changed.
    blurred: float | None
    shifted: float | None
    alarms: float | None  # per defect-free image; None where there is none


def compare_models(
    challenger: Path,
    champion: Path,
    evaluations: Sequence[Evaluation],
    trained: Collection[str],
    config: Config,
) -> Comparison:
    """Measure both models on every set, one model at a time.

    Args:
        trained: classes that either model was trained on, `<set>/<class>` as in the training files; they
            are neither prompted nor looked for.

    Raises:
        CheckpointError: a model cannot be loaded.
        DataError: a file of the splits or an image is unusable.
    """
    found = {each.set_name: fair_set(each, trained, config) for each in evaluations}
    compared = [data_set for data_set in found.values() if data_set is not None]
    if not any(data_set.changed for data_set in compared):
        # The sets that sweeps are made on have no class that is new to both.
        compared = [replace(data_set, changed=True) for data_set in compared]
    left_out = tuple(name for name, data_set in found.items() if data_set is None)
    if not compared:
        return Comparison((), Interval(0.0, 0.0), left_out)
    measured: list[list[ModelFigures]] = []
    with share_bar(2 * len(compared)) as bar:
        for name, directory in (("challenger", challenger), ("champion", champion)):
            detector = UniSpector.load(directory)
            measured.append([])
            for data_set in compared:
                bar.set_description(f"{name}, {data_set.name}")
                measured[-1].append(measure(detector, data_set, config, advance(bar)))
    new, old = measured
    level = config.promote.level
    sets = tuple(_set_comparison(*row, level) for row in zip(compared, new, old, strict=True))
    interval = paired_interval([each.resampled for each in new], [each.resampled for each in old], level)
    return Comparison(sets, interval, left_out)


def fair_set(evaluation: Evaluation, trained: Collection[str], config: Config) -> ComparisonSet | None:
    """A set without the classes that a model was trained on; None where no other class is left.

    An image that shows no class that is left is no target and no prompt any more.

    Raises:
        DataError: a file of the splits is unusable.
    """
    name, draws = evaluation.set_name, []
    classes: dict[str, bool] = {}
    for test in evaluation.tests:
        prompts, targets = read_pair(test.prompt, test.target)
        if config.evaluate.include_prompts:
            targets = with_prompts(targets, prompts)
        known = {label: f"{name}/{label}" in trained for label in targets.class_names}
        classes |= known
        if all(known.values()):
            continue
        if any(known.values()):
            prompts, targets = (_without(part, known) for part in (prompts, targets))
        if targets.instances:
            draws.append(SetDraw(test.prompt_seed, prompts, targets))
    if not draws:
        return None
    good = defect_free_for_tests(evaluation.dropped, config.evaluate.good_images)
    return ComparisonSet(
        name=name,
        images=evaluation.images,
        draws=tuple(draws),
        classes=tuple(label for label, known_too in classes.items() if not known_too),
        trained=tuple(label for label, known_too in classes.items() if known_too),
        changed=not config.sweep.sets or name in config.sweep.sets,
        good=tuple(evaluation.images / file for file in good),
    )


def measure(
    detector: UniSpector, data_set: ComparisonSet, config: Config, advance: Callable[[float], object]
) -> ModelFigures:
    """Measure a model on a set; every target is encoded once for all prompts.

    Args:
        advance: gets shares of the work that add up to 1.

    Raises:
        DataError: an image is unusable.
    """
    settings, images, roi = config.evaluate, data_set.images, config.prompt.test_roi
    banks = [
        detector.encode_annotations(draw.prompts, images, roi, settings.batch_size) for draw in data_set.draws
    ]
    clean = [Trial(bank, GroundTruth(d.targets)) for bank, d in zip(banks, data_set.draws, strict=True)]
    groups = clean, *_changed(detector, data_set, clean, config)
    everything = [trial for group in groups for trial in group]
    found = iter(judge(detector, everything, images.joinpath, settings, advance))
    boxes, blurred, shifted = ([(trial.truth, next(found)) for trial in group] for group in groups)
    alarms = scores_on(detector, banks, data_set.good, settings) if data_set.good else []
    own = [_judged(*each, "bbox") for each in boxes]
    return ModelFigures(
        boxes=plain_figure(own),
        masks=plain_figure([_judged(*each, "segm") for each in boxes]),
        resampled=resampled_figures(own, config.promote.resamples, zlib.crc32(data_set.name.encode())),
        blurred=_changed_figure(blurred),
        shifted=_changed_figure(shifted),
        alarms=_alarms(alarms, settings.alarm_score),
    )


def _without(annotations: Annotations, known: Mapping[str, bool]) -> Annotations:
    """Only the classes that are not known, and the images that show one of them."""
    kept = [category.id for category in annotations.categories if not known.get(category.name, True)]
    narrowed = annotations.keep_categories(kept)
    return narrowed.keep_images({instance.image_id for instance in narrowed.instances})


def _changed(
    detector: UniSpector, data_set: ComparisonSet, clean: Sequence[Trial], config: Config
) -> tuple[list[Trial], list[Trial]]:
    """Trials with blurred prompt images, and with inexact prompt boxes."""
    rules = config.promote
    levels = config.sweep.model_copy(
        update={"blur": (rules.blur,), "box_iou": (rules.box_iou,), "box_trials": rules.box_trials}
    )
    blurred, shifted = [], []
    for draw, trial in zip(data_set.draws, clean, strict=True):
        if not data_set.changed or draw.seed not in config.sweep.prompt_seeds:
            continue
        conditions = changed_prompts(
            detector, draw.prompts, data_set.images, draw.seed, levels, config.evaluate.batch_size
        )
        blurred += [Trial(bank, trial.truth) for bank in _at(conditions, "prompt_blur", rules.blur)]
        shifted += [Trial(bank, trial.truth) for bank in _at(conditions, "prompt_box_iou", rules.box_iou)]
    return blurred, shifted


def _at(conditions: Sequence[PromptCondition], sweep: str, level: float) -> list[PromptBank]:
    """The banks of one level of one change."""
    wanted = (sweep, level)
    return [
        each.bank for each in conditions if wanted in {(place.sweep, place.level) for place in each.places}
    ]


def _judged(truth: GroundTruth, found: Mapping[int, Overlaps], kind: Kind) -> JudgedDraw:
    matches = match(truth, found, kind)
    files = tuple(truth.image(number).file_name for number in matches.images.tolist())
    return JudgedDraw(files, matches)


def _changed_figure(trials: Sequence[tuple[GroundTruth, Mapping[int, Overlaps]]]) -> float | None:
    return plain_figure([_judged(*each, "bbox") for each in trials]) if trials else None


def _alarms(scores: Sequence[Sequence[npt.NDArray[np.float32]]], least: float) -> float | None:
    """Mean over draws of prompts and defect-free images; None without any."""
    counts = [np.count_nonzero(own >= least) for of_draw in scores for own in of_draw]
    return float(np.mean(counts)) if counts else None


def _set_comparison(
    data_set: ComparisonSet, new: ModelFigures, old: ModelFigures, level: float
) -> SetComparison:
    def optional(name: str) -> Pair | None:
        mine, theirs = getattr(new, name), getattr(old, name)
        return None if mine is None else Pair(mine, theirs)

    return SetComparison(
        name=data_set.name,
        classes=data_set.classes,
        trained=data_set.trained,
        boxes=Pair(new.boxes, old.boxes),
        masks=Pair(new.masks, old.masks),
        interval=paired_interval([new.resampled], [old.resampled], level),
        blurred=optional("blurred"),
        shifted=optional("shifted"),
        alarms=optional("alarms"),
    )
