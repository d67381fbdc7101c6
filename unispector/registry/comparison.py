"""Two trainings measured on the same prompts and targets, model by model.

A split seed decides which classes are unseen and all that is random in a training, so models are compared
in pairs of the same seed.
"""

import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unispector.benchmark.conditions import PromptCondition, changed_prompts
from unispector.benchmark.judge import Trial, advance, judge, read_pair, scores_on, share_bar
from unispector.benchmark.plan import Evaluation
from unispector.config import Config, PromoteConfig
from unispector.data.coco import Annotations
from unispector.data.combine import with_prompts
from unispector.data.defect_free import defect_free_for_tests
from unispector.evaluation.ground_truth import GroundTruth, Kind, Overlaps
from unispector.evaluation.intervals import Interval
from unispector.evaluation.matching import known_mean, match
from unispector.evaluation.paired import JudgedDraw, paired_interval, plain_figure, resampled_figures
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.registry.rules import Comparison, Pair, SeedComparison, SetComparison


@dataclass(frozen=True)
class ModelPair:
    """A model of each training, of one split seed."""

    seed: int
    challenger: Path
    champion: Path
    evaluations: tuple[Evaluation, ...]  # on unseen classes of the split seed
    # Classes that either was trained on, `<set>/<class>` as in the training files; they are neither prompted
    # nor looked for.
    trained: frozenset[str]


@dataclass(frozen=True)
class SetDraw:
    """One draw of prompts of a set, and its targets."""

    seed: int
    # Of classes that neither model was trained on.
    prompts: Annotations
    targets: Annotations


@dataclass(frozen=True)
class ComparisonSet:
    """One set on which both models of a pair are measured."""

    name: str
    images: Path
    draws: tuple[SetDraw, ...]  # at least one
    classes: tuple[str, ...]  # that are prompted and looked for
    trained: tuple[str, ...]  # unseen classes of the set that a model was trained on, left out
    changed: bool  # whether prompts are changed here too
    good: tuple[Path, ...]

    @property
    def files(self) -> set[str]:
        """Names of the targets, over all draws."""
        return {image.file_name for draw in self.draws for image in draw.targets.images}


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


@dataclass(frozen=True)
class MeasuredSet:
    """Both models of a pair on one set."""

    seed: int
    name: str
    classes: tuple[str, ...]
    trained: tuple[str, ...]
    challenger: ModelFigures
    champion: ModelFigures


def compare_models(pairs: Sequence[ModelPair], config: Config) -> Comparison:
    """Measure both models of every pair on every set, one model at a time.

    Raises:
        CheckpointError: a model cannot be loaded.
        DataError: a file of the splits or an image is unusable.
    """
    fair = [(pair, fair_set(each, pair.trained, config)) for pair in pairs for each in pair.evaluations]
    todo = [(pair, data_set) for pair, data_set in fair if data_set is not None]
    if not any(data_set.changed for _, data_set in todo):
        # The sets that sweeps are made on have no class that is new to both.
        todo = [(pair, replace(data_set, changed=True)) for pair, data_set in todo]
    files: dict[str, set[str]] = {}
    for _, data_set in todo:
        files.setdefault(data_set.name, set()).update(data_set.files)
    measured: list[MeasuredSet] = []
    with share_bar(2 * len(todo)) as bar:
        for pair in pairs:
            own = [data_set for other, data_set in todo if other is pair]
            sides: list[list[ModelFigures]] = [[], []]
            for name, directory, side in zip(
                ("challenger", "champion"), (pair.challenger, pair.champion), sides, strict=True
            ):
                detector = UniSpector.load(directory)
                for data_set in own:
                    bar.set_description(f"{name}, seed {pair.seed}, {data_set.name}")
                    images = files[data_set.name]
                    side.append(measure(detector, data_set, images, config, advance(bar)))
            measured += [
                MeasuredSet(pair.seed, data_set.name, data_set.classes, data_set.trained, new, old)
                for data_set, new, old in zip(own, *sides, strict=True)
            ]
    names = dict.fromkeys(each.set_name for pair in pairs for each in pair.evaluations)
    return summarised(measured, tuple(name for name in names if name not in files), config.promote)


def summarised(
    measured: Sequence[MeasuredSet], left_out: tuple[str, ...], criteria: PromoteConfig
) -> Comparison:
    """The means over pairs of models, and how sure they are.

    Args:
        measured: of each pair, in the same order, the sets with a class left.
        left_out: names of sets without one.
    """
    if not measured:
        return Comparison((), Interval(0.0, 0.0), left_out)
    by_set: dict[str, list[MeasuredSet]] = {}
    by_seed: dict[int, list[MeasuredSet]] = {}
    for each in measured:
        by_set.setdefault(each.name, []).append(each)
        by_seed.setdefault(each.seed, []).append(each)
    seeds = tuple(SeedComparison(seed, _mean(own, "boxes")) for seed, own in by_seed.items())
    luck = _luck([each.boxes.change for each in seeds], criteria.seed_spread)
    new, old = (
        [known_mean([getattr(each, side).resampled for each in own]) for own in by_set.values()]
        for side in ("challenger", "champion")
    )
    sets = tuple(
        _set_comparison(own, paired_interval([mine], [theirs], criteria.level))
        for own, mine, theirs in zip(by_set.values(), new, old, strict=True)
    )
    interval = paired_interval(new, old, criteria.level, luck)
    return Comparison(sets, interval, left_out, seeds, luck)


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
        changed=not config.sweep.sets or name in config.sweep.of(config.data.sets),
        good=tuple(evaluation.images / file for file in good),
    )


def measure(
    detector: UniSpector,
    data_set: ComparisonSet,
    files: Collection[str],
    config: Config,
    advance: Callable[[float], object],
) -> ModelFigures:
    """Measure a model on a set; every target is encoded once for all prompts.

    Args:
        files: names of all images of the set that are resampled, for all pairs of models alike.
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
        resampled=resampled_figures(
            own, tuple(files), config.promote.resamples, zlib.crc32(data_set.name.encode())
        ),
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


def _luck(changes: Sequence[float], least: float) -> float:
    """Standard deviation of the mean of changes by the luck of training, in points.

    A few changes say little about it, and one says nothing: it is never taken for less than `least` a pair.
    """
    seen = float(np.std(changes, ddof=1)) if len(changes) > 1 else 0.0
    return max(least, seen) / float(np.sqrt(len(changes)))


def _mean(measured: Sequence[MeasuredSet], figure: str) -> Pair:
    """The mean of a figure that all have."""
    sides = (
        [getattr(getattr(each, side), figure) for each in measured] for side in ("challenger", "champion")
    )
    return Pair(*(float(np.mean(values)) for values in sides))


def _set_comparison(measured: Sequence[MeasuredSet], interval: Interval) -> SetComparison:
    """One set, the mean over the pairs of models that were measured on it."""

    def optional(figure: str) -> Pair | None:
        known = [each for each in measured if getattr(each.challenger, figure) is not None]
        return _mean(known, figure) if known else None

    classes = dict.fromkeys(name for each in measured for name in each.classes)
    trained = dict.fromkeys(name for each in measured for name in each.trained if name not in classes)
    return SetComparison(
        name=measured[0].name,
        classes=tuple(classes),
        trained=tuple(trained),
        boxes=_mean(measured, "boxes"),
        masks=_mean(measured, "masks"),
        interval=interval,
        blurred=optional("blurred"),
        shifted=optional("shifted"),
        alarms=optional("alarms"),
    )
