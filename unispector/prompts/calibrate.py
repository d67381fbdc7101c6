"""`unispector prompts calibrate`: what a bank's scores mean on one line, and from which score findings count.

Marked images say which findings are right, each looked at with prompts from the others; good images say how
often nothing is there and something is found.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from unispector.data.coco import Annotations
from unispector.detections import Detections
from unispector.errors import DataError
from unispector.evaluation.budget import FEWEST, images_needed, lowest_threshold, provable_rate
from unispector.evaluation.ground_truth import GroundTruth
from unispector.evaluation.matching import match
from unispector.inference.calibration import SURE, AlarmBudget, Calibration
from unispector.inference.detector import UniSpector
from unispector.inference.prompt_bank import PromptBank
from unispector.project.columns import columns
from unispector.project.progress import progress_bar
from unispector.prompts.bank import find_bank
from unispector.prompts.store import PromptStore

COUNTED = 0.01  # score from which on a finding says something; there are many below
SAME_MARKS = 0.01  # distance of two means of the same marks relative to their length, at most
ENOUGH = 5  # right findings, and wrong ones, that a calibration needs

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Budget:
    """False alarms that are allowed."""

    rate: float  # share of good images that may show one of a class, in (0, 1)
    confidence: float = 0.95  # that the true share is no larger, in (0, 1)

    def refusal(self, good_images: int) -> str:
        """Why so many good images cannot prove it; empty where they can."""
        needed = images_needed(self.rate, self.confidence)
        if good_images >= needed:
            return ""
        few = f"{good_images} good images cannot prove that at most {odds(self.rate)} raises a false alarm"
        can = odds(provable_rate(max(good_images, 1), self.confidence))
        rest = f", {good_images} can prove {can}" if good_images >= FEWEST else ""
        return f"{few} ({self.confidence:.0%} sure): {needed} are needed{rest}"

    def check(self, good_images: int) -> None:
        """Raise a DataError where so many good images cannot prove it."""
        if refusal := self.refusal(good_images):
            raise DataError(refusal)


def odds(rate: float) -> str:
    """A rate as people say it, never smaller than it is: `1 in 200`."""
    return f"1 in {_one_in(rate)}"


def provable_odds(good_images: int) -> int:
    """N of the smallest rate, one in N, that so many good images can prove; 0 = too few for any."""
    return _one_in(provable_rate(good_images, Budget.confidence)) if good_images >= FEWEST else 0


def _one_in(rate: float) -> int:
    return max(math.floor(1 / rate + 1e-9), 1)


@dataclass(frozen=True)
class Marked:
    """Annotated images."""

    annotations: Annotations
    root: Path  # folder that their names are relative to
    roi: Literal["box", "mask"]  # part of an instance that is the prompt


@dataclass(frozen=True)
class Findings:
    """The findings of one class behind a calibration."""

    scores: Floats  # [n] on marked images, as the model gives them, at least `COUNTED`
    right: npt.NDArray[np.bool_]  # [n]
    marks: Floats  # [m] score of the finding of each marked defect; 0 = missed
    good: tuple[Floats, ...]  # scores of all findings on each good image, at least `COUNTED`


def calibrate(
    detector: UniSpector,
    bank: PromptBank,
    marked: Marked,
    good: Sequence[Path],
    budget: Budget,
) -> PromptBank:
    """Calibrate every class of a bank.

    Args:
        bank: its negatives count; calibrations that it has are replaced.
        marked: the images that the bank was made of, each looked at with prompts from the others. On them
            every defect of the bank's classes must be marked.
        good: images without a defect.
        budget: false alarms that each class may raise.

    Returns:
        The bank with thresholds and, of classes with enough findings, calibrated scores.

    Raises:
        DataError: too few good images for the budget, a class without two marked images, marks that the bank
            was not made of, or an image that cannot be used.
        PromptBankError: the bank is another model's.
    """
    budget.check(len(good))
    bank = bank.calibrated(dict.fromkeys(bank.class_names, Calibration()))
    found = collect(detector, bank, marked, good)
    return bank.calibrated({name: calibration_of(own, budget) for name, own in found.items()})


def calibrate_kept(
    detector: UniSpector, prompts: Path, marked: Marked | None, good: Sequence[Path], budget: Budget, by: str
) -> PromptBank:
    """Calibrate the prompts in a file or a store, and keep what was learned there.

    Args:
        prompts: file of a prompt bank, which is rewritten; or folder of a prompt store, which gets a version.
        marked: the images that the file was made of; None of a store, which has them.
        by: who calibrates, for the store's history.

    Raises:
        DataError: see `calibrate`; or images given with a store, or none with a file.
        PromptBankError: the prompts are damaged, another model's, or cannot be written.
    """
    store = PromptStore(prompts) if prompts.is_dir() else None
    now = store.current() if store is not None else None
    bank = find_bank(prompts, detector)
    if store is None or now is None:
        if marked is None:
            raise DataError(f"{prompts}: a bank has no images any more; give --annotations and --images")
        told = calibrate(detector, bank, marked, good, budget)
        told.save(prompts)
        return told
    if marked is not None:
        raise DataError(f"{prompts}: a prompt store has its images; leave out --annotations and --images")
    told = calibrate(detector, bank, Marked(store.annotations(now), store.images, "mask"), good, budget)
    note = f"calibrated with {len(good)} good images, at most {odds(budget.rate)}"
    store.calibrate(told, by, note, {"model": detector.fingerprint}, now.version)
    return told


def calibration_lines(bank: PromptBank) -> list[str]:
    """What a calibrated bank's scores and thresholds promise, a line a class, aligned."""
    rows = [("class", "counts from", "false alarms", "true rate", "finds", "scores")]
    for name, own in zip(bank.class_names, bank.calibrations, strict=True):
        alarms = rate = "not measured"
        if own.budget is not None:
            alarms = f"{own.budget.alarms} of {own.budget.good_images}"
            rate = f"{own.budget.low:.2%} to {own.budget.high:.2%}"
        scores = f"as found ({own.right} right, {own.wrong} wrong; {ENOUGH} of each are needed)"
        if not own.as_found:
            scores = f"calibrated ({own.right} right, {own.wrong} wrong)"
        rows.append((name, f"{own.threshold:.3f}", alarms, rate, f"{own.found} of {own.marks} marks", scores))
    return columns(rows)


