"""Stage `promote`: the registered challenger against the champion, decided by the rules of `params.yaml`.

A decision is written down before anything is done about it, and doing is repeated until it is in the
registry's history: a promotion that is killed and starts again comes to the same decision and one event.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from unispector.benchmark.plan import Evaluation, evaluations_of
from unispector.config import Config
from unispector.data.checks.expectations import CheckReport
from unispector.errors import RegistryError, UniSpectorError
from unispector.evaluation.results import UNTRAINED
from unispector.ops.files import atomic_write_json, atomic_write_text, sha256_of_tree
from unispector.project.paths import PROMOTIONS, check_report
from unispector.registry.comparison import ModelPair, compare_models
from unispector.registry.decisions import finish_begun, last_event, promote_version, refuse
from unispector.registry.register import REPLICATE, models_of_training, read_lineage
from unispector.registry.rules import (
    DECISION,
    Decision,
    RuleOutcome,
    compared_rules,
    complete_rule,
    data_rule,
    first_rules,
    working_rule,
)
from unispector.tracking.registry import CHALLENGER, CHAMPION, Event, ModelRegistry, ModelVersion, now
from unispector.tracking.run import TrackingStore

BY_RULES = "rules"
"""Who decides here, as the registry's history names it."""

_HEADLINE = "unseen_bbox_AP50"
_REPORT = TypeAdapter(CheckReport)


def promote(config: Config, root: Path, store: TrackingStore) -> Decision:
    """Decide whether the registered challenger becomes champion, and do it.

    A decision that was made before, of the same versions, rules and data, is returned as it was, and so is
    the latest one on the newest version where no challenger is left; what it asks for is done where that was
    cut short. Of a version that the rules have refused, other rules or data are a new question. What a person
    decides, also while the models are measured, stands.

    Raises:
        RegistryError: there is no challenger and no decision on the newest version, or the store cannot be
            used.
        CheckpointError: the champion cannot be loaded.
        DataError: a file of the splits or an image is unusable.
    """
    registry = ModelRegistry(store)
    finish_begun(registry, lambda event: _kept(event, root))
    served = (each for each in registry.versions() if each.tags.get("state") != REPLICATE)
    version = registry.find(CHALLENGER) or next(served, None)
    known = [] if version is None else _known(registry, root, version)
    if version is not None and _is_open(registry, version):
        decision = _decision(config, root, registry, version, known)
        if not _still_asked(registry, decision):
            return promote(config, root, store)
        _carry_out(registry, decision, _write(decision, root))
        return decision
    if known:
        decision = max(known, key=lambda each: each.time)
        _write(decision, root)
        return decision
    raise RegistryError(
        f"{registry.place}: no version of {registry.name} is a challenger; register a newly trained "
        "model first"
    )


def settled(root: Path, store: TrackingStore, number: int) -> str | None:
    """Return the state of a version that the rules may not decide on any more; None while they may.

    Raises:
        RegistryError: there is no such version, or the store cannot be used.
    """
    registry = ModelRegistry(store)
    finish_begun(registry, lambda event: _kept(event, root))
    version, champion = registry.version(number), registry.find(CHAMPION)
    if _is_open(registry, version):
        return None
    last = last_event(registry, number)
    story = f"{last.action} by {last.by} on {last.time[:10]} ({last.reason})" if last else "never decided on"
    now_champion = f"the champion is version {champion.number}" if champion else "there is no champion"
    return f"Version {number} has this data and code already, {story}; {now_champion}."


def decision_files(challenger: int, champion: int | None, root: Path = Path()) -> tuple[Path, Path]:
    """Return the files of a decision: a page and JSON."""
    name = f"{challenger}-vs-{'none' if champion is None else champion}"
    return root / PROMOTIONS / f"{name}.md", root / PROMOTIONS / f"{name}.json"


