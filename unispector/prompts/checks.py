"""What the marked images of a class are worth to one another: each is looked at with the others' prompts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor
from torch.nn.functional import cosine_similarity

from unispector.config import Roi
from unispector.data.coco import InstanceRecord
from unispector.data.prompt_changes import blurred, with_shifted_boxes
from unispector.errors import DataError
from unispector.evaluation.intervals import Interval, resampled
from unispector.inference.detector import UniSpector
from unispector.inference.instance_embeddings import InstanceEmbeddings
from unispector.inference.prompt_bank import PromptBank
from unispector.prompts.figures import (
    ClassFigures,
    CurvePoint,
    Gain,
    ImageCheck,
    ImageFigures,
    MarkCheck,
    Share,
)
from unispector.prompts.trials import PLAIN, MarkedClass, Outcome, Trial, best_on, corners
from unispector.scores import DEFAULT_SCORE

WEIGHED = 16
"""Of more images than this, so many are drawn to try what each is worth: that grows with their square."""

LOOKED = 8
"""Other images that single prompts are tried on, at most."""

COUNTS = (1, 2, 3, 5, 8, 12)
ORDERS = 4
"""Numbers of prompt images that are tried, and random orders in which the images come."""

BOX_IOU, BLUR = 0.7, 2.0
"""Overlap of a shifted box with the one drawn; blur of a prompt image, sigma in pixels."""

RESAMPLES, DOUBT = 2000, 0.05
"""Of the images, behind an interval; chance of a wrong call of a class, shared by all that is tried on it."""

SHIFTED, BLURRED, OTHER = "shifted boxes", "blurred", "other marks"


@dataclass(frozen=True)
class CheckSettings:
    """How marked images are tried."""

    roi: Roi = "box"
    score: float = DEFAULT_SCORE  # lowest of a finding of the class that counts
    changes: bool = True  # try single prompts with shifted boxes and blurred images, too
    curve: bool = True  # try fewer prompts
    seed: int = 0  # of all draws


# Other classes' prompts, for an image of this id; None = no other class.
Rivals = Callable[[int], PromptBank | None]


def check_class(
    detector: UniSpector,
    marked: MarkedClass,
    plain: InstanceEmbeddings,
    rivals: Rivals,
    settings: CheckSettings,
    progress: Callable[[int, int], None],
) -> ClassFigures:
    """Try a class's marked images on one another.

    Args:
        marked: where it has a base, single images are not tried alone, as the base finds marks too.
        plain: all its marks, encoded as the settings' kind.
        progress: gets the trials done and in all.

    Raises:
        DataError: an image is unusable.
        PromptBankError: a bank is another model's.
    """
    plan = _Plan(marked, settings)
    instances = {PLAIN: plain, **_changed(detector, marked, settings, plan, plain.bit_depth)}
    trials = [trial for trial in dict.fromkeys(plan.trials()) if trial.kind in instances]
    done = 0

    def moved(count: int) -> None:
        nonlocal done
        done += count
        progress(done, len(trials))

    outcomes = marked.try_all(detector, instances, trials, moved)
    figures = _Figures(marked, plan, outcomes, settings)
    cosines = _cosines(marked, plain)
    images = {
        image.file_name: figures.image(image.id, _rival_scores(detector, marked, image.id, rivals), cosines)
        for image in marked.annotations.images
    }
    return ClassFigures(
        label=marked.label,
        roi=settings.roi,
        images=images,
        score=settings.score,
        ap50=figures.ap50(),
        curve=figures.curve(),
        other_roi=figures.other_roi(),
        weighed=len(plan.weighed),
    )


class _Plan:
    """Which trials are to be made."""

    def __init__(self, marked: MarkedClass, settings: CheckSettings) -> None:
        self.ids = [image.id for image in marked.annotations.images]
        rng = np.random.default_rng([settings.seed, *marked.label.encode()])
        self.weighed = sorted(int(n) for n in rng.permutation(self.ids)[:WEIGHED])
        self.lone = marked.base is None and len(self.ids) > 1
        self.looked = {
            own: [int(n) for n in rng.permutation([n for n in self.weighed if n != own])[:LOOKED]]
            for own in self.weighed
        }
        counts = [count for count in COUNTS if count < len(self.ids) - 1]
        self.counts = [*counts, len(self.ids) - 1] if self.lone and settings.curve else []
        orders = [[int(n) for n in rng.permutation(self.ids)] for _ in range(ORDERS)]
        self.curve = {
            (count, number): {own: self.choice(order, own, count) for own in self.weighed}
            for count in self.counts
            for number, order in enumerate(orders)
        }
        self._changes = settings.changes

    def without(self, own: int, *left: int) -> Trial:
        """An image looked at with all others, or with fewer."""
        return Trial(frozenset(self.ids) - {own, *left}, own)

    @staticmethod
    def choice(order: Sequence[int], own: int, count: int) -> Trial:
        """An image looked at with the first images of an order, itself left out."""
        return Trial(frozenset([other for other in order if other != own][:count]), own)

    def trials(self) -> Iterator[Trial]:
        """All trials; some come twice."""
        for own in self.ids:
            yield self.without(own)
            yield Trial(self.without(own).prompts, own, OTHER)
        for own in self.weighed if len(self.ids) > 2 else ():
            yield from (self.without(own, left) for left in self.weighed if left != own)
        for own in self.weighed if self.lone else ():
            yield Trial(frozenset({own}), own)
            for kind in (PLAIN, SHIFTED, BLURRED) if self._changes else (PLAIN,):
                yield from (Trial(frozenset({own}), target, kind) for target in self.looked[own])
        for choices in self.curve.values():
            yield from choices.values()


def _changed(
    detector: UniSpector, marked: MarkedClass, settings: CheckSettings, plan: _Plan, bit_depth: int
) -> dict[str, InstanceEmbeddings]:
    """The marks, changed, by kind of prompt; kinds that cannot be made are left out."""
    encode = partial(detector.encode_instances, root=marked.root, bit_depth=bit_depth)
    kinds: dict[str, InstanceEmbeddings] = {}
    if any(mark.outlined for mark in marked.annotations.instances):
        kinds[OTHER] = encode(marked.annotations, roi="mask" if settings.roi == "box" else "box")
    if settings.changes and plan.lone:
        some = marked.annotations.keep_images(plan.weighed)
        kinds[BLURRED] = encode(some, roi=settings.roi, change=partial(blurred, sigma=BLUR))
        with suppress(DataError):  # a mark of a pixel in an image of a few has no other box
            kinds[SHIFTED] = encode(with_shifted_boxes(some, BOX_IOU, settings.seed, 0), roi="box")
    return kinds


class _Figures:
    """What the outcomes of the trials say."""

    def __init__(
        self,
        marked: MarkedClass,
        plan: _Plan,
        outcomes: Mapping[Trial, Outcome],
        settings: CheckSettings,
    ) -> None:
        self._marked, self._plan, self._outcomes, self._settings = marked, plan, outcomes, settings

    def image(
        self, own: int, rivals: Mapping[int, tuple[str, float]], cosines: Mapping[int, float]
    ) -> ImageFigures:
        """All figures of an image."""
        plan = self._plan
        weighed = plan.lone and own in plan.weighed
        alone = partial(self._alone, own) if weighed else lambda _: None
        return ImageFigures(
            check=self._check(own, rivals),
            dropped=self._dropped(own) if own in plan.weighed and len(plan.ids) > 2 else None,
            alone=alone(PLAIN),
            shifted=alone(SHIFTED),
            blurred=alone(BLURRED),
            given_back=self._share([Trial(frozenset({own}), own)]) if weighed else None,
            cosine=cosines.get(own),
        )

    def ap50(self) -> float | None:
        """AP50, each image looked at with the others' prompts."""
        found = self._of({own: self._plan.without(own) for own in self._plan.ids})
        return float(self._marked.average_precision(found)[0]) if found else None

    def curve(self) -> tuple[CurvePoint, ...]:
        """AP50 over the number of prompt images."""
        points = []
        for count in self._plan.counts:
            choices = [choice for (of, _), choice in self._plan.curve.items() if of == count]
            figures = [float(self._marked.average_precision(self._of(choice))[0]) for choice in choices]
            points.append(CurvePoint(count, float(np.mean(figures)), float(np.std(figures))))
        return tuple(points)

    def other_roi(self) -> Gain | None:
        """What the other kind of marks brings."""
        plain = {own: self._plan.without(own) for own in self._plan.ids}
        other = {own: Trial(trial.prompts, own, OTHER) for own, trial in plain.items()}
        return self._gain(plain, other, DOUBT)

    def _dropped(self, own: int) -> Gain | None:
        others = [other for other in self._plan.weighed if other != own]
        return self._gain(
            {other: self._plan.without(other) for other in others},
            {other: self._plan.without(other, own) for other in others},
            DOUBT / len(self._plan.weighed),
        )

    def _gain(self, before: Mapping[int, Trial], after: Mapping[int, Trial], doubt: float) -> Gain | None:
        """The paired bootstrap over the images that both were tried on; None without two of them."""
        first, second = self._of(before), self._of(after)
        shared = first.keys() & second.keys()
        if len(shared) < 2:
            return None
        weights = resampled(len(shared), RESAMPLES, self._settings.seed)
        weights = np.concatenate([np.ones((1, len(shared)), dtype=np.int64), weights])
        with_, without = (
            self._marked.average_precision({own: found[own] for own in shared}, weights)
            for found in (first, second)
        )
        return Gain(float(with_[0]), float(without[0]), Interval.of(without[1:] - with_[1:], 1 - 2 * doubt))

    def _alone(self, own: int, kind: str) -> Share | None:
        return self._share([Trial(frozenset({own}), target, kind) for target in self._plan.looked[own]])

    def _share(self, trials: Sequence[Trial]) -> Share | None:
        """Marks found in these trials; None where none was made."""
        found = [self._outcomes[trial] for trial in trials if trial in self._outcomes]
        hits = sum(outcome.found(self._settings.score) for outcome in found)
        return Share(hits, sum(len(outcome.scores) for outcome in found)) if found else None

    def _of(self, trials: Mapping[int, Trial]) -> dict[int, Outcome]:
        return {own: self._outcomes[trial] for own, trial in trials.items() if trial in self._outcomes}

    def _check(self, own: int, rivals: Mapping[int, tuple[str, float]]) -> ImageCheck | None:
        outcome = self._outcomes.get(self._plan.without(own))
        if outcome is None:
            return None
        least = self._settings.score
        marks = tuple(
            MarkCheck(
                mark.id, corners(mark), score, *rivals.get(mark.id, ("", 0.0)), least, _inner(mark, outcome)
            )
            for mark, score in zip(self._marked.marks(own), outcome.scores, strict=True)
        )
        name = self._marked.truth.image(own).file_name
        return ImageCheck(name, marks, outcome.detections.above(least))


