"""The promotion rules: figures of both models in, a decision with its reasons out."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from unispector.config import PromoteConfig
from unispector.evaluation.intervals import Interval
from unispector.reporting.model import Block, Bullets, Report, Section, Table, Text, coded
from unispector.reporting.render import markdown

Figure = Callable[["SetComparison"], "Pair | None"]
Judge = Callable[["Comparison"], tuple[bool, str]]

_ROUNDING = 1e-9  # a figure that is off a limit by less than this lies on it


@dataclass(frozen=True)
class Pair:
    """A figure of both models."""

    challenger: float
    champion: float

    @property
    def change(self) -> float:
        """The challenger's gain."""
        return self.challenger - self.champion


@dataclass(frozen=True)
class SeedComparison:
    """A pair of models, of one training each and of the same split seed."""

    seed: int
    boxes: Pair  # AP50 in percent, the mean over the sets that have a class neither was trained on


@dataclass(frozen=True)
class SetComparison:
    """Both trainings on one set, with the same prompts and targets: means over the pairs of models."""

    name: str
    classes: tuple[str, ...]  # those that were prompted and looked for: neither model was trained on them
    trained: tuple[str, ...]  # the other unseen classes, which were left out
    # AP50 in percent, the mean over draws of prompts.
    boxes: Pair
    masks: Pair
    interval: Interval  # paired bootstrap interval of the change of `boxes` on other images, in points
    # AP50 of boxes with blurred prompt images and with inexact prompt boxes; None where that was not
    # measured.
    blurred: Pair | None
    shifted: Pair | None
    alarms: Pair | None  # detections per defect-free image; None where the set has no such images


@dataclass(frozen=True)
class Comparison:
    """Both trainings on all sets."""

    sets: tuple[SetComparison, ...]  # those that have a class neither model of a pair was trained on
    # Paired bootstrap interval of the change of the mean over `sets` of AP50 of boxes, in points, on other
    # images and with other trainings; 0 to 0 where there is no set.
    interval: Interval
    left_out: tuple[str, ...]  # names of the other sets
    seeds: tuple[SeedComparison, ...] = ()  # the pairs; none in decisions from before there were several
    luck: float = 0.0  # standard deviation of the mean change by the luck of training, in points

    def mean(self, figure: Figure) -> Pair | None:
        """Unweighted mean of a figure over the sets that have it; None without any."""
        pairs = [pair for member in self.sets if (pair := figure(member)) is not None]
        if not pairs:
            return None
        challenger, champion = ([getattr(p, name) for p in pairs] for name in ("challenger", "champion"))
        return Pair(float(np.mean(challenger)), float(np.mean(champion)))


@dataclass(frozen=True)
class RuleOutcome:
    """One rule."""

    name: str
    passed: bool
    figure: str  # what was measured, in words and numbers
    limit: str