def collect(
    detector: UniSpector,
    bank: PromptBank,
    marked: Marked,
    good: Sequence[Path],
) -> dict[str, Findings]:
    """The findings of each class of a bank that is not calibrated, on marked and on good images.

    Raises:
        DataError: a class without two marked images, marks that the bank was not made of, or an image that
            cannot be used.
        PromptBankError: the bank is another model's.
    """
    annotations = _of_classes(marked.annotations, bank.class_names)
    truth = GroundTruth(annotations)
    seen = dict(zip(bank.class_names, bank.views, strict=True))
    views = [seen[name] for name in annotations.class_names]
    instances = detector.encode_instances(
        annotations, marked.root, marked.roi, tile=views, bit_depth=bank.bit_depth
    )
    _check_made_of(bank, instances.bank())
    overlaps, alarms = {}, list[Detections]()
    with progress_bar("calibrate") as show:
        for number, image in enumerate(annotations.images, start=1):
            others = {mark.id for mark in annotations.instances if mark.image_id != image.id}
            rest = instances.only(others).bank()
            if bank.negatives:
                owners = [rest.class_names.index(bank.class_names[owner]) for owner in bank.negative_owners]
                rest = rest.opposed_by(bank.negatives, owners)
            found = detector.stream([marked.root / image.file_name], rest)
            overlaps[image.id] = truth.overlaps(image.id, next(found))
            show(number, len(annotations.images) + len(good))
        for found_there in detector.stream(good, bank):
            alarms.append(found_there)
            show(len(annotations.images) + len(alarms), len(annotations.images) + len(good))
    matches = match(truth, overlaps, "bbox")
    classes = {}
    for row, name in enumerate(truth.class_names):
        own = (matches.classes == row) & (matches.scores >= COUNTED) & ~matches.ignored
        label = bank.class_names.index(name)
        false = (each.above(COUNTED) for each in alarms)
        classes[name] = Findings(
            scores=matches.scores[own],
            right=matches.instance[own] >= 0,
            marks=matches.truth_score[matches.truth_classes == row].clip(min=0),
            good=tuple(each.scores[each.labels == label].double().numpy() for each in false),
        )
    return classes