def read_decisions(files: Iterable[Path]) -> list[Decision]:
    """The decisions among some files; pages are passed over, as are damaged files: they are made anew."""
    decisions = []
    for file in files:
        if file.suffix != ".json":
            continue
        try:
            decisions.append(DECISION.validate_json(file.read_bytes(), strict=True))
        except (OSError, ValueError):
            continue
    return decisions


def _write(decision: Decision, root: Path) -> tuple[Path, Path]:
    page, data = decision_files(decision.challenger, decision.champion, root)
    atomic_write_text(page, decision.markdown())
    atomic_write_json(data, decision.as_dict())
    return page, data


def _kept(event: Event, root: Path) -> list[Path]:
    """The files of the decision behind an event that was cut off."""
    files = decision_files(event.version, event.before, root) if event.by == BY_RULES else ()
    return [file for file in files if file.exists()]


def _still_asked(registry: ModelRegistry, decision: Decision) -> bool:
    """Return whether a decision still holds: people may have decided while the models were measured."""
    champion = registry.find(CHAMPION)
    number = None if champion is None else champion.number
    return number == decision.champion and _is_open(registry, registry.version(decision.challenger))


def _is_open(registry: ModelRegistry, version: ModelVersion) -> bool:
    """Return whether rules may decide: on a challenger, and again on a refused one, since rules change."""
    if {CHALLENGER, CHAMPION} & {*version.aliases}:
        return CHAMPION not in version.aliases
    last = last_event(registry, version.number)
    return last is not None and (last.action, last.by) == ("refused", BY_RULES)


def _known(registry: ModelRegistry, root: Path, version: ModelVersion) -> list[Decision]:
    """Every decision on a version that is on the disk or in the history."""
    files = list((root / PROMOTIONS).glob(f"{version.number}-vs-*.json"))
    for event in registry.history():
        if (event.version, event.by) == (version.number, BY_RULES):
            files += registry.event_files(event)
    # A file of an earlier registry may bear the same number, not the same model.
    own = _fingerprint(version)
    return [each for each in read_decisions(files) if each.fingerprint == own]


def _decision(
    config: Config, root: Path, registry: ModelRegistry, challenger: ModelVersion, known: Iterable[Decision]
) -> Decision:
    """The decision on a version: the one that is known already, or a new one."""
    champion = registry.find(CHAMPION)
    before = None if champion is None else champion.number
    mine = models_of_training(registry, challenger)
    theirs = {} if champion is None else models_of_training(registry, champion)
    pairs = _pairs(config, root, registry, mine, theirs)
    directories = [registry.model_directory(version.number) for version in mine.values()]
    seeds = read_lineage(directories[0]).seeds
    missing = [seed for seed in seeds if seed not in mine]
    others = [_fingerprint(version) for version in theirs.values()] + [f"no {seed}" for seed in missing]
    key = _key(config, root, [each for pair in pairs for each in pair.evaluations], others)
    for decision in known:
        if (decision.champion, decision.key) == (before, key):
            return decision
    rules: tuple[RuleOutcome, ...] = (
        data_rule(list(_data_problems(config, root))),
        working_rule(next(filter(None, map(_problem, directories)), "")),
        complete_rule(seeds, missing),
    )
    comparison = None
    if before is not None:
        if all(rule.passed for rule in rules):
            comparison = compare_models(pairs, config)
        rules += compared_rules(comparison, config.promote, config.evaluate.alarm_score)
    else:
        reached = _mean_metric(directories, _HEADLINE)
        untrained = _mean_metric(directories, f"{UNTRAINED}_{_HEADLINE}")
        rules += first_rules(reached, untrained, config.promote.first_ap)
    return Decision(
        challenger=challenger.number,
        champion=before,
        fingerprint=_fingerprint(challenger),
        key=key,
        time=now(),
        automatic=config.promote.automatic,
        rules=rules,
        comparison=comparison,
    )