def _inner(mark: InstanceRecord, outcome: Outcome) -> float:
    """See `MarkCheck.inner_score`."""
    left, top, right, bottom = corners(mark)
    boxes = outcome.detections.boxes_xyxy.double().numpy()
    low, high = np.maximum(boxes[:, :2], [left, top]), np.minimum(boxes[:, 2:], [right, bottom])
    shared, own = (high - low).clip(0).prod(1), (boxes[:, 2:] - boxes[:, :2]).prod(1)
    inside = (shared >= 0.9 * own) & (own < 0.5 * (right - left) * (bottom - top))
    scores = outcome.detections.scores.double().numpy()[inside]
    return float(scores.max(initial=0.0))


def _rival_scores(
    detector: UniSpector, marked: MarkedClass, image_id: int, rivals: Rivals
) -> dict[int, tuple[str, float]]:
    """Of each mark of an image, the other class that scores best there, and its score, if it is drawn."""
    bank = rivals(image_id)
    if bank is None:
        return {}
    path = marked.root / marked.truth.image(image_id).file_name
    (found,) = detector.detect([path], bank)
    least = dict(zip(bank.class_names, bank.thresholds, strict=True))
    scores = {}
    for mark in marked.marks(image_id):
        best = {name: score for name, score in best_on(mark, found).items() if score >= least[name]}
        if best:
            name = max(best, key=best.__getitem__)
            scores[mark.id] = (name, best[name])
    return scores


def _cosines(marked: MarkedClass, instances: InstanceEmbeddings) -> dict[int, float]:
    """Image id -> cosine of the mean embedding of its marks with that of all other images' marks."""
    owner = {mark.id: mark.image_id for mark in marked.annotations.instances}
    owners = np.array([owner[number] for number in instances.instance_ids])
    embeddings: Tensor = instances.encoded.embeddings
    cosines = {}
    for own in sorted(set(owners.tolist())) if len(set(owners.tolist())) > 1 else ():
        mine = embeddings[(owners == own).nonzero()[0]].mean(0)
        others = embeddings[(owners != own).nonzero()[0]].mean(0)
        cosines[own] = float(cosine_similarity(mine, others, dim=0))
    return cosines