def calibration_of(found: Findings, budget: Budget) -> Calibration:
    """Slope, offset and threshold of one class.

    Raises:
        DataError: too few good images for the budget.
    """
    scores = np.concatenate((found.scores, *found.good))
    hits = np.concatenate((found.right, np.zeros(len(scores) - len(found.right), dtype=np.bool_)))
    right, wrong = int(hits.sum()), int((~hits).sum())
    slope, offset = fit(scores, hits) if min(right, wrong) >= ENOUGH else (1.0, 0.0)
    fitted = Calibration(slope, offset, right, wrong)
    highest = np.array([own.max(initial=0) for own in found.good])
    good, marks = (fitted.apply(torch.tensor(own).float()).numpy() for own in (highest, found.marks))
    bound = lowest_threshold(np.where(highest > 0, good, 0), budget.rate, budget.confidence)
    if bound is None:
        raise DataError(budget.refusal(len(good)))
    return replace(
        fitted,
        threshold=bound.threshold,
        budget=AlarmBudget(budget.rate, budget.confidence, len(good), bound.alarms, bound.low, bound.high),
        marks=len(marks),
        found=int(np.count_nonzero((found.marks > 0) & (marks >= np.float32(bound.threshold)))),
    )


def fit(scores: Floats, right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset that make scores the probability of being right.

    A logistic regression on the scores' logits (Platt, "Probabilistic outputs for support vector machines",
    1999, with his targets, which keep few findings from a steep slope); the slope stays above 0.05, so that
    the order of findings stays.

    Args:
        scores: [n] in [0, 1].
        right: [n], some right and some wrong.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logit

    hits = int(right.sum())
    targets = np.where(right, (hits + 1) / (hits + 2), 1 / (len(right) - hits + 2))
    logits = logit(scores.clip(SURE, 1 - SURE))

    def loss(parameters: Floats) -> tuple[float, Floats]:
        moved = parameters[0] * logits + parameters[1]
        error = expit(moved) - targets
        value = np.logaddexp(0, moved) - targets * moved
        return float(value.mean()), np.array([(error * logits).mean(), error.mean()])

    start = np.array([1.0, 0.0])
    found = minimize(loss, start, jac=True, bounds=[(0.05, None), (None, None)], method="L-BFGS-B")
    return float(found.x[0]), float(found.x[1])


def _check_made_of(bank: PromptBank, marked: PromptBank) -> None:
    """Refuse marks whose mean is not the bank's, but for the rounding of another device."""
    own = bank.select(marked.class_names).embeddings
    away = (own - marked.embeddings).norm(dim=1) > SAME_MARKS * own.norm(dim=1)
    if away.any():
        name = marked.class_names[int(away.int().argmax())]
        raise DataError(
            f"class '{name}' of the bank was made of other marks; give the annotations, the images and the "
            "--roi that it was built with"
        )


def _of_classes(annotations: Annotations, names: Sequence[str]) -> Annotations:
    """Marks of some classes, and the images that show them.

    Raises:
        DataError: a class has no two marked images.
    """
    own = annotations.keep_categories(
        {category.id for category in annotations.categories if category.name in names}
    )
    images: dict[str, set[int]] = {name: set() for name in names}
    for mark in own.instances:
        if not mark.iscrowd:
            images[own.class_names[own.class_index[mark.category_id]]].add(mark.image_id)
    if few := [name for name in names if len(images[name]) < 2]:
        raise DataError(
            f"class '{few[0]}' has {len(images[few[0]])} marked image(s); mark at least 2, since each is "
            "looked at with prompts from the others"
        )
    return own.keep_images(set().union(*images.values()))