@dataclass(frozen=True)
class Decision:
    """The decision on a challenger, and its reasons."""

    # Version numbers; champion None where there was none.
    challenger: int
    champion: int | None
    fingerprint: str
    key: str  # of all else that the decision depends on: champion, rules, data
    time: str  # when it was made, ISO 8601 in UTC
    automatic: bool  # whether passing is enough to become champion
    rules: tuple[RuleOutcome, ...]
    comparison: Comparison | None  # the figures; None where they were not taken

    @property
    def passed(self) -> bool:
        """Every rule holds."""
        return all(rule.passed for rule in self.rules)

    @property
    def promoted(self) -> bool:
        """The challenger becomes champion by the rules alone."""
        return self.passed and self.automatic

    @property
    def broken(self) -> tuple[RuleOutcome, ...]:
        """The rules that do not hold."""
        return tuple(rule for rule in self.rules if not rule.passed)

    @property
    def summary(self) -> str:
        """The decision and its reason in one sentence."""
        version, before = f"Version {self.challenger}", self.champion
        if not self.passed:
            names = ", ".join(rule.name for rule in self.broken)
            stays = f"version {before} stays champion" if before is not None else "there is still no champion"
            count = f"{len(self.broken)} of {len(self.rules)} rules"
            return f"{version} is refused and {stays}: {count} not met ({names})."
        why = f"all {len(self.rules)} rules are met"
        if before is None:
            why = f"there is no champion to compare it with, and {why}"
        if not self.automatic:
            wait = f"it waits for `unispector registry approve {self.challenger}`"
            return f"{version} may become champion, {why}; {wait}."
        place = "" if before is None else f" in place of version {before}"
        return f"{version} becomes champion{place}: {why}."

    def markdown(self) -> str:
        """The decision as a page: verdict, rules, what was missing, sets."""
        before = "no champion" if self.champion is None else f"version {self.champion}"
        rules = [(rule.name, "yes" if rule.passed else "NO", rule.figure, rule.limit) for rule in self.rules]
        sections = [Section("Rules", (Table.of(("rule", "met", "measured", "asked for"), (), rules),))]
        if self.broken:
            lacking = tuple(f"{rule.name}: {rule.limit}; it was: {rule.figure}" for rule in self.broken)
            sections.append(Section("What would have had to be better", (Bullets(lacking),)))
        if self.comparison is not None:
            sections.append(Section("Sets", _sets_blocks(self.comparison)))
        sections.append(Section("", (Text(f"Decided {self.time}, model {self.fingerprint[:12]}."),)))
        title = f"Version {self.challenger} against {before}"
        return markdown(Report(title, coded(self.summary), sections=tuple(sections)))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON, with the summary beside them; `DECISION` reads them."""
        told = {"passed": self.passed, "promoted": self.promoted, "summary": self.summary}
        return {**asdict(self), **told}


DECISION = TypeAdapter(Decision)


def data_rule(problems: Sequence[str]) -> RuleOutcome:
    """All reports of the data checks passed: there is no problem, of which each report has a line."""
    figure = "; ".join(problems) or "all passed"
    return RuleOutcome("data checks", not problems, figure, "every report of the stage validate passed")


def working_rule(problem: str) -> RuleOutcome:
    """The challenger loads and predicts; `problem` says why it does not."""
    limit = "the registered model loads and predicts"
    return RuleOutcome("working model", not problem, problem or "it does", limit)


def complete_rule(seeds: Sequence[int], missing: Sequence[int]) -> RuleOutcome:
    """The models of all seeds of a training are registered.

    Args:
        seeds: split seeds that it trained on.
        missing: those of which the registry has no model.
    """
    told = ", ".join(map(str, missing))
    result = f"none of seed {told}; register the training again" if missing else ", ".join(map(str, seeds))
    return RuleOutcome(
        "all seeds", not missing, result, "the models of all seeds of the training are registered"
    )


def first_rules(reached: float | None, untrained: float | None, least: float) -> tuple[RuleOutcome, ...]:
    """The rules for a challenger that would be the first champion.

    Args:
        reached: mean AP50 of boxes of unseen classes in percent; None where it was not measured.
        untrained: that of the detector before any training, on the same prompts and targets.
        least: smallest `reached`, in percent.
    """
    figure = "not measured" if reached is None else f"{reached:.2f}"
    floor = "not measured" if untrained is None else f"{untrained:.2f}"
    known = reached is not None
    return (
        RuleOutcome(
            "more than untrained",
            reached is not None and untrained is not None and reached > untrained + _ROUNDING,
            f"{figure}, untrained {floor}" if known else figure,
            "mean AP50 of boxes of unseen classes is higher than that of the untrained detector",
        ),
        RuleOutcome(
            "first AP",
            reached is not None and reached >= least - _ROUNDING,
            figure,
            f"mean AP50 of boxes of unseen classes is at least {least:g} percent",
        ),
    )


def compared_rules(
    comparison: Comparison | None, criteria: PromoteConfig, alarm_score: float
) -> tuple[RuleOutcome, ...]:
    """The rules that compare challenger and champion.

    Args:
        comparison: the figures; None where they were not taken. Without a set in it no rule holds.
        criteria: what is asked for.
        alarm_score: lowest score of an alarm.
    """
    missing = "not measured"
    if comparison is not None:
        missing = "" if comparison.sets else "no set has a class that neither model was trained on"
    outcomes = []
    for name, limit, judge in _rules(criteria, alarm_score):
        passed, figure = (False, missing) if missing or comparison is None else judge(comparison)
        outcomes.append(RuleOutcome(name, passed, figure, limit))
    return tuple(outcomes)


def _rules(criteria: PromoteConfig, alarm_score: float) -> tuple[tuple[str, str, Judge], ...]:
    """Name, limit in words, and test of each rule that compares."""
    drop = criteria.robustness_drop
    gain = (
        f"the {100 * criteria.level:g} % interval of the change of mean AP50 of boxes, on other images and "
        "with other trainings, lies above 0"
    )
    masks = f"mean AP50 of masks falls by at most {criteria.mask_drop:g} points"
    sets = f"AP50 of boxes and of masks falls by at most {criteria.set_drop:g} points on each set"
    boxes, falls = "mean AP50 of boxes with", f"falls by at most {drop:g} points"
    blurred = f"{boxes} prompts blurred by {criteria.blur:g} pixels {falls}"
    shifted = f"{boxes} prompt boxes of IoU {criteria.box_iou:g} {falls}"
    rise = criteria.alarm_rise
    alarms = (
        f"detections of at least {alarm_score:g} per defect-free image rise by at most {rise:g}, of a "
        "champion with more than one by that share"
    )
    return (
        ("gain", gain, _gain),
        ("masks", masks, lambda both: _mean_holds(both, lambda s: s.masks, criteria.mask_drop)),
        ("every set", sets, lambda both: _every_set_holds(both, criteria.set_drop)),
        ("blurred prompts", blurred, lambda both: _mean_holds(both, lambda s: s.blurred, drop)),
        ("inexact boxes", shifted, lambda both: _mean_holds(both, lambda s: s.shifted, drop)),
        ("false alarms", alarms, lambda both: _alarms_hold(both, rise)),
    )


def _gain(comparison: Comparison) -> tuple[bool, str]:
    _, figure = _mean_holds(comparison, lambda s: s.boxes, 0)
    interval = comparison.interval
    return interval.low > _ROUNDING, f"{figure}, interval {interval_text(interval)}"


def _mean_holds(comparison: Comparison, figure: Figure, drop: float) -> tuple[bool, str]:
    pair = comparison.mean(figure)
    if pair is None:
        return False, "none of the sets to measure it on has a class that neither model was trained on"
    return _holds(pair, drop), points_text(pair)


def _every_set_holds(comparison: Comparison, drop: float) -> tuple[bool, str]:
    pairs = [
        (pair, f"{member.name}, {kind}")
        for member in comparison.sets
        for kind, pair in (("boxes", member.boxes), ("masks", member.masks))
    ]
    worst, where = min(pairs, key=lambda pair: pair[0].change)
    return _holds(worst, drop), f"at worst {points_text(worst)}: {where}"


def _alarms_hold(comparison: Comparison, rise: float) -> tuple[bool, str]:
    pair = comparison.mean(lambda s: s.alarms)
    if pair is None:
        return True, "no set has defect-free images"
    # Counts scatter with their size: where good images show many, a few hundredths more are chance.
    allowed = rise * max(pair.champion, 1)
    return _holds(Pair(-pair.challenger, -pair.champion), allowed), alarms_text(pair)


def _holds(pair: Pair, drop: float) -> bool:
    return pair.change >= -drop - _ROUNDING


def points_text(pair: Pair) -> str:
    """Change of an AP50, and from what to what."""
    return f"{pair.change:+.2f} points ({pair.champion:.2f} to {pair.challenger:.2f})"


def alarms_text(pair: Pair) -> str:
    """Change of alarms per image, and from what to what."""
    return f"{pair.change:+.3f} ({pair.champion:.3f} to {pair.challenger:.3f})"


def interval_text(interval: Interval) -> str:
    """An interval of a change, in points."""
    return f"{interval.low:+.2f} to {interval.high:+.2f}"


def _sets_blocks(comparison: Comparison) -> tuple[Block, ...]:
    columns = ("boxes", "interval", "masks", "blurred", "inexact boxes", "alarms an image")
    rows, told = [], []
    for member in comparison.sets:
        others = [
            points_text(pair) if pair else "" for pair in (member.masks, member.blurred, member.shifted)
        ]
        alarms = alarms_text(member.alarms) if member.alarms else ""
        boxes = points_text(member.boxes), interval_text(member.interval)
        rows.append((member.name, *boxes, *others, alarms))
        left_out = f"; left out, trained on: {', '.join(member.trained)}" if member.trained else ""
        told.append(f"{member.name}: {', '.join(member.classes)}{left_out}")
    told += [f"{name}: left out, all its classes were trained on" for name in comparison.left_out]
    pairs = tuple(f"seed {pair.seed}: {points_text(pair.boxes)}" for pair in comparison.seeds)
    luck = (
        f"Mean AP50 of boxes of each pair of models. The luck of training is taken to change their mean by "
        f"{comparison.luck:.2f} points (standard deviation)."
    )
    return (
        Text("AP50 on the same prompts and targets: change (champion to challenger)."),
        Table.of(("set",), columns, rows),
        *((Text(luck), Bullets(pairs)) if pairs else ()),
        Text("Classes looked for, none of which either model was trained on:"),
        Bullets(tuple(told)),
    )