def _pairs(
    config: Config,
    root: Path,
    registry: ModelRegistry,
    mine: Mapping[int, ModelVersion],
    theirs: Mapping[int, ModelVersion],
) -> list[ModelPair]:
    """Models of both trainings of the same split seed; where no seed is shared, the two that are served.

    Without a champion the challenger stands in its place: which sets there are does not depend on it.
    """
    shared = [(seed, mine[seed], theirs[seed]) for seed in mine if seed in theirs]
    served = (next(iter(mine.items())), next(iter((theirs or mine).values())))
    pairs = []
    for seed, *models in shared or [(*served[0], served[1])]:
        challenger, champion = (registry.model_directory(version.number) for version in models)
        own = evaluations_of(config, root, [("challenger", seed, challenger)])
        trained = {name for each in (challenger, champion) for name in read_lineage(each).trained_classes}
        unseen = tuple(each for each in own if each.subset == "unseen")
        pairs.append(ModelPair(seed, challenger, champion, unseen, frozenset(trained)))
    return pairs


def _mean_metric(directories: Sequence[Path], name: str) -> float | None:
    """Mean over the models of a training; None where one of them was registered without it."""
    values = [read_lineage(each).metrics.get(name, np.nan) for each in directories]
    mean = float(np.mean(values))
    return None if np.isnan(mean) else mean


def _carry_out(registry: ModelRegistry, decision: Decision, files: Sequence[Path]) -> None:
    """Do what a decision says, unless the history has it: who rolled it back since is not overruled."""
    for event in registry.history():
        if (event.version, event.by) == (decision.challenger, BY_RULES):
            kept = read_decisions(registry.event_files(event))
            if decision.key in [each.key for each in kept if each.champion == decision.champion]:
                return
    if decision.promoted:
        promote_version(registry, decision.challenger, BY_RULES, decision.summary, files)
    elif not decision.passed:
        refuse(registry, decision.challenger, BY_RULES, decision.summary, files)


def _key(config: Config, root: Path, evaluations: Sequence[Evaluation], champion: Sequence[str]) -> str:
    """Hash of the rules, the data and the champion's models: what a decision on a training rests on."""
    tests = [test for evaluation in evaluations for test in evaluation.tests]
    files = [file for test in tests for file in (test.prompt, test.target)]
    files += [evaluation.dropped for evaluation in evaluations]
    sections = {
        name: getattr(config, name).model_dump(mode="json") for name in ("promote", "evaluate", "sweep")
    }
    data = sha256_of_tree([*files, *_reports(root)])
    text = json.dumps([sections, config.prompt.test_roi, data, champion], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _fingerprint(version: ModelVersion) -> str:
    """Of a version's model.

    Raises:
        RegistryError: the version was not made by this pipeline.
    """
    if "fingerprint" not in version.tags:
        raise RegistryError(
            f"version {version.number}: has no tag `fingerprint`, so it was not registered by this pipeline; "
            "delete it, or take its alias away"
        )
    return version.tags["fingerprint"]


def _reports(root: Path) -> list[Path]:
    return sorted((root / check_report("")).parent.glob("*.json"))


def _data_problems(config: Config, root: Path) -> Iterator[str]:
    """A line for each report of the data checks that is missing, damaged or did not pass."""
    reports = {path.stem: path for path in _reports(root)}
    for name in config.data.sets:
        if name not in reports:
            yield f"{name}: no report; run the stage validate"
    for name, path in reports.items():
        try:
            report = _REPORT.validate_json(path.read_bytes(), strict=True, extra="forbid")
        except (OSError, ValueError):
            yield f"{name}: damaged report; run the stage validate"
            continue
        if not report.passed:
            yield report.summary()


def _problem(directory: Path) -> str:
    """Return why a model does not work, one line; empty where it loads, is all numbers and predicts."""
    from unispector.registry.registered_model import answer_example

    try:
        answer_example(directory)
    except UniSpectorError as error:
        return str(error)
    return ""
